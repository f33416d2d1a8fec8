"""Pooling on codes: the largest, the mean, the mean of a whole image."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

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
from eightbit.integer.engine.requantize import fixed_multiplier
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
    kernel, strides, _, dilations = _two_axes(op)

    def apply(codes: Codes) -> Codes:
        image = _image(codes, op)
        (oh, ow), grown = _over(image, op, dilations)
        padded = pad_spatial(image, grown, lowest) if any(grown) else image
        view = windows(padded, kernel, strides, dilations)[..., :oh, :ow]
        out = view[:, :, 0, 0].copy()
        for i, j in list(product(range(kernel[0]), range(kernel[1])))[1:]:
            np.maximum(out, view[:, :, i, j], out=out)
        return out if codes.ndim == 4 else out[:, :, 0]

    return apply


def average_pool(op: AveragePool, program: Program, arithmetic: Arithmetic) -> Callable[[Codes], Codes]:
    """A function from codes to the rounded mean of each window, in the arithmetic asked for."""
    x, y = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    kernel, strides, pads, dilations = _two_axes(op)
    if arithmetic is not Arithmetic.ONNX and (x.scale != y.scale or x.zero_point != y.zero_point):
        raise EngineError(
            f"{op.name}: {arithmetic.name} averages on codes and needs one scale in and out; found"
            f" {x.scale}, {y.scale}. Run it in ONNX arithmetic, or quantize with shared parameters"
        )
    whole = global_mean(x, y, arithmetic)

    def apply(codes: Codes) -> Codes:
        image = _image(codes, op)
        if arithmetic is Arithmetic.ONNX and image.shape[2:] == kernel and not any(pads):
            out = whole(image)
            return out if codes.ndim == 4 else out[:, :, 0]
        (oh, ow), grown = _over(image, op, dilations)
        inside = np.ones((1, 1, *image.shape[2:]), np.int32)
        count: NDArray[np.int32] | int
        if op.count_include_pad:
            count = kernel[0] * kernel[1]
        else:
            count = windows(pad_spatial(inside, grown, 0), kernel, strides, dilations)[..., :oh, :ow].sum(
                (2, 3)
            )
        if arithmetic is Arithmetic.ONNX:
            out = _mean_b(pad_spatial(image, grown, x.zero_point), (kernel, strides, (oh, ow)), count, (x, y))
        else:
            padded = pad_spatial(image, grown, 0 if not op.count_include_pad else x.zero_point, np.int32)
            total = windows(padded, kernel, strides, dilations)[..., :oh, :ow].sum((2, 3), dtype=np.int64)
            half = np.where(total > 0, count // 2, -(np.asarray(count) // 2))
            out = np.trunc((total + half) / count).astype(np.int8)  # C's integer division; exact in float64
        return out if codes.ndim == 4 else out[:, :, 0]

    return apply


def _mean_b(
    padded: Codes,
    geometry: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
    count: NDArray[np.int32] | int,
    infos: tuple[TensorInfo, TensorInfo],
) -> Codes:
    """ONNX Runtime's QLinearAveragePool (qlinear_pool.cc): dequantize, sum row by row in float32, divide, RNE(y/s + z).

    Padding dequantizes to 0.0, which changes no sum. Codes of 16 bits have no such kernel there: they are dequantized,
    and the mean is quantized.
    """
    x, y = infos
    kernel, strides, (oh, ow) = geometry
    view = windows(dequantize(padded, x.params), kernel, strides, (1, 1))[..., :oh, :ow]
    total = np.zeros((*padded.shape[:2], oh, ow), np.float32)
    for i, j in product(
        range(kernel[0]), range(kernel[1])
    ):  # this order is ONNX Runtime's: the sums are rounded
        total += view[:, :, i, j]
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
    return codes if codes.ndim == 4 else codes[:, :, None, :]


def _two_axes(
    op: MaxPool | AveragePool,
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, ...], tuple[int, int]]:
    """Kernel, strides, pads and dilations over two axes; a single axis gets one of length 1 before it."""
    dilations = op.dilations if isinstance(op, MaxPool) else (1,) * len(op.kernel)
    if len(op.kernel) == 1:
        return (1, op.kernel[0]), (1, op.strides[0]), (0, op.pads[0], 0, op.pads[1]), (1, dilations[0])
    return (op.kernel[0], op.kernel[1]), (op.strides[0], op.strides[1]), op.pads, (dilations[0], dilations[1])


def _over(
    image: Codes, op: MaxPool | AveragePool, dilations: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Output size, and the pads with what ceil mode's last windows reach."""
    kernel, strides, pads, _ = _two_axes(op)
    axes = by_axis(image.shape[2:], kernel, strides, pads, dilations)
    oh, ow = (window_count(*axis, ceil=op.ceil_mode) for axis in axes)
    (top, bottom), (left, right) = (reached_pads(*axis, ceil=op.ceil_mode) for axis in axes)
    return (oh, ow), (top, left, bottom, right)
