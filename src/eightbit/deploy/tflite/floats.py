"""Nodes of float islands as TensorFlow Lite's float operators: functions, comparisons, reductions, norms, resizing.

Each tensor lies as its node's inputs do: an image whose channels are last keeps them there. One table, `FLOATS`, says
what is written and which nodes of an op are not; lint reads it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from eightbit.deploy.layout.views import View, channels_last, in_order
from eightbit.deploy.tflite import movement
from eightbit.deploy.tflite.build import FLOAT, Builder
from eightbit.deploy.tflite.islands import FloatNode, Floats
from eightbit.deploy.tflite.layers import VALID, raised
from eightbit.graph.model import attribute, constant, dims, input_at, ints
from eightbit.graph.names import Names
from eightbit.graph.windows import window
from eightbit.integer import program as p
from eightbit.integer.lower import rules

Write = Callable[[FloatNode, Builder], None]


@dataclass(frozen=True)
class Row:
    """How an op is written, and why one node of it is not."""

    write: Write
    refusal: Callable[[ir.Node], str | None] = lambda node: None


def no_builtin(node: ir.Node) -> str | None:
    """Why a node has no float operator; None if it has."""
    row = FLOATS.get(node.op_type)
    return f"it is {node.op_type}" if row is None else row.refusal(node)


def float_node(op: FloatNode, b: Builder) -> None:
    """A node that is no operation of codes."""
    FLOATS[op.node.op_type].write(op, b)


def broadcast(kind: str, views: Sequence[View], output: str, b: Builder, **options: object) -> View:
    """An operator on tensors that broadcast; its output, a tensor of the program, lies as the first of its shape."""
    shape = b.shapes[output]
    full = next((v for v in views if v.shape == shape), None)
    y = b.make(output, in_order(len(shape)) if full is None else full.order)
    operands = [b.laid(b.reordered(raised(view, len(shape)), y.order)) for view in views]
    b.add(kind, operands, y.buffer, **options)
    return y


def _between(kind: str, views: Sequence[View], name: str, b: Builder, **options: object) -> View:
    """The same for an output that the program knows nothing of; the first operand has its shape."""
    b.shapes[name] = views[0].shape
    return broadcast(kind, views, name, b, **options)


def _scalar(number: float, b: Builder) -> View:
    return View(b.constant(np.array(number, np.float32)), (), ())


def function(kind: str, **options: str) -> Write:
    """An operator on one tensor, or on several that broadcast; `options` are taken from the node's attributes."""

    def write(op: FloatNode, b: Builder) -> None:
        given = {name: attribute(op.node, attr, 0.01) for name, attr in options.items()}
        broadcast(kind, [b.views[name] for name in op.inputs], op.outputs[0], b, **given)

    return write


def gelu(op: FloatNode, b: Builder) -> None:
    """GELU, by tanh where the node says so."""
    tanh = attribute(op.node, "approximate", "none") == "tanh"
    broadcast("GELU", [b.views[op.inputs[0]]], op.outputs[0], b, approximate=tanh)


def clip(op: FloatNode, b: Builder) -> None:
    """RELU6 where it is that, else MAXIMUM and MINIMUM."""
    x = b.views[op.inputs[0]]
    lo, hi = (constant(input_at(op.node, i)) for i in (1, 2))
    if lo is not None and hi is not None and (float(lo), float(hi)) == (0, 6):
        broadcast("RELU6", [x], op.outputs[0], b)
        return
    bounds = [
        (kind, _scalar(float(bound), b))
        for kind, bound in (("MAXIMUM", lo), ("MINIMUM", hi))
        if bound is not None
    ]
    for i, (kind, bound) in enumerate(bounds):
        last = i == len(bounds) - 1
        x = (
            broadcast(kind, [x, bound], op.outputs[0], b)
            if last
            else _between(kind, [x, bound], f"{op.name}.low", b)
        )
    if not bounds:
        b.views[op.outputs[0]] = x


def hard_sigmoid(op: FloatNode, b: Builder) -> None:
    """max(0, min(1, alpha x + beta))."""
    alpha, beta = (float(attribute(op.node, *pair)) for pair in (("alpha", 0.2), ("beta", 0.5)))
    x = _between("MUL", [b.views[op.inputs[0]], _scalar(alpha, b)], f"{op.name}.scaled", b)
    x = _between("ADD", [x, _scalar(beta, b)], f"{op.name}.moved", b)
    x = _between("MAXIMUM", [x, _scalar(0, b)], f"{op.name}.positive", b)
    broadcast("MINIMUM", [x, _scalar(1, b)], op.outputs[0], b)


def reciprocal(op: FloatNode, b: Builder) -> None:
    """1 / x."""
    broadcast("DIV", [_scalar(1, b), b.views[op.inputs[0]]], op.outputs[0], b)


def same(op: FloatNode, b: Builder) -> None:
    """Nothing: another name."""
    b.views[op.outputs[0]] = b.views[op.inputs[0]]


def cast(op: FloatNode, b: Builder) -> None:
    """Numbers of one type as those of another."""
    x = b.views[op.inputs[0]]
    if b.dtype(op.outputs[0]) == b.tensors[x.buffer].dtype:
        same(op, b)
    else:
        b.add("CAST", (b.laid(x),), b.make(op.outputs[0], x.order).buffer)


def reduce(kind: str) -> Write:
    """An operator over some axes."""

    def write(op: FloatNode, b: Builder) -> None:
        _reduced(kind, b.views[op.inputs[0]], op, b)

    return write


def _reduced(kind: str, x: View, op: FloatNode, b: Builder, name: str = "") -> View:
    """`kind` over the node's axes; into its output, or with the axes kept, into a tensor called `name`."""
    axes = _axes(op.node, len(x.shape))
    keep = bool(name) or bool(attribute(op.node, "keepdims", 1))
    left = [axis for axis in x.order if keep or axis not in axes]
    order = tuple(sorted(left).index(axis) for axis in left)
    if name:
        b.shapes[name] = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    y = b.make(name or op.outputs[0], order)
    places = np.array(sorted(x.order.index(axis) for axis in axes), np.int32)
    b.add(kind, (b.laid(x), b.constant(places)), y.buffer, keepDims=keep)
    return y


def _axes(node: ir.Node, rank: int) -> tuple[int, ...]:
    """Those that a node reduces: LayerNormalization from `axis` on, the others as they list them, or all."""
    if node.op_type == "LayerNormalization":
        return tuple(range(attribute(node, "axis", -1) % rank, rank))
    if node.op_type == "InstanceNormalization":
        return tuple(range(2, rank))
    given = constant(input_at(node, 1))
    listed = attribute(node, "axes", ()) if given is None else given.reshape(-1)
    if not len(listed) and not attribute(node, "noop_with_empty_axes", 0):
        return tuple(range(rank))
    return tuple(int(axis) % rank for axis in listed)


def _axes_known(node: ir.Node) -> str | None:
    given = input_at(node, 1)
    return None if given is None or constant(given) is not None else "its axes are not constant"


def length(op: FloatNode, b: Builder) -> None:
    """ReduceL2: the root of the sum of squares."""
    x = b.views[op.inputs[0]]
    squares = _between("MUL", [x, x], f"{op.name}.squares", b)
    total = f"{op.name}.sum"
    b.shapes[total] = b.shapes[op.outputs[0]]
    found = _reduced("SUM", squares, replace(op, outputs=(total,)), b)
    broadcast("SQRT", [found], op.outputs[0], b)


def norm(op: FloatNode, b: Builder) -> None:
    """(x - mean) / sqrt(var + epsilon) * scale + bias over the axes of a Layer- or InstanceNormalization."""
    x, node = b.views[op.inputs[0]], op.node
    average = _reduced("MEAN", x, op, b, f"{op.name}.mean")
    spread = _between("SQUARED_DIFFERENCE", [x, average], f"{op.name}.squares", b)
    variance = _reduced("MEAN", spread, op, b, f"{op.name}.variance")
    moved = _between("ADD", [variance, _scalar(attribute(node, "epsilon", 1e-5), b)], f"{op.name}.moved", b)
    root = _between("RSQRT", [moved], f"{op.name}.root", b)
    centred = _between("SUB", [x, average], f"{op.name}.centred", b)
    operands = [root, *(b.views[name] for name in op.inputs[1:] if name)]
    if node.op_type == "InstanceNormalization":  # one scale and bias a channel
        room = (1,) * (len(x.shape) - 2)
        operands[1:] = [View(v.buffer, (*v.shape, *room), in_order(1 + len(room))) for v in operands[1:]]
    for i, operand in enumerate(operands):
        kind = "ADD" if i == 2 else "MUL"
        last = i == len(operands) - 1
        target = op.outputs[0] if last else f"{op.name}.{kind.lower()}{i}"
        centred = (broadcast if last else _between)(kind, [centred, operand], target, b)


def _one_output(node: ir.Node) -> str | None:
    used = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    return "its second output is used" if used else None


def gather(op: FloatNode, b: Builder) -> None:
    """Rows along an axis, by their numbers."""
    x, places = (b.views[name] for name in op.inputs)
    axis = attribute(op.node, "axis", 0) % len(x.shape)
    y = b.make(op.outputs[0], in_order(len(b.shapes[op.outputs[0]])))
    operands = b.laid(b.reordered(x, in_order(len(x.shape)))), _places(places, x.shape[axis], b)
    b.add("GATHER", operands, y.buffer, axis=axis, batchDims=0)


def gather_nd(op: FloatNode, b: Builder) -> None:
    """Elements, or parts, by the numbers of their places."""
    x, places = (b.views[name] for name in op.inputs)
    y = b.make(op.outputs[0], in_order(len(b.shapes[op.outputs[0]])))
    lengths = np.array(x.shape[: places.shape[-1]])
    b.add(
        "GATHER_ND", (b.laid(b.reordered(x, in_order(len(x.shape)))), _places(places, lengths, b)), y.buffer
    )


def _places(places: View, lengths: int | np.ndarray, b: Builder) -> str:
    """Numbers of places; constant ones below zero count from the end, which TensorFlow Lite's do not."""
    data = b.tensors[places.buffer].data
    if data is None:
        return b.laid(b.reordered(places, in_order(len(places.shape))))
    numbers = data.astype(np.int32)
    return b.constant(np.where(numbers < 0, numbers + lengths, numbers).astype(np.int32))


def _batches(node: ir.Node) -> str | None:
    return "it has batch_dims" if attribute(node, "batch_dims", 0) else None


def pad(op: FloatNode, b: Builder) -> None:
    """More numbers around, of any value; codes have only zero."""
    made = rules.pad(op.node, Floats(Names(), Names()))
    value = constant(input_at(op.node, 2))
    assert (
        not isinstance(made, str) and isinstance(made[0], p.Pad) and value is not None
    )  # or it were not refused
    movement.pad(made[0], b, float(value.item()))


def _pads_known(node: ir.Node) -> str | None:
    given = [value for value in node.inputs[1:] if value is not None]
    return None if all(constant(value) is not None for value in given) else "its pads are not constant"


def total(op: FloatNode, b: Builder) -> None:
    """The sum of one or two."""
    views = [b.views[name] for name in op.inputs]
    b.views[op.outputs[0]] = views[0] if len(views) == 1 else broadcast("ADD", views, op.outputs[0], b)


def expand(op: FloatNode, b: Builder) -> None:
    """BROADCAST_TO a shape that is known by now."""
    shape = b.shapes[op.outputs[0]]
    x = raised(b.views[op.inputs[0]], len(shape))
    y = b.make(op.outputs[0], x.order)
    b.add("BROADCAST_TO", (b.laid(x), b.constant(np.array(y.laid, np.int32))), y.buffer)


def resize(op: FloatNode, b: Builder) -> None:
    """An image larger or smaller, by its neighbours or between them."""
    x = b.read(op.inputs[0], channels_last(4))
    y = b.make(op.outputs[0], x.order)
    how = _sampling(op.node)
    kind = (
        "RESIZE_BILINEAR" if attribute(op.node, "mode", "nearest") == "linear" else "RESIZE_NEAREST_NEIGHBOR"
    )
    size = b.constant(np.array(y.shape[2:], np.int32))
    options = {"alignCorners": how == "align_corners", "halfPixelCenters": how in HALF_PIXEL}
    b.add(kind, (b.laid(x), size), y.buffer, **options)


HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")


def _sampling(node: ir.Node) -> str:
    return str(attribute(node, "coordinate_transformation_mode", "half_pixel"))


def _resizable(node: ir.Node) -> str | None:
    """Images alone, lengths that the scales meet exactly; neighbours where both round alike."""
    x, y = (
        None if v is None or v.shape is None else v.shape.numpy() for v in (node.inputs[0], node.outputs[0])
    )
    mode, how = str(attribute(node, "mode", "nearest")), _sampling(node)
    if x is None or y is None or len(x) != 4 or tuple(x[:2]) != tuple(y[:2]) or input_at(node, 1) is not None:
        return "it resizes other axes than an image's two"
    scales = constant(input_at(node, 2))
    axes = ints(node, "axes") or tuple(range(4))
    if (
        scales is not None
        and scales.size
        and any(x[a] * s != y[a] for a, s in zip(axes, scales, strict=True))
    ):
        return f"its scales {scales.tolist()} meet no whole lengths"
    others = ("antialias", 0), ("exclude_outside", 0), ("keep_aspect_ratio_policy", "stretch")
    if any(attribute(node, name, usual) != usual for name, usual in others):
        return "it resizes with " + ", ".join(
            name for name, usual in others if attribute(node, name, usual) != usual
        )
    whole = all(big % small == 0 for big, small in zip(y[2:], x[2:], strict=True))
    nearest = str(attribute(node, "nearest_mode", "round_prefer_floor"))
    alike = (mode == "linear" and how in (*HALF_PIXEL, "asymmetric", "align_corners")) or (
        mode == "nearest"
        and (
            (how, nearest) == ("asymmetric", "floor")
            or (how in HALF_PIXEL and whole and nearest[:5] == "round")
        )
    )
    return None if alike else f"it resizes in mode {mode}, {how}, {nearest}"


def transposed_conv(op: FloatNode, b: Builder) -> None:
    """TRANSPOSE_CONV of every place that a window reaches, cut to what the node's pads leave."""
    x, y = b.read(op.inputs[0], channels_last(4)), b.make(op.outputs[0], channels_last(4))
    filters = b.tensors[b.views[op.inputs[1]].buffer].data
    way = window(op.node, b.views[op.inputs[1]].shape[2:])
    assert filters is not None and way is not None and way.pads is not None  # or it were not refused
    reach = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], way.strides, way.kernel, strict=True)]
    laid = (x.shape[0], *reach, y.shape[1])
    full = View(b.of_type(f"{op.name}.full", laid, FLOAT), (laid[0], laid[3], *reach), channels_last(4))
    operands = [b.constant(np.array(laid, np.int32)), b.constant(filters.transpose(1, 2, 3, 0)), b.laid(x)]
    operands += [b.views[name].buffer for name in op.inputs[2:] if name]
    strides = {"strideH": way.strides[0], "strideW": way.strides[1]}
    b.add("TRANSPOSE_CONV", operands, full.buffer, padding=VALID, **strides)
    kept = [slice(begin, begin + n) for begin, n in zip(way.pads, y.shape[2:], strict=False)]
    movement.strided(b, full, [slice(None), slice(None), *kept], y.buffer)


def _transposable(node: ir.Node) -> str | None:
    """Two axes, one group, no gaps, a constant weight, and no output beyond the last window."""
    weight, shape = constant(input_at(node, 1)), dims(node.outputs[0])
    way = None if weight is None else window(node, weight.shape[2:])
    if weight is None or weight.ndim != 4 or way is None or way.pads is None or shape is None:
        return "its weight or its padding is not constant, or it has other axes than an image's two"
    if way.groups != 1 or any(d != 1 for d in way.dilations):
        return "it has groups or gaps"
    beyond = zip(ints(node, "output_padding") or (0, 0), way.pads[2:], strict=True)
    return "its output is padded" if any(more > pad for more, pad in beyond) else None


def split(op: FloatNode, b: Builder) -> None:
    """Part after part along an axis."""
    x = b.views[op.inputs[0]]
    axis, start = attribute(op.node, "axis", 0) % len(x.shape), 0
    for name in op.outputs:
        stop = start + b.shapes[name][axis]
        slices = [slice(start, stop) if i == axis else slice(None) for i in range(len(x.shape))]
        movement.strided(b, x, slices, b.make(name, x.order).buffer)
        start = stop


FUNCTIONS = {
    "Relu": "RELU",
    "Sigmoid": "LOGISTIC",
    "Tanh": "TANH",
    "HardSwish": "HARD_SWISH",
    "Exp": "EXP",
    "Log": "LOG",
    "Sqrt": "SQRT",
    "Abs": "ABS",
    "Neg": "NEG",
    "Floor": "FLOOR",
    "Ceil": "CEIL",
    "Round": "ROUND",
    "Sin": "SIN",
    "Cos": "COS",
    "Sub": "SUB",
    "Div": "DIV",
    "Pow": "POW",
    "PRelu": "PRELU",
    "Where": "SELECT_V2",
    "And": "LOGICAL_AND",
    "Or": "LOGICAL_OR",
    "Not": "LOGICAL_NOT",
    "Equal": "EQUAL",
    "Less": "LESS",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
    "LessOrEqual": "LESS_EQUAL",
}
"""Operators that read what the nodes read, and have no options."""
REDUCTIONS = {
    "ReduceMean": "MEAN",
    "ReduceSum": "SUM",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
}


def _two(node: ir.Node) -> str | None:
    return None if len(node.inputs) <= 2 else f"it reads {len(node.inputs)} tensors"


def _elu(node: ir.Node) -> str | None:
    alpha = attribute(node, "alpha", 1.0)
    return None if alpha == 1 else f"it is Elu with alpha {alpha}"


def _bounds_known(node: ir.Node) -> str | None:
    bounds = [input_at(node, i) for i in (1, 2)]
    return (
        "its bounds are not constant" if any(v is not None and constant(v) is None for v in bounds) else None
    )


FLOATS: Mapping[str, Row] = {
    **{op: Row(function(kind)) for op, kind in FUNCTIONS.items()},
    **{op: Row(reduce(kind), _axes_known) for op, kind in REDUCTIONS.items()},
    "Max": Row(function("MAXIMUM"), _two),
    "Min": Row(function("MINIMUM"), _two),
    "Elu": Row(function("ELU"), _elu),
    "LeakyRelu": Row(function("LEAKY_RELU", alpha="alpha")),
    "Gelu": Row(gelu),
    "Clip": Row(clip, _bounds_known),
    "HardSigmoid": Row(hard_sigmoid),
    "Reciprocal": Row(reciprocal),
    "Identity": Row(same),
    "Cast": Row(cast),
    "ReduceL2": Row(length, _axes_known),
    "LayerNormalization": Row(norm, _one_output),
    "InstanceNormalization": Row(norm),
    "Gather": Row(gather),
    "GatherND": Row(gather_nd, _batches),
    "Expand": Row(expand),
    "Resize": Row(resize, _resizable),
    "ConvTranspose": Row(transposed_conv, _transposable),
    "Pad": Row(pad, _pads_known),
    "Split": Row(split),
    "Sum": Row(total, _two),
}
"""By op type; those that codes have, too, are not here (`islands.SHARED`)."""
