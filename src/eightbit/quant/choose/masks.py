"""Attention masks: numbers added to scores so that Softmax does not see them, known by their values and their reader.

A mask holds values that Softmax turns to nothing (-1e4, the smallest float16 or float32, minus infinity, Swin's -100)
beside small ones (0, or a bias), and nothing in between (`methods.octaves`). Codes of a sum with it would span the mask
and leave the scores a few steps. So the sum stays in float, with what is computed on it up to the Softmax, and with
what does nothing but make the mask. Biases without such a gap (T5, ALiBi) are numbers like any others. What is added to
scores and was zero in all the data is taken for a mask that had nothing to hide yet: codes of zero alone would lose it.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

import numpy as np
import onnx_ir as ir

from eightbit.graph.model import constant, is_op
from eightbit.quant.methods.octaves import FAR, is_mask

ENDS = ("Softmax", "LogSoftmax", "Exp")
"""What takes differences in size to nothing; a Softmax by hand has an Exp in it."""
BETWEEN = (
    *(
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Neg",
        "Max",
        "Min",
        "Clip",
        "Relu",
        "Where",
        "Cast",
        "Identity",
        "Dropout",
    ),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Expand", "Tile", "Pad", "Concat"),
    *("Gather", "GatherND", "Trilu"),
)
"""What may lie between a mask and its Softmax, or makes masks: it acts on single elements, or moves them."""
ADDED = "one of its inputs is a mask, not a signal"
MASKED = "it computes on scores under a mask"
MAKES = "it only makes a mask"


def watched(model: ir.Model) -> dict[str, tuple[str, ...]]:
    """Of each addition before a Softmax: the names of the operands that only data can tell to be masks or not."""
    return {
        str(node.name): tuple(str(value.name) for value in node.inputs if value and constant(value) is None)
        for node in _additions(model)
    }


def constant_masks(model: ir.Model) -> frozenset[str]:
    """The names of the constants that are masks."""
    found = set()
    for node in _additions(model):
        for value in node.inputs:
            array = constant(value)
            if value is not None and array is not None and array.dtype == np.float32 and is_mask(array):
                found.add(str(value.name))
    return frozenset(found)


def around_masks(model: ir.Model, masks: Set[str]) -> dict[str, str]:
    """The nodes that stay in float because of the tensors `masks`, each with the reason.

    A Where that puts something far below zero in front of a Softmax makes a mask, or masks by itself.
    """
    filled = list(_filled(model))
    made = [n for n in filled if all(constant(branch) is not None for branch in n.inputs[1:])]
    masks = masks | {str(node.outputs[0].name) for node in made}
    additions = [n for n in _additions(model) if any(v is not None and v.name in masks for v in n.inputs)]
    masking = [*additions, *(node for node in filled if node not in made)]
    under = {value for node in masking for value in node.outputs}
    reasons = {str(node.name): ADDED for node in additions}
    for node in model.graph:
        if is_op(node, *BETWEEN) and any(value in under for value in node.inputs):
            under.update(node.outputs)
            reasons.setdefault(str(node.name), MASKED)
    ends = {
        (n, v) for n in additions for v in n.inputs if v is not None and v.name in masks and v not in under
    }
    makes: set[ir.Node] = set()
    for node in reversed(list(model.graph)):
        uses = [use for value in node.outputs for use in value.uses()]
        into = all(use.node in makes or (use.node, use.node.inputs[use.idx]) in ends for use in uses)
        given = any(value.is_graph_output() for value in node.outputs)
        if uses and into and not given and is_op(node, *BETWEEN):
            makes.add(node)
            reasons.setdefault(str(node.name), MAKES)
    return reasons


def _additions(model: ir.Model) -> Iterator[ir.Node]:
    """The Adds of a graph that lead to a Softmax."""
    leads = _leading(model)
    return (node for node in model.graph if is_op(node, "Add") and node in leads)


def _filled(model: ir.Model) -> Iterator[ir.Node]:
    """The Wheres before a Softmax of which one branch is a constant far below zero everywhere."""
    leads = _leading(model)
    for node in model.graph:
        if is_op(node, "Where") and node in leads:
            fills = [array for value in node.inputs[1:] if (array := constant(value)) is not None]
            if any(array.size and array.max() <= -FAR for array in fills):
                yield node


def _leading(model: ir.Model) -> set[ir.Node]:
    """The nodes from which a path through BETWEEN alone leads to a Softmax."""
    found: set[ir.Node] = set()
    for node in reversed(list(model.graph)):
        readers = [use.node for value in node.outputs for use in value.uses()]
        if is_op(node, *BETWEEN) and any(is_op(r, *ENDS) or r in found for r in readers):
            found.add(node)
    return found
