"""Functions of one number that a graph spells out: trees of element-by-element ops on one tensor and single constants.

    x -> Add 3 -> Clip [0, 6] -> Mul x -> Mul 1/6        (HardSwish)

Between codes such a tree needs one rounding, at its end: the integer program makes it one table.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from eightbit.graph.forms import ELEMENTWISE
from eightbit.graph.model import constant, is_op, rank


def function_roots(model: ir.Model, *, apart: Collection[ir.Node] = ()) -> dict[ir.Node, ir.Value]:
    """The tensor of which each node that computes a function of one number is one; nodes that do not are left out.

    The nodes `apart` are taken for what they are not: the beginning of another tree.
    """
    roots: dict[ir.Value, ir.Value] = {}
    found: dict[ir.Node, ir.Value] = {}
    for node in model.graph:
        if node in apart or not is_op(node, *ELEMENTWISE) or len(node.outputs) != 1:
            continue
        moving = [value for value in node.inputs if value is not None and constant(value) is None]
        fixed = [array for value in node.inputs if (array := constant(value)) is not None]
        sources = {roots.get(value, value) for value in moving}
        if len(sources) == 1 and all(_single(array, moving[0]) for array in fixed):
            (root,) = sources
            roots[node.outputs[0]] = found[node] = root
    return found


def _single(array: np.ndarray, beside: ir.Value) -> bool:
    """Whether a constant is one number, and adds no axis to what it meets."""
    return array.size == 1 and (array.ndim == 0 or array.ndim <= (rank(beside) or 0))
