"""What a node's attributes and constant operands must be like, looked up before anything computes with them.

ONNX's checker asks whether attributes and inputs are there, and of which type; it does not ask for their lengths,
shapes and values. ONNX Runtime finds some faults when it makes a session, some when it runs, and some end the process:
a scale without an element, for one. So each node of a stranger's graph is held against the rules of its operator here,
as far as its operands are constant and the shapes of the others are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.errors import LoadError
from eightbit.graph.model import attribute, constant, dims, input_at, ints, is_op

Array = NDArray[np.generic]
Faults = Iterator[str]
"""What is wrong with a node, a phrase each."""
FOLDED = ("Conv", "MatMul", "Gemm")
"""Layers that take up a BatchNormalization behind them in ONNX Runtime, whatever its mode."""


def check_operands(model: ir.Model) -> None:
    """Raise LoadError, naming the node, for an attribute or a constant operand that its operator cannot have."""
    for graph in model.graphs():
        for node in graph:
            rule = RULES.get(node.op_type) if is_op(node, node.op_type) else None
            fault = None if rule is None else next(rule(node), None)
            if fault is not None:
                raise LoadError(
                    f"node '{node.name}' ({node.op_type}): {fault}; export or quantize the model again"
                )


def _conv(node: ir.Node) -> Faults:
    yield from _layer(node, 1, 2)


def _conv_integer(node: ir.Node) -> Faults:
    yield from _layer(node, 1, None)


def _qlinear_conv(node: ir.Node) -> Faults:
    yield from _layer(node, 3, 8)
    yield from _qlinear(node)


def _layer(node: ir.Node, weight: int, bias: int | None) -> Faults:
    """A convolution, transposed or not: its windows and groups, and the inputs `weight` and `bias`."""
    shape, transposed = dims(input_at(node, weight)), is_op(node, "ConvTranspose")
    group = attribute(node, "group", 1)
    if group < 1:
        yield f"group is {group}"
        return
    if shape is None:
        return
    if len(shape) < 3:
        yield f"its weight has shape {shape}; a convolution needs at least three axes"
        return
    yield from _windows(node, len(shape) - 2)
    kernel = ints(node, "kernel_shape")
    if kernel is not None and None not in shape and kernel != shape[2:]:
        yield f"kernel_shape {kernel} does not fit its weight of shape {shape}"
    if shape[0] is not None and shape[0] % group:
        yield f"{shape[0]} rows of its weight do not divide into {group} groups"
    narrow, wide = shape[0], None if shape[1] is None else shape[1] * group
    read, made = (narrow, wide) if transposed else (wide, narrow)
    if None not in (read, _channels(node)) and read != _channels(node):
        yield f"its weight of shape {shape} does not fit an input of {_channels(node)} channels"
    found = None if bias is None else dims(input_at(node, bias))
    if found is not None and None not in (*found, made) and found != (made,):
        yield f"its bias has shape {found}; it makes {made} channels"


def _channels(node: ir.Node) -> int | None:
    shape = dims(node.inputs[0])
    return shape[1] if shape is not None and len(shape) > 1 else None


def _pool(node: ir.Node) -> Faults:
    yield from _windows(node, len(ints(node, "kernel_shape") or ()))


def _windows(node: ir.Node, axes: int) -> Faults:
    """Attributes over the spatial axes of an input, `axes` of them."""
    yield from _word(node, "auto_pad", ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"))
    shape = dims(node.inputs[0])
    if shape is not None and len(shape) != axes + 2:
        yield f"its input has {len(shape)} axes, its windows {axes} and not {len(shape) - 2}"
    for name, length, least in (
        ("kernel_shape", axes, 1),
        ("strides", axes, 1),
        ("dilations", axes, 1),
        ("pads", 2 * axes, 0),
        ("output_padding", axes, 0),
    ):
        values = ints(node, name)
        if values is not None and len(values) != length:
            yield f"{name} {values} has length {len(values)}, not {length}"
        elif values is not None and not all(least <= v < LONGEST for v in values):
            yield f"{name} {values} has a value below {least} or beyond {LONGEST:,}"


LONGEST = 2**31
"""Lengths, strides and pads beyond it overflow in ONNX Runtime."""


def _batchnorm(node: ir.Node) -> Faults:
    shapes = [dims(value) for value in node.inputs[1:5]]
    known = {shape for shape in shapes if shape is not None and None not in shape}
    wanted = {(_channels(node),)} if _channels(node) is not None else set()
    if len(known | wanted) > 1 or any(len(shape) != 1 for shape in known):
        yield f"its parameters have shapes {', '.join(map(str, shapes))}; one number a channel is needed"
    maker = None if node.inputs[0] is None else node.inputs[0].producer()
    if attribute(node, "training_mode", 0) and maker is not None and is_op(maker, *FOLDED):
        yield (
            "it is in training mode, where it takes the mean of the batch at hand, and ONNX Runtime folds it into the "
            f"{maker.op_type} before it as if it were not; put the model in eval mode"
        )


def _gemm(node: ir.Node) -> Faults:
    a, b, c = (dims(input_at(node, i)) for i in (0, 1, 2))
    for name, shape in (("A", a), ("B", b)):
        if shape is not None and len(shape) != 2:
            yield f"its input {name} has shape {shape}, and is no matrix"
            return
    turned = bool(attribute(node, "transA", 0)), bool(attribute(node, "transB", 0))
    depths = (a[0 if turned[0] else 1] if a else None, b[1 if turned[1] else 0] if b else None)
    if None not in depths and depths[0] != depths[1]:
        yield f"it multiplies {a} by {b}, whose lengths {depths[0]} and {depths[1]} do not fit"
    out = b[0 if turned[1] else 1] if b else None
    if c is not None and out is not None and (len(c) > 2 or (c and c[-1] not in (1, out, None))):
        yield f"its input C has shape {c}; there are {out} outputs"


def _batched(node: ir.Node) -> Faults:
    for value in node.inputs[:2]:
        if dims(value) == ():
            yield "it multiplies a scalar; a product of matrices needs at least one axis"


def _pad(node: ir.Node) -> Faults:
    shape, pads = dims(node.inputs[0]), constant(input_at(node, 1))
    axes = constant(input_at(node, 3))
    if axes is not None:
        yield from _axes(node, axes)
    count = axes.size if axes is not None else None if shape is None else len(shape)
    if pads is not None and (
        pads.ndim != 1 or pads.size % 2 or (count is not None and pads.size != 2 * count)
    ):
        yield f"its pads have shape {pads.shape}; two for each axis are needed"
    yield from _word(node, "mode", ("constant", "edge", "reflect", "wrap"))
    yield from _single(node, 2, "padding value")


def _slice(node: ir.Node) -> Faults:
    given = [constant(value) for value in node.inputs[1:5]]
    sizes = {array.size for array in given if array is not None}
    if len(sizes) > 1 or any(array is not None and array.ndim != 1 for array in given):
        yield f"its starts, ends, axes and steps have shapes {', '.join(str(a.shape) for a in given if a is not None)}"
    if len(given) > 2 and given[2] is not None:
        yield from _axes(node, given[2])
    if len(given) > 3 and given[3] is not None and not given[3].all():
        yield "it has a step of 0"


def _moved(node: ir.Node) -> Faults:
    """Squeeze: its axes are those of the input."""
    axes = constant(input_at(node, 1))
    if axes is not None:
        yield from _axes(node, axes)


def _unsqueeze(node: ir.Node) -> Faults:
    axes, shape = constant(input_at(node, 1)), dims(node.inputs[0])
    if axes is not None:
        yield from _axes(node, axes, None if shape is None else len(shape) + axes.size)


def _reshape(node: ir.Node) -> Faults:
    target = constant(input_at(node, 1))
    if target is not None and (target.ndim != 1 or (target < -1).any() or np.count_nonzero(target == -1) > 1):
        yield f"its target is {target.tolist()}; lengths, and at most one -1, are needed"


def _transpose(node: ir.Node) -> Faults:
    perm, shape = ints(node, "perm"), dims(node.inputs[0])
    if perm is not None and (sorted(perm) != list(range(len(perm))) or (shape and len(shape) != len(perm))):
        yield f"perm {perm} does not reorder the axes of its input"


def _along(node: ir.Node) -> Faults:
    """Softmax, Gather, Concat and others: an attribute `axis` of the input."""
    axis = attribute(node, "axis")
    if axis is not None:
        yield from _axes(node, np.array([axis]))


def _flatten(node: ir.Node) -> Faults:
    axis, shape = attribute(node, "axis", 1), dims(node.inputs[0])
    if shape is not None and not -len(shape) <= axis <= len(shape):
        yield f"axis {axis} is none of its input of {len(shape)} axes"


def _clip(node: ir.Node) -> Faults:
    yield from _single(node, 1, "lower bound")
    yield from _single(node, 2, "upper bound")


def _word(node: ir.Node, name: str, known: tuple[str, ...]) -> Faults:
    word = attribute(node, name, known[0])
    if word not in known:
        yield f"{name} is {word!r}; ONNX knows {', '.join(known)}"


def _single(node: ir.Node, index: int, what: str) -> Faults:
    array = constant(input_at(node, index))
    if array is not None and array.size != 1:
        yield f"its {what} has shape {array.shape}; one number is needed"


def _axes(node: ir.Node, axes: Array, rank: int | None = None) -> Faults:
    shape = dims(node.inputs[0])
    count = rank if rank is not None else None if shape is None else len(shape)
    if count is not None and not all(-count <= int(axis) < count for axis in axes.reshape(-1)):
        yield f"axes {axes.reshape(-1).tolist()} are none of its input of {count} axes"


# --- codes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Parameters:
    """Constant scale and zero point of codes of shape `codes` along `axis`, in blocks or not.

    `dead` codes are constants: other quantizers give a channel of zeros the scale 0.
    """

    scale: Array | None
    zero: Array | None
    codes: tuple[int | None, ...] | None
    axis: int = 1
    block: int = 0
    dead: bool = False

    @classmethod
    def of(cls, node: ir.Node, scale: int, zero: int, codes: int = 0) -> _Parameters:
        axis, block = attribute(node, "axis", 1), attribute(node, "block_size", 0)
        found = constant(input_at(node, scale)), constant(input_at(node, zero))
        dead = constant(input_at(node, codes)) is not None
        return cls(*found, dims(input_at(node, codes)), axis, block, dead)


def _parameters(given: _Parameters) -> Faults:
    """Scales and zero points of one shape: a number, one for each place on an axis, or one for each block."""
    scale, zero, codes = given.scale, given.zero, given.codes
    if scale is None:
        return
    steps = scale.astype(np.float64)
    wrong = steps[~(np.isfinite(steps) & ((steps > 0) | (given.dead & (steps == 0))))]
    if wrong.size:
        yield f"its scale is {wrong.flat[0]}; it must be finite and above 0"
    if zero is not None and zero.shape != scale.shape:
        yield f"its zero point has shape {zero.shape}, its scale {scale.shape}"
    if scale.size == 0:
        yield f"its scale has shape {scale.shape}: no element"
        return
    if codes is not None and scale.size > 1 and not -len(codes) <= given.axis < len(codes):
        yield f"axis {given.axis} is none of its input of {len(codes)} axes"
    elif given.block:
        yield from _blocks(given, scale)
    elif scale.ndim > 1:
        yield f"its scale has shape {scale.shape}; a number, or one for each place on an axis, is needed"
    elif codes is not None and scale.size > 1 and codes[given.axis] not in (None, scale.size):
        yield f"it has {scale.size} scales for {codes[given.axis]} places on axis {given.axis}"


def _blocks(given: _Parameters, scale: Array) -> Faults:
    codes = given.codes
    if given.block < 0:
        yield f"block_size is {given.block}"
    elif codes is not None:
        wanted = [
            None if d is None else -(-d // given.block) if axis == given.axis % len(codes) else d
            for axis, d in enumerate(codes)
        ]
        if scale.ndim != len(codes) or any(
            w not in (None, s) for w, s in zip(wanted, scale.shape, strict=True)
        ):
            yield f"its scale has shape {scale.shape}; blocks of {given.block} of shape {codes} need {tuple(wanted)}"


def _quantize(node: ir.Node) -> Faults:
    yield from _parameters(_Parameters.of(node, 1, 2))


def _qlinear(node: ir.Node) -> Faults:
    """Two inputs and an output of codes, each with its scale and zero point."""
    for codes in (0, 3):
        yield from _parameters(replace(_Parameters.of(node, codes + 1, codes + 2, codes), codes=None))
    yield from _parameters(replace(_Parameters.of(node, 6, 7), codes=None, dead=False))


def _dequantize(node: ir.Node) -> Faults:
    yield from _parameters(_Parameters.of(node, 1, 2))
    codes, zero = constant(node.inputs[0]), constant(input_at(node, 2))
    if codes is not None and codes.dtype == np.int32 and zero is not None and zero.any():
        yield "its codes are int32, and its zero point is not 0"


def _matmul_integer(node: ir.Node) -> Faults:
    yield from _batched(node)
    shape, zero = dims(input_at(node, 1)), constant(input_at(node, 3))
    if zero is None or shape is None:
        return
    if zero.size != 1 and (zero.ndim == 0 or zero.shape[-1] != shape[-1]):
        yield f"its second zero point has shape {zero.shape}; its matrix has {shape[-1]} columns"


RULES: dict[str, Callable[[ir.Node], Faults]] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "ConvInteger": _conv_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "BatchNormalization": _batchnorm,
    "Gemm": _gemm,
    "MatMul": _batched,
    "MatMulInteger": _matmul_integer,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Pad": _pad,
    "Slice": _slice,
    "Squeeze": _moved,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Flatten": _flatten,
    "Clip": _clip,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Gather", "Concat", "LayerNormalization", "Split"), _along),
}
