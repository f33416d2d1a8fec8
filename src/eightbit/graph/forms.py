"""Which nodes can run on codes, and in what form: the one table that placement, lowering and the report read.

A *layer* multiplies by constant weights, an *integer* op computes on activations alone, a *move* carries codes from
place to place and shares its input's scale, a *clamp* limits codes, and vanishes where the op before it saturates in
its place, a *table* hands out rows of codes. A *function* of single numbers has no form of its own, but where codes go
in and codes come out it is run once on all of them, and becomes a table. Everything else stays in float, for the reason
that is said here.

Float graphs and quantized ones are judged alike: constant codes behind a DequantizeLinear are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnx_ir as ir

from eightbit.arith.affine import TINY
from eightbit.graph import moves
from eightbit.graph.embeddings import float_table
from eightbit.graph.model import attribute, constant, dims, fixed_shape, input_at, ints, is_op, rank
from eightbit.graph.windows import window

AXES = 3
"""Spatial axes at most over which convolutions and pools run on codes."""
NO_FORM = "no integer form of this op"


class Form(Enum):
    """How a node can run on codes."""

    LAYER = "layer"
    INTEGER = "integer"
    MOVE = "move"
    CLAMP = "clamp"
    TABLE = "table"
    FUNCTION = "function"


@dataclass(frozen=True)
class Row:
    """An op: its form; why one node of it has none, all the same; the first opset in which it reads as it does here."""

    form: Form | None
    refusal: Callable[[ir.Node], str | None] = lambda node: None
    since: int = 1


def form_of(node: ir.Node) -> Form:
    """The form of a node that has one (`refusal` is None)."""
    if float_table(node) is not None:
        return Form.TABLE
    form = ROWS[node.op_type].form
    assert form is not None
    return Form.INTEGER if form is Form.LAYER and not is_layer(node) else form


def refusal(node: ir.Node) -> str | None:
    """Why this node cannot run in integers; None if it can."""
    row = ROWS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if float_table(node) is not None:
        return None
    if row is None:
        return NO_FORM
    if row.form is None or row.form is Form.FUNCTION:
        return row.refusal(node) or NO_FORM
    if node.op_type in SEVERAL:
        if any(not value.name or not (value.uses() or value.is_graph_output()) for value in node.outputs):
            return "one of its outputs is left out"
    elif any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return "its second output is used"
    if not node.outputs[0].name:
        return "its first output is left out"
    if any(value is not None and value.dtype not in (None, ir.DataType.FLOAT) for value in _data(node)):
        return "its data are not float32"
    if not list(activations(node)):
        fixed = all(fixed_shape(value) is not None for value in node.inputs if value is not None)
        return "all its inputs are constant" if fixed else "what it reads from is constant"
    opset = node.graph.opset_imports.get("", row.since) if isinstance(node.graph, ir.Graph) else row.since
    if opset < row.since:
        return f"{node.op_type} of opset {opset}; from {row.since} on it has an integer form"
    return row.refusal(node)


def ops(*forms: Form) -> frozenset[str]:
    """The op types of these forms; a MatMul is a layer or, on two activations, an integer op."""
    found = {op for op, row in ROWS.items() if row.form in forms}
    return frozenset(found | {"MatMul"} if Form.INTEGER in forms else found)


def is_layer(node: ir.Node) -> bool:
    """Whether the node multiplies by a constant weight, its second input."""
    return is_op(node, *LAYERS) and fixed_shape(input_at(node, 1)) is not None


def channel_axis(node: ir.Node) -> int:
    """The axis of a layer's weight along which its output channels lie; of a table, the axis of its rows."""
    if node.op_type in ("Conv", "Gather"):
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return len(_weight_shape(node)) - 1


def activations(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs of a node that calibration sees: its data, without constants."""
    for value in _data(node):
        if value is not None and fixed_shape(value) is None:
            yield value


def carried(move: ir.Node) -> tuple[ir.Value, ...]:
    """The outputs of a move that hold codes of its first input."""
    return tuple(move.outputs if move.op_type in SEVERAL else move.outputs[:1])


def clamp_bounds(clamp: ir.Node) -> tuple[float, float]:
    """The bounds (lo, hi) of a Relu or of a Clip with constant bounds."""
    if clamp.op_type == "Relu":
        return 0.0, float("inf")
    lo, hi = constant(input_at(clamp, 1)), constant(input_at(clamp, 2))
    return (-float("inf") if lo is None else float(lo)), (float("inf") if hi is None else float(hi))


def _data(node: ir.Node) -> tuple[ir.Value | None, ...]:
    row = ROWS[node.op_type]
    if row.form in (Form.MOVE, Form.CLAMP) or is_layer(node):
        return tuple(node.inputs[:1])
    return tuple(node.inputs)


def _weight_shape(node: ir.Node) -> tuple[int, ...]:
    shape = fixed_shape(node.inputs[1])
    assert shape is not None
    return shape


def _conv(node: ir.Node) -> str | None:
    return _layer(node) or _windowed(node)


def _gemm(node: ir.Node) -> str | None:
    alpha, beta, trans_a = (attribute(node, *pair) for pair in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)))
    if (alpha, beta, trans_a) != (1.0, 1.0, 0):
        return f"Gemm with alpha {alpha}, beta {beta}, transA {trans_a}; 1, 1, 0 are supported"
    return _layer(node)


def _layer(node: ir.Node) -> str | None:
    if fixed_shape(node.inputs[1]) is None:
        return "its weight is not constant"
    tiny = _tiny(node)
    if tiny is not None or input_at(node, 2) is None:
        return tiny
    bias = fixed_shape(node.inputs[2])
    if bias is None:
        return "its bias is not constant"
    channels, size = _weight_shape(node)[channel_axis(node)], int(np.prod(bias))
    return None if size == channels else f"its bias has {size} values for {channels} channels"


def _tiny(node: ir.Node) -> str | None:
    weight = constant(node.inputs[1])
    most = 0.0 if weight is None else float(np.abs(weight).max(initial=0))
    tiny = 0 < most < 2**8 * TINY
    return f"its weights reach {most:.1e} only: float32 has no scale for them" if tiny else None


def _windowed(node: ir.Node) -> str | None:
    way = window(node)
    if way is None:
        return "the size of its window is not known"
    if len(way.kernel) > AXES:
        return f"its window has {len(way.kernel)} axes; up to {AXES} have an integer form"
    if way.pads is None:
        return f"auto_pad {way.auto_pad} of an input whose size is not known"
    return None


def _average_pool(node: ir.Node) -> str | None:
    dilations = ints(node, "dilations") or ()
    if any(d != 1 for d in dilations):
        return f"its windows are dilated by {dilations}; the integer kernels average neighbours"
    return _windowed(node)


def _reshape(node: ir.Node) -> str | None:
    shape = constant(input_at(node, 1))
    if attribute(node, "allowzero", 0) and (shape is None or 0 in shape):
        return "it may ask for an axis of length 0"
    return None


def _transpose(node: ir.Node) -> str | None:
    unknown = ints(node, "perm") is None and rank(node.inputs[0]) is None
    return "no perm and an unknown rank" if unknown else None


def _operands(what: str) -> Callable[[ir.Node], str | None]:
    """The refusal of ops whose inputs but the first say what to do, and must be constant."""

    def refuse(node: ir.Node) -> str | None:
        given = [value for value in node.inputs[1:] if value is not None]
        return f"its {what} are not constant" if any(constant(value) is None for value in given) else None

    return refuse


def _pad(node: ir.Node) -> str | None:
    value = input_at(node, 2)
    fill = 0.0 if value is None else constant(value)
    if attribute(node, "mode", "constant") == "constant" and (fill is None or np.any(fill != 0)):
        return "it pads with a value other than 0"
    unknown = dims(node.inputs[0]) is None
    return "its pads are not constant, or the rank is unknown" if unknown else _operands("pads")(node)


def _known(read: Callable[[ir.Node], object]) -> Callable[[ir.Node], str | None]:
    """The refusal of ops that are what `read` (`graph.moves`) says of them."""

    def refuse(node: ir.Node) -> str | None:
        found = read(node)
        return found if isinstance(found, str) else None

    return refuse


def _transposed_conv(node: ir.Node) -> str:
    return "ONNX Runtime has no integer kernel for it"


def _branching(node: ir.Node) -> str:
    """What decides between the branches of an If: often an input that never changes, such as a sampling rate."""
    waiting, seen = [node.inputs[0]], set()
    while waiting:
        value = waiting.pop()
        if value is None or value in seen or constant(value) is not None:
            continue
        seen.add(value)
        before = value.producer()
        waiting.extend(() if before is None else before.inputs)
    names = [str(value.name) for value in seen if value.is_graph_input()]
    if len(names) != 1:
        return "its branches run in float"
    return (
        f"its branches run in float; the input '{names[0]}' decides which: load the model with "
        f"constants={{'{names[0]}': ...}} if it never changes"
    )


_FUNCTIONS = (
    *(
        "Abs",
        "Celu",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "Log",
        "Max",
        "Min",
    ),
    *(
        "Mish",
        "Neg",
        "Pow",
        "PRelu",
        "Reciprocal",
        "Round",
        "Selu",
        "Sign",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
    ),
    *("Swish", "Tanh", "ThresholdedRelu"),
)

ROWS: Mapping[str, Row] = {
    "Conv": Row(Form.LAYER, _conv),
    "Gemm": Row(Form.LAYER, _gemm),
    "MatMul": Row(Form.LAYER, _tiny),
    "ConvTranspose": Row(None, _transposed_conv),
    "If": Row(None, _branching),
    "Add": Row(Form.INTEGER, since=7),
    "Mul": Row(Form.INTEGER, since=7),
    "AveragePool": Row(Form.INTEGER, _average_pool),
    "GlobalAveragePool": Row(Form.INTEGER),
    "Softmax": Row(Form.INTEGER, since=13),
    "Sigmoid": Row(Form.INTEGER, since=6),
    "LeakyRelu": Row(Form.INTEGER, since=6),
    "Concat": Row(Form.INTEGER, since=4),
    "MaxPool": Row(Form.MOVE, _windowed),
    "Reshape": Row(Form.MOVE, _reshape, since=5),
    "Flatten": Row(Form.MOVE),
    "Transpose": Row(Form.MOVE, _transpose),
    "Squeeze": Row(Form.MOVE, _operands("axes"), since=13),
    "Unsqueeze": Row(Form.MOVE, _operands("axes"), since=13),
    "Slice": Row(Form.MOVE, _operands("bounds"), since=10),
    "Pad": Row(Form.MOVE, _pad, since=11),
    "Split": Row(Form.MOVE, _known(moves.parts), since=13),
    "Gather": Row(Form.MOVE, _known(moves.picks)),
    "Tile": Row(Form.MOVE, _known(moves.picks), since=6),
    "Expand": Row(Form.MOVE, _known(moves.picks)),
    "Resize": Row(Form.MOVE, _known(moves.picks), since=11),
    "DepthToSpace": Row(Form.MOVE, _known(moves.blocks)),
    "ReduceMax": Row(Form.MOVE, _known(moves.reduced), since=18),
    "Relu": Row(Form.CLAMP),
    "Clip": Row(Form.CLAMP, _operands("bounds"), since=11),
    **dict.fromkeys(_FUNCTIONS, Row(Form.FUNCTION)),
}
"""By op type. A Gather that picks rows of a large constant matrix (`graph.embeddings`) is a table instead."""
SEVERAL = ("Split",)
"""Moves with several outputs of codes."""

LAYERS = ("Conv", "Gemm", "MatMul")
ELEMENTWISE = frozenset({*_FUNCTIONS, "Add", "Mul", "Sigmoid", "LeakyRelu", "Relu", "Clip"})
"""Ops whose output element depends on the input elements at its place alone."""
FUSED = ops(Form.LAYER, Form.INTEGER) | {"ConvTranspose"}
"""Ops of which ONNX Runtime makes something integer between codes, wanted or not: a kernel, or at least the weights."""
