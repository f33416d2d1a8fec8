"""Pooling on codes: the largest, the mean, the mean of a whole image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import INT8, UINT8, dequantize, quantize
from eightbit.arith.fixedpoint import (
    FIXED_POINT,
    Arithmetic,
    requantize_a,
    requantize_b,
)
from eightbit.arith.windows import by_axis, reached_pads, window_count
from eightbit.errors import EngineError
from eightbit.integer.engine.elementwise import UINT8_SHIFT
from eightbit.integer.engine.requantize import fixed_multiplier, requantize_codes
from eightbit.integer.engine.windows import pad_spatial, windows
from eightbit.integer.program import (
    AveragePool,
    Codes,
    GlobalAveragePool,
    MaxPool,
    Program,
    TensorInfo,
    canonical,
)


def max_pool(op: MaxPool, program: Program, arithmetic: Arithmetic) -> Callable[[Codes], Codes]:
    """A function from codes to the largest code of each window; same scale in and out."""
    lowest = program.tensors[op.inputs[0]].itype.qmin
    kernel, strides, _, dilations = _geometry(op)

    def apply(codes: Codes) -> Codes:
        image = _image(codes, op)
        size, grown = _over(image, op, dilations)
        padded = pad_spatial(image, grown, lowest) if any(grown) else image
        first, *rest = _taps(windows(padded, kernel, strides, dilations), kernel, size)
        out = first.copy()
        for tap in rest:
            np.maximum(out, tap, out=out)
        return out[:, :, 0] if codes.ndim == 3 else out

    return apply


def average_pool(op: AveragePool, program: Program, arithmetic: Arithmetic) -> Callable[[Codes], Codes]:
    """A function from codes to the rounded mean of each window, in the arithmetic asked for.

    TFLite's AVERAGE_POOL_2D gives codes of its input's scale; where the output has another, they are requantized.
    """
    x, y = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    kernel, strides, pads, dilations = _geometry(op)
    whole = global_mean(x, y, arithmetic)

    def apply(codes: Codes) -> Codes:
        image = _image(codes, op)
        if arithmetic is Arithmetic.ONNX and image.shape[2:] == kernel and not any(pads):
            out = whole(image)
            return out[:, :, 0] if codes.ndim == 3 else out
        size, grown = _over(image, op, dilations)
        inside = np.ones((1, 1, *image.shape[2:]), np.int32)
        count: NDArray[np.int32] | int
        if op.count_include_pad or not any(grown):
            count = prod(kernel)
        else:
            count = sum(
                _taps(windows(pad_spatial(inside, grown, 0), kernel, strides, dilations), kernel, size)
            )
        if arithmetic is Arithmetic.ONNX:
            out = _mean_b(pad_spatial(image, grown, x.zero_point), (kernel, strides, size), count, (x, y))
        else:
            padded = pad_spatial(image, grown, 0 if not op.count_include_pad else x.zero_point, np.int64)
            total = sum(_taps(windows(padded, kernel, strides, dilations), kernel, size))
            half = np.where(total > 0, count // 2, -(np.asarray(count) // 2))
            out = np.trunc((total + half) / count).astype(np.int8)  # C's integer division; exact in float64
            if x.params != y.params:
                out = requantize_codes(out, x, y, arithmetic)
        return out[:, :, 0] if codes.ndim == 3 else out

    return apply


def _mean_b(
    padded: Codes,
    geometry: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    count: NDArray[np.int32] | int,
    infos: tuple[TensorInfo, TensorInfo],
) -> Codes:
    """ONNX Runtime's QLinearAveragePool (qlinear_pool.cc): dequantize, sum row by row in float32, divide, RNE(y/s + z).

    Padding dequantizes to 0.0, which changes no sum. Codes of 16 bits have no such kernel there: they are dequantized,
    and the mean is quantized.
    """
    x, y = infos
    kernel, strides, size = geometry
    view = windows(dequantize(padded, x.params), kernel, strides, (1,) * len(kernel))
    total = np.zeros((*padded.shape[:2], *size), np.float32)
    for tap in _taps(view, kernel, size):  # row by row, as ONNX Runtime does: the sums are rounded
        total += tap
    mean = total / np.asarray(count, np.float32)
    if {x.itype, y.itype} != {INT8}:
        return quantize(mean, y.params)
    return canonical(requantize_b(mean / np.float32(y.scale), y.zero_point + UINT8_SHIFT, UINT8))


def global_average_pool(
    op: GlobalAveragePool, program: Program, arithmetic: Arithmetic
) -> Callable[[Codes], Codes]:
    """A function from codes (N, C, ...) to the mean of each channel, (N, C, 1, ...)."""
    return global_mean(program.tensors[op.inputs[0]], program.tensors[op.outputs[0]], arithmetic)


def global_mean(x: TensorInfo, y: TensorInfo, arithmetic: Arithmetic) -> Callable[[Codes], Codes]:
    """The mean of each channel, from acc = sum(q) - count * z_x.

    ONNX Runtime (qlgavgpool.cpp): family A with the multiplier s_x / (s_y * count), in float32.
    TFLite's Mean (reference_ops/reduce.h, QuantizedMeanOrSum): the multiplier of s_x / s_y divided by the count.
    """

    def apply(codes: Codes) -> Codes:
        axes = tuple(range(2, codes.ndim))
        count = int(np.prod(codes.shape[2:]))
        acc = codes.sum(axes, dtype=np.int64, keepdims=True) - count * x.zero_point
        out = np.empty(acc.shape, y.itype.dtype)
        if arithmetic is Arithmetic.ONNX:
            multiplier = np.float32(x.scale) / (np.float32(y.scale) * np.float32(count))
            return requantize_a(acc, multiplier, y.zero_point, y.itype, out=out)
        out[...] = FIXED_POINT[arithmetic](acc.astype(np.int32), *fixed_mean(x, y, count), y.zero_point, INT8)
        return out

    return apply


def fixed_mean(x: TensorInfo, y: TensorInfo, count: int) -> tuple[int, int]:
    """Multiplier and shift of a mean of `count` codes in families C and D."""
    m, shift = (int(v) for v in fixed_multiplier(x.scale, np.float32(1), y.scale))
    room = min(count.bit_length() - 1, 32, 31 + shift)
    return (m << room) // count, shift - room


def _image(codes: Codes, op: MaxPool | AveragePool) -> Codes:
    if codes.ndim != len(op.kernel) + 2:
        raise EngineError(
            f"{op.name}: input {op.inputs[0]!r} has shape {codes.shape}; expected {len(op.kernel) + 2} axes"
        )
    return codes[:, :, None] if codes.ndim == 3 else codes


def _geometry(
    op: MaxPool | AveragePool,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Kernel, strides, pads and dilations over two axes or more; a single axis gets one of length 1 before it."""
    dilations = op.dilations if isinstance(op, MaxPool) else (1,) * len(op.kernel)
    if len(op.kernel) == 1:
        return (1, *op.kernel), (1, *op.strides), (0, op.pads[0], 0, op.pads[1]), (1, *dilations)
    return op.kernel, op.strides, op.pads, dilations


def _over(
    image: Codes, op: MaxPool | AveragePool, dilations: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Output size, and the pads with what ceil mode's last windows reach."""
    kernel, strides, pads, _ = _geometry(op)
    axes = by_axis(image.shape[2:], kernel, strides, pads, dilations)
    ends = [reached_pads(*axis, ceil=op.ceil_mode) for axis in axes]
    size = tuple(window_count(*axis, ceil=op.ceil_mode) for axis in axes)
    return size, (*(before for before, _ in ends), *(after for _, after in ends))


def _taps(view: NDArray, kernel: tuple[int, ...], size: tuple[int, ...]) -> Iterator[NDArray]:
    """The elements at each place of the windows, (N, C, *size), row by row; `view` is that of `windows`."""
    every, inside = slice(None), (slice(n) for n in size)
    places: list[tuple[int | slice, ...]] = [(every, every), tuple(inside)]
    for tap in product(*(range(k) for k in kernel)):
        yield view[(*places[0], *tap, *places[1])]
