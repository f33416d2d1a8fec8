"""What of a prepared float graph can be integer, whatever a recipe will choose: each node's form, or why it has none.

A *layer* multiplies by constant weights, an *integer* op computes on activations alone, a *move* carries codes from
place to place and shares its input's scale, a *clamp* limits codes, and vanishes where the op before it saturates in
its place, a *table* hands out rows of codes. Everything else stays in float, for a reason that is said here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnx_ir as ir

from eightbit.graph.embeddings import float_table
from eightbit.graph.model import attribute, constant, input_at, ints
from eightbit.graph.pickling import HoldsGraph
from eightbit.quant.choose.masks import around_masks, constant_masks

LAYERS = {"Conv", "Gemm", "MatMul"}
INTEGER = {"Add", "Mul", "MatMul", "AveragePool", "GlobalAveragePool", "Softmax", "Sigmoid", "Concat"}
MOVES = {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad"}
CLAMPS = {"Relu", "Clip"}


class Form(Enum):
    """How a node can run on codes."""

    LAYER = "layer"
    INTEGER = "integer"
    MOVE = "move"
    CLAMP = "clamp"
    TABLE = "table"


@dataclass(frozen=True)
class Capable(HoldsGraph):
    """A graph, and for each of its nodes by name either the form in which it can be integer, or why it cannot."""

    model: ir.Model
    forms: Mapping[str, Form]
    refusals: Mapping[str, str]

    def named(self, *forms: Form) -> tuple[str, ...]:
        """The nodes of these forms, in the order of the graph."""
        return tuple(name for name, form in self.forms.items() if form in forms)

    def without(self, reasons: Mapping[str, str]) -> Capable:
        """The same, but for the nodes that have a form and are named in `reasons`: they are refused for those."""
        kept = {name: form for name, form in self.forms.items() if name not in reasons}
        lost = {name: reasons[name] for name in self.forms if name in reasons}
        return Capable(self.model, kept, {**self.refusals, **lost})


def capable(model: ir.Model) -> Capable:
    """What each node of a prepared graph can be; masks that are constants are seen to."""
    forms, refusals = {}, {}
    for node in model.graph:
        assert node.name
        reason = _refusal(node)
        if reason is None:
            forms[node.name] = _form(node)
        else:
            refusals[node.name] = reason
    return Capable(model, forms, refusals).without(around_masks(model, constant_masks(model)))


def _form(node: ir.Node) -> Form:
    """The form of a node that has one."""
    if node.op_type == "Gather":
        return Form.TABLE
    if node.op_type in MOVES:
        return Form.MOVE
    if node.op_type in CLAMPS:
        return Form.CLAMP
    return Form.LAYER if is_layer(node) else Form.INTEGER


def _refusal(node: ir.Node) -> str | None:
    """Why this node cannot run in integers; None if it can."""
    if node.domain not in ("", "ai.onnx"):
        return "no integer form of this op"
    if float_table(node) is not None:
        return None
    if node.op_type not in LAYERS | INTEGER | MOVES | CLAMPS:
        return "no integer form of this op"
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return "its second output is used"
    if not node.outputs[0].name:
        return "its first output is left out"
    if any(value is not None and value.dtype not in (None, ir.DataType.FLOAT) for value in _data(node)):
        return "its data are not float32"
    if not list(activations(node)):
        return "all its inputs are constant"
    return _SPECIAL[node.op_type](node) if node.op_type in _SPECIAL else None


def _gemm(node: ir.Node) -> str | None:
    alpha, beta, trans_a = (attribute(node, *pair) for pair in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)))
    if (alpha, beta, trans_a) != (1.0, 1.0, 0):
        return f"Gemm with alpha {alpha}, beta {beta}, transA {trans_a}; 1, 1, 0 are supported"
    return _layer(node)


def _layer(node: ir.Node) -> str | None:
    weight = constant(node.inputs[1])
    if weight is None:
        return "its weight is not constant"
    if input_at(node, 2) is None:
        return None
    bias = constant(node.inputs[2])
    if bias is None:
        return "its bias is not constant"
    channels = weight.shape[channel_axis(node)]
    return None if bias.size == channels else f"its bias has {bias.size} values for {channels} channels"


def _pad(node: ir.Node) -> str | None:
    value = input_at(node, 2)
    fill = 0.0 if value is None else constant(value)
    if attribute(node, "mode", "constant") == "constant" and (fill is None or np.any(fill != 0)):
        return "it pads with a value other than 0"
    return None


def _clip(node: ir.Node) -> str | None:
    bounds = [value for value in node.inputs[1:] if value is not None]
    return "its bounds are not constant" if any(constant(value) is None for value in bounds) else None


def _average_pool(node: ir.Node) -> str | None:
    dilations = ints(node, "dilations") or ()
    if any(d != 1 for d in dilations):
        return f"its windows are dilated by {dilations}; the integer kernels average neighbours"
    axes = len(ints(node, "kernel_shape") or ())
    return f"it averages over {axes} axes; 1 and 2 have an integer form" if axes > 2 else None


_SPECIAL = {
    "Gemm": _gemm,
    "Conv": _layer,
    "Pad": _pad,
    "Clip": _clip,
    "AveragePool": _average_pool,
}


def is_layer(node: ir.Node) -> bool:
    """Whether the node multiplies by a constant weight, its second input."""
    return node.op_type in LAYERS and constant(node.inputs[1]) is not None


def channel_axis(node: ir.Node) -> int:
    """The axis of a layer's weight along which its output channels lie; of a table, the axis of its rows."""
    if node.op_type in ("Conv", "Gather"):
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    weight = constant(node.inputs[1])
    assert weight is not None
    return weight.ndim - 1


def activations(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs of a node that calibration sees: its data, without constants."""
    for value in _data(node):
        if value is not None and constant(value) is None:
            yield value


def _data(node: ir.Node) -> tuple[ir.Value | None, ...]:
    if node.op_type in MOVES | CLAMPS or is_layer(node):
        return tuple(node.inputs[:1])
    return tuple(node.inputs)


def clamp_bounds(clamp: ir.Node) -> tuple[float, float]:
    """The bounds (lo, hi) of a Relu or of a Clip with constant bounds."""
    if clamp.op_type == "Relu":
        return 0.0, float("inf")
    lo, hi = constant(input_at(clamp, 1)), constant(input_at(clamp, 2))
    return (-float("inf") if lo is None else float(lo)), (float("inf") if hi is None else float(hi))
