"""Layers with weights, products of two activations, and pools, as TensorFlow Lite's operators read them.

    acc = b + sum w (q - z_x),    y = requantize(acc, s_x s_w / s_y) + z_y

Images and filters have their channels last. Padding that TensorFlow Lite has no name for becomes a PAD before the
layer, with the zero point (a mean, a convolution) or the smallest code (a maximum). In float, where an input has no
codes, the same operators read floats: weights that are codes are dequantized, once, by LiteRT.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.deploy.layout.views import View, channels_last, in_order
from eightbit.deploy.layout.windows import Windows
from eightbit.deploy.tflite.build import Builder
from eightbit.deploy.tflite.net import Quantization
from eightbit.errors import ExportError
from eightbit.integer import program as p

SAME, VALID = 0, 1
"""Of the schema's enumeration Padding."""
LOWEST = -128
"""Of the codes."""


def conv(op: p.Conv, b: Builder) -> None:
    """Convolution; DEPTHWISE_CONV_2D where every channel has filters of its own."""
    x = b.read(op.inputs[0], channels_last(op.weight.ndim))
    y = b.make(op.outputs[0], x.order)
    windows = Windows.of(x, y, op.weight.shape[2:], op.strides, op.pads, op.dilations)
    channels, inputs = op.weight.shape[0], x.shape[1]
    kernel = np.moveaxis(op.weight, 1, -1).reshape(channels, *windows.kernel, op.weight.shape[1])
    image, padding = _padded(op.name, b, x, windows, _zero(b, op.inputs[0]))
    shape = (windows.batch, *windows.out_size, channels)
    options = _strides(windows) | {"padding": padding}
    options |= {"dilationHFactor": windows.dilations[0], "dilationWFactor": windows.dilations[1]}
    if op.group == inputs and op.group > 1:
        taps = np.moveaxis(kernel[..., 0], 0, -1)[np.newaxis]
        operands = _weights(op, b, taps, axis=3)
        options["depthMultiplier"] = channels // inputs
        b.add_as("DEPTHWISE_CONV_2D", (image, *operands), y.buffer, shape, **options)
        return
    operands = _weights(op, b, kernel, axis=0)
    b.add_as("CONV_2D", (image, *operands), y.buffer, shape, **options)


def gemm(op: p.Gemm, b: Builder) -> None:
    """A product with a constant matrix; its rows follow the order in which an image lies that was flattened before."""
    name, last = op.inputs[0], len(b.shapes[op.inputs[0]]) - 1
    found = b.read(name)
    x = b.read(name, (*(axis for axis in found.order if axis != last), last))
    y = b.make(op.outputs[0], x.order)
    matrix = op.weight if name not in b.columns else op.weight[b.columns[name]]
    operands = _weights(op, b, np.ascontiguousarray(matrix.T), axis=0)
    b.add("FULLY_CONNECTED", (b.laid(x), *operands), y.buffer, keepNumDims=last > 1)


def gemm_to_float(op: p.GemmToFloat, b: Builder) -> None:
    """The product in float: no operator gives out accumulators."""
    x = f"{op.inputs[0]}.real"
    b.views[x] = b.dequantized(b.read(op.inputs[0]))
    b.shapes[x] = b.views[x].shape
    bias = op.bias * (b.coded(op.inputs[0]).scale * op.weight_scale)
    gemm(p.Gemm(op.name, (x,), op.outputs, op.weight, bias.astype(np.float32), op.weight_scale), b)


def _weights(op: p.Conv | p.Gemm, b: Builder, weight: NDArray[Any], *, axis: int) -> tuple[str, str]:
    """The names of weights and bias, with a scale for each output channel; or both in float."""
    scale, info = op.weight_scale, b.info(op.inputs[0])
    name = f"{op.name}.weight"
    coded = weight.dtype != np.float32
    weights = b.constant(weight, Quantization(scale, axis=axis) if coded else None, name)
    if info is None:
        if coded:
            weights = b.dequantized(View(weights, weight.shape, in_order(weight.ndim))).buffer
        return weights, b.constant(op.bias)
    return weights, b.constant(op.bias, Quantization(info.scale * scale), f"{op.name}.bias")


def _zero(b: Builder, name: str) -> int:
    """What stands for 0 in a tensor."""
    info = b.info(name)
    return 0 if info is None else info.zero_point


def matmul(op: p.MatMul | p.MatMulToFloat, b: Builder) -> None:
    """A product of two activations, in float where no codes come out."""
    left, right = (b.read(name, in_order(len(b.shapes[name]))) for name in op.inputs)
    if b.info(op.outputs[0]) is None:
        left, right = (
            view if b.info(name) is None else b.dequantized(view)
            for name, view in zip(op.inputs, (left, right), strict=True)
        )
    if min(len(left.shape), len(right.shape)) < 2:
        raise ExportError(
            f"{op.name}: shapes {left.shape}, {right.shape}; TensorFlow Lite multiplies matrices: add an axis of 1"
        )
    rank = max(len(left.shape), len(right.shape))
    y = b.make(op.outputs[0], in_order(rank))
    b.add("BATCH_MATMUL", tuple(b.laid(raised(view, rank)) for view in (left, right)), y.buffer)


def raised(view: View, rank: int) -> View:
    """The view with axes of length 1 before its own."""
    room = rank - len(view.shape)
    return View(view.buffer, (1,) * room + view.shape, (*range(room), *(room + a for a in view.order)))


def pool(op: p.MaxPool | p.AveragePool, b: Builder) -> None:
    """The largest or the mean of each window."""
    average = isinstance(op, p.AveragePool)
    dilations = (1,) * len(op.kernel) if isinstance(op, p.AveragePool) else op.dilations
    if any(d != 1 for d in dilations):
        raise ExportError(
            f"{op.name}: its windows have gaps (dilations {dilations}), TensorFlow Lite's pools have none: use strides"
        )
    x = b.read(op.inputs[0], channels_last(len(b.shapes[op.inputs[0]])))
    y = b.make(op.outputs[0], x.order)
    windows = Windows.of(x, y, op.kernel, op.strides, op.pads, dilations)
    if isinstance(op, p.AveragePool) and not op.count_include_pad:
        if windows.some_outside() or _padding(windows) is None:
            raise ExportError(
                f"{op.name}: a mean that leaves out padding {op.pads}, where TensorFlow Lite has none, or that of SAME:"
                " count the padding (count_include_pad), or pad with an operation before it"
            )
        image, padding = b.laid(_as_image(x, windows)), _padding(windows)
    else:
        floats = b.info(op.inputs[0]) is None
        fill = _zero(b, op.inputs[0]) if average else float(np.finfo(np.float32).min) if floats else LOWEST
        image, padding = _padded(op.name, b, x, windows, fill, counts=average)
    options = _strides(windows) | {"padding": padding}
    options |= {"filterHeight": windows.kernel[0], "filterWidth": windows.kernel[1]}
    kind, shape = (
        "AVERAGE_POOL_2D" if average else "MAX_POOL_2D",
        (windows.batch, *windows.out_size, x.shape[1]),
    )
    if _same(b.info(op.inputs[0]), b.info(op.outputs[0])):
        b.add_as(kind, (image,), y.buffer, shape, **options)
        return
    made = b.like(f"{op.name}.mean", y.laid, x.buffer)  # codes of the input's scale
    b.add_as(kind, (image,), made, shape, **options)
    b.add("QUANTIZE", (made,), y.buffer)


def _same(x: p.TensorInfo | None, y: p.TensorInfo | None) -> bool:
    """Whether one number has the same codes in both; floats are their own."""
    return x is y is None or (x is not None and y is not None and x.params == y.params)


def mean(op: p.GlobalAveragePool, b: Builder) -> None:
    """The mean of each channel, over the two axes of an image."""
    x = b.read(op.inputs[0], channels_last(len(b.shapes[op.inputs[0]])))
    y = b.make(op.outputs[0], x.order)
    (batch, channels), space = x.shape[:2], x.shape[2:]
    flat = (batch, int(np.prod(space[:-1])), space[-1], channels)
    operands = b.laid(View(x.buffer, flat, in_order(4))), b.constant(np.array([1, 2], np.int32))
    b.add_as("MEAN", operands, y.buffer, (batch, 1, 1, channels), keepDims=True)


def _strides(windows: Windows) -> dict[str, Any]:
    return {"strideH": windows.strides[0], "strideW": windows.strides[1]}


def _padding(windows: Windows) -> int | None:
    """SAME or VALID if one of them reaches the same windows, else None."""
    if all(begin == 0 and reached <= n for begin, reached, n in _reach(windows)):
        return VALID
    for i, (begin, reached, n) in enumerate(_reach(windows)):
        stride, count = windows.strides[i], windows.out_size[i]
        total = max(reached + begin - n, 0)  # what these windows lack, before and after
        if count != -(-n // stride) or begin != total // 2:
            return None
    return SAME


def _reach(windows: Windows) -> list[tuple[int, int, int]]:
    """Of each axis: padding before the image, where the last window ends, the image's length."""
    return [
        (begin, (count - 1) * s + (k - 1) * d + 1 - begin, n)
        for begin, count, s, k, d, n in zip(
            windows.begin,
            windows.out_size,
            windows.strides,
            windows.kernel,
            windows.dilations,
            windows.in_size,
            strict=True,
        )
    ]


def _padded(
    name: str, b: Builder, x: View, windows: Windows, value: float, *, counts: bool = False
) -> tuple[str, int]:
    """The tensor to read windows from, and their padding; with `counts` it is part of a mean, and must be there."""
    image = _as_image(x, windows)
    padding = _padding(windows)
    if padding == VALID or (padding == SAME and not counts):
        return b.laid(image), padding
    ends = [(begin, max(0, reached - n)) for begin, reached, n in _reach(windows)]
    pads = np.array([(0, 0), *ends, (0, 0)], np.int32)
    shape = tuple(n + int(before + after) for n, (before, after) in zip(image.laid, pads, strict=True))
    made = b.like(f"{name}.padded", shape, x.buffer)
    b.pad(b.laid(image), pads, value, made)
    return made, VALID


def _as_image(x: View, windows: Windows) -> View:
    """A view of (N, C, H, W) with its channels last; a single axis is the width of an image one pixel high."""
    if len(x.shape) == 4:
        return x
    return View(x.buffer, (x.shape[0], x.shape[1], *windows.in_size), channels_last(4))
