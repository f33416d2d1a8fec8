"""Tables that a Gather reads rows from (embeddings): found in a float graph, and read back from one with codes.

A table of codes has one scale a row, and is never unpacked as a whole: only the rows that are asked for become float.

    ids -> Gather(codes int8) -> Cast to float32 -> Mul -> rows
    ids -> Gather(scales float32, one a row) --------^
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.graph.model import attribute, constant, is_op, sole_consumer

CODES = (np.int8, np.int16)
SMALLEST = 4096
"""Numbers of a table that is worth codes: a smaller one saves less than the three nodes around it cost."""


@dataclass(frozen=True, eq=False)
class CodeTable:
    """The nodes of one look-up: `codes` (V, K) int8 or int16, float32 `scale` (V,), the `ids` that pick rows.

    `constants` are codes and scales in the graph, `last` writes the rows in float32, and `nodes` are all four.
    """

    codes: NDArray[Any]
    scale: NDArray[np.float32]
    ids: ir.Value
    constants: tuple[ir.Value, ir.Value]
    last: ir.Node
    nodes: frozenset[ir.Node]


def float_table(node: ir.Node) -> NDArray[np.float32] | None:
    """The table (V, K) that a Gather picks rows from, if it is constant float32 and large enough; else None."""
    if not is_op(node, "Gather") or attribute(node, "axis", 0) != 0:
        return None
    table = constant(node.inputs[0])
    if table is None or table.dtype != np.float32 or table.ndim != 2 or table.size < SMALLEST:
        return None
    return table


def code_table(node: ir.Node) -> CodeTable | None:
    """The look-up whose codes the Gather `node` picks; None if the nodes around it are others than those above."""
    codes, ids = (constant(node.inputs[0]), node.inputs[1]) if is_op(node, "Gather") else (None, None)
    if (
        codes is None
        or ids is None
        or codes.dtype not in CODES
        or codes.ndim != 2
        or attribute(node, "axis", 0)
    ):
        return None
    cast = sole_consumer(node.outputs[0])
    if cast is None or not is_op(cast, "Cast") or attribute(cast, "to", 0) != ir.DataType.FLOAT:
        return None
    last = sole_consumer(cast.outputs[0])
    if last is None or not is_op(last, "Mul"):
        return None
    other = next((value for value in last.inputs if value is not cast.outputs[0]), None)
    scales = None if other is None else other.producer()
    if other is None or scales is None or not is_op(scales, "Gather") or sole_consumer(other) is not last:
        return None
    scale = constant(scales.inputs[0])
    if scales.inputs[1] is not ids or attribute(scales, "axis", 0) or scale is None:
        return None
    if scale.dtype != np.float32 or scale.shape != (len(codes), 1):
        return None
    constants = node.inputs[0], scales.inputs[0]
    assert constants[0] is not None and constants[1] is not None
    nodes = frozenset({node, cast, scales, last})
    return CodeTable(codes, scale.reshape(-1), ids, (constants[0], constants[1]), last, nodes)
