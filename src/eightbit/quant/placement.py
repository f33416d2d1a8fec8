"""Where integers can go: a prepared float graph and a recipe in, the tensors and nodes to quantize out.

A *layer* multiplies by constant weights, an *integer* op computes on activations alone, a *move* carries codes from
place to place and shares its input's scale, a *clamp* vanishes into the saturation of the op before it. Anything else
is a float island, and is listed with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from eightbit.quant.recipe import Recipe

LAYERS = {"Conv", "Gemm", "MatMul"}
INTEGER = {"Add", "Mul", "MatMul", "AveragePool", "GlobalAveragePool", "Softmax", "Sigmoid", "Concat"}
MOVES = {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad"}
CLAMPS = {"Relu", "Clip"}
FIXED_LIMITS = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0)}
"""Outputs whose limits are known without data."""


@dataclass(frozen=True)
class Island:
    """A node left in float, and why."""

    node: str
    op: str
    reason: str


@dataclass(frozen=True)
class Placement:
    """Names only: a placement of one graph can be applied to any copy of it.

    `layers` and `integer` are node names; `sources` maps each tensor to be quantized to the tensor whose range it
    takes (itself, or where its codes come from); `absorbed` maps a clamp to the node that saturates in its place.
    """

    layers: tuple[str, ...]
    integer: tuple[str, ...]
    moves: tuple[str, ...]
    absorbed: dict[str, str]
    sources: dict[str, str]
    islands: tuple[Island, ...]

    @property
    def observed(self) -> tuple[str, ...]:
        """The tensors whose ranges calibration must find."""
        return tuple(dict.fromkeys(self.sources.values()))


def place(model: ir.Model, recipe: Recipe) -> Placement:
    """Decide for every node of a prepared graph whether it runs in integers."""
    layers: list[str] = []
    integer: list[str] = []
    clamps: list[ir.Node] = []
    moves: list[ir.Node] = []
    islands: list[Island] = []
    absorbed: dict[str, str] = {}
    marked: set[str] = set()
    for node in model.graph:
        reason = _refusal(node, recipe)
        if reason is None and node.op_type in MOVES:
            moves.append(node)
        elif reason is None and node.op_type in CLAMPS:
            before = None if recipe.activations.symmetric else _absorber(node, layers, integer)
            if before is None:
                clamps.append(node)
            else:
                absorbed[_name(node)] = before
                marked.discard(_name(node.inputs[0]))
                marked.add(_name(node.outputs[0]))
        elif reason is None:
            (layers if is_layer(node) else integer).append(_name(node))
            marked.update(_name(value) for value in activations(node))
            marked.add(_name(node.outputs[0]))
        else:
            islands.append(Island(_name(node), node.op_type, reason))
    sources = _spread(marked, moves)
    for node in clamps:  # a clamp that nothing absorbs runs on codes where its input has them
        if _name(node.inputs[0]) in sources:
            integer.append(_name(node))
            sources.setdefault(_name(node.outputs[0]), _name(node.outputs[0]))
        else:
            islands.append(Island(_name(node), node.op_type, "its input is in float"))
    sources = _spread(set(sources), moves)
    carried = [node for node in moves if _name(node.inputs[0]) in sources]
    for node in moves:
        if node not in carried and node.inputs[0].dtype == ir.DataType.FLOAT:
            islands.append(Island(_name(node), node.op_type, "its input is in float"))
    return Placement(
        tuple(layers), tuple(integer), tuple(_name(n) for n in carried), absorbed, sources, tuple(islands)
    )


def _refusal(node: ir.Node, recipe: Recipe) -> str | None:
    """Why this node cannot, or shall not, run in integers; None if it can."""
    known = LAYERS | INTEGER | MOVES | CLAMPS
    if node.domain not in ("", "ai.onnx") or node.op_type not in known:
        return "no integer form of this op"
    if recipe.keeps_float(_name(node)):
        return "the recipe keeps it in float"
    if any(value is not None and value.dtype not in (None, ir.DataType.FLOAT) for value in _data(node)):
        return "its data are not float32"
    if not list(activations(node)):
        return "all its inputs are constant"
    return _SPECIAL[node.op_type](node) if node.op_type in _SPECIAL else None


def _gemm(node: ir.Node) -> str | None:
    attributes = node.attributes
    alpha, beta = attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)
    if alpha != 1.0 or beta != 1.0 or attributes.get_int("transA", 0):
        return f"Gemm with alpha {alpha}, beta {beta}, transA {attributes.get_int('transA', 0)}; 1, 1, 0 are supported"
    if node.inputs[1].const_value is None:
        return "Gemm with a weight that is not constant"
    return _bias_length(node)


def _conv(node: ir.Node) -> str | None:
    if node.inputs[1].const_value is None:
        return "convolution with a weight that is not constant"
    return _bias_length(node)


def _bias_length(node: ir.Node) -> str | None:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return None
    bias = node.inputs[2].const_value
    if bias is None:
        return "its bias is not constant"
    channels = node.inputs[1].const_value.shape[channel_axis(node)]
    return None if bias.size == channels else f"its bias has {bias.size} values for {channels} channels"


def _pad(node: ir.Node) -> str | None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    constant = (
        0.0 if value is None else (None if value.const_value is None else value.const_value.numpy().item())
    )
    if node.attributes.get_string("mode", "constant") == "constant" and constant != 0.0:
        return "it pads with a value other than 0"
    return None


def _clip(node: ir.Node) -> str | None:
    bounds = [value for value in node.inputs[1:] if value is not None]
    return "its bounds are not constant" if any(value.const_value is None for value in bounds) else None


def _one_output(node: ir.Node) -> str | None:
    return "its second output is used" if any(value.uses() for value in node.outputs[1:]) else None


_SPECIAL = {"Gemm": _gemm, "Conv": _conv, "Pad": _pad, "Clip": _clip, "MaxPool": _one_output}


def is_layer(node: ir.Node) -> bool:
    """Whether the node multiplies by a constant weight, its second input."""
    return node.op_type in LAYERS and node.inputs[1] is not None and node.inputs[1].const_value is not None


def channel_axis(node: ir.Node) -> int:
    """The axis of a layer's weight along which its output channels lie."""
    weight = node.inputs[1]
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    assert weight is not None and weight.const_value is not None
    return len(weight.const_value.shape) - 1


def activations(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs of a node that calibration sees: its data, without constants."""
    for value in _data(node):
        if value is not None and value.const_value is None:
            yield value


def _data(node: ir.Node) -> tuple[ir.Value | None, ...]:
    if node.op_type in MOVES | CLAMPS or is_layer(node):
        return tuple(node.inputs[:1])
    return tuple(node.inputs)


def clamp_bounds(clamp: ir.Node) -> tuple[float, float]:
    """The bounds (lo, hi) of a Relu or of a Clip with constant bounds."""
    if clamp.op_type == "Relu":
        return 0.0, float("inf")
    bounds = [*clamp.inputs[1:], None, None][:2]
    lo, hi = (None if b is None or b.const_value is None else b.const_value.numpy().item() for b in bounds)
    return (-float("inf") if lo is None else lo), (float("inf") if hi is None else hi)


def _absorber(clamp: ir.Node, layers: list[str], integer: list[str]) -> str | None:
    """The integer node whose saturation can do the clamp's work: it feeds the clamp and nothing else.

    The output's range lies within the clamp's bounds, so its codes saturate at or before them. That needs bounds
    with zero between them, because every range is widened to hold zero, and asymmetric codes (symmetric ones would
    reach below a Relu's zero).
    """
    value = clamp.inputs[0]
    assert value is not None
    producer = value.producer()
    if producer is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    lo, hi = clamp_bounds(clamp)
    if not lo <= 0.0 <= hi:
        return None
    name = _name(producer)
    return name if name in layers or name in integer else None


def _spread(marked: set[str], moves: list[ir.Node]) -> dict[str, str]:
    """Give the tensors on both sides of a move one source, from the marked tensors outwards; a map tensor -> source."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    for node in moves:  # topological order: the first tensor of a chain becomes its root
        parent[root(_name(node.outputs[0]))] = root(_name(node.inputs[0]))
    roots = {root(name) for name in marked}
    tensors = dict.fromkeys(
        name for node in moves for name in (_name(node.inputs[0]), _name(node.outputs[0]))
    )
    return {name: root(name) for name in [*sorted(marked), *tensors] if root(name) in roots}


def _name(thing: ir.Node | ir.Value | None) -> str:
    assert thing is not None and thing.name
    return thing.name
