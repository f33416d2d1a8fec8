"""Softmax on codes: in float32 as ONNX Runtime's QLinearSoftmax, or in fixed point as TensorFlow Lite."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import INT8
from eightbit.arith.exponential import (
    EXP_INTEGER_BITS,
    LONGEST_SUM,
    SUM_INTEGER_BITS,
    exp_of_negatives,
    reciprocal,
)
from eightbit.arith.fixedpoint import FIXED_POINT, Arithmetic, quantize_multiplier, rdpot, srdhm
from eightbit.errors import EngineError
from eightbit.integer.engine.requantize import fixed_multiplier
from eightbit.integer.program import Codes, Program, Softmax, TensorInfo

FLOAT32_MAX = np.finfo(np.float32).max
RESERVE = 5.0  # ONNX Runtime's margin (in nats) against overflow of the sum


def softmax(op: Softmax, program: Program, arithmetic: Arithmetic) -> Callable[[Codes], Codes]:
    """A function of codes, in the arithmetic asked for."""
    x, y = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    if arithmetic is Arithmetic.ONNX:
        return _float(op.axis, x, y)
    exps, by = fixed_exps(op.name, x), fixed_multiplier(FIXED_SCALE, np.float32(1), y.scale)
    parts = rdpot(exps, SUM_INTEGER_BITS).astype(np.int64)

    def apply(codes: Codes) -> Codes:
        """TFLite's Softmax (reference/softmax.h) makes codes of 1/256 and zero point -128, its QUANTIZE those of `y`.

        Q12.19 sums, Q0.31 quotients. A sum of 512 and more, where TFLite Micro stops, leaves nothing of a quotient.
        """
        rows = np.moveaxis(codes, op.axis, -1)
        check_depth(op.name, rows.shape[-1])
        index = rows.astype(np.intp) + (255 - rows.max(-1, keepdims=True).astype(np.intp))
        significand, power = reciprocal(parts[index].sum(-1, keepdims=True))
        shift = power + (31 - 8)
        quotient = srdhm(significand, exps[index])
        share = np.where(shift > 31, 0, rdpot(quotient, np.minimum(shift, 31)))  # in 1/256
        out = FIXED_POINT[arithmetic](np.minimum(share, 255), *by, y.zero_point, INT8)
        return np.ascontiguousarray(np.moveaxis(out, -1, op.axis))

    return apply


FIXED_SCALE = np.float32(1 / 256)
"""Of the codes that TFLite's Softmax gives, whose zero point is -128."""


def fixed_exps(name: str, x: TensorInfo) -> NDArray[np.int64]:
    """exp((i - 255) s_x) in Q0.31, int64 (256,), for a code i - 255 steps below its row's largest; 0 below exp(-31).

    TFLite's kernels/internal/quantization_util.cc, PreprocessSoftmaxScaling and CalculateInputRadius. Raises
    EngineError for a scale too small for them.
    """
    real = min(float(x.scale) * 2**FRACTION, 2**31 - 1.0)
    if real <= 1:
        raise EngineError(
            f"{name}: Softmax in fixed point needs an input scale above 2^-{FRACTION}; found {x.scale}: run it in ONNX"
            " arithmetic"
        )
    m, shift = (int(v) for v in quantize_multiplier(np.ldexp(real, -LEFT)))
    shift += LEFT
    steps = np.arange(-255, 1, dtype=np.int64)
    kept = steps >= -(((2**EXP_INTEGER_BITS - 1) << FRACTION) >> shift)
    scaled = srdhm(np.where(kept, steps, 0) << shift, m)
    return np.where(kept, exp_of_negatives(scaled), 0)


def check_depth(name: str, depth: int) -> None:
    """Raise EngineError for more terms than a sum in fixed point has room for."""
    if depth > LONGEST_SUM:
        raise EngineError(
            f"{name}: Softmax over {depth:,} codes; in fixed point it has room for {LONGEST_SUM:,}: run it in ONNX"
            " arithmetic"
        )


FRACTION = 31 - EXP_INTEGER_BITS
LEFT = 2
"""A multiplier can be 2^31, and `quantize_multiplier` takes what is below 2^30."""


def _float(axis: int, x: TensorInfo, y: TensorInfo) -> Callable[[Codes], Codes]:
    """ONNX Runtime (qlinear_softmax.cc).

    A table holds e[i] = float32(exp((i - 255 + shift) s_x)), and the largest code of a row sits at its end. The sum
    runs over the row in float32, from left to right; y = RNE(e * floor(1 / s_y) / sum) + z_y, in double. Note the
    floor: it scales every probability down by up to one part in 1 / s_y.
    """
    inverse = np.float64(np.floor(np.float32(1) / np.float32(y.scale)))

    def apply(codes: Codes) -> Codes:
        rows = np.moveaxis(codes, axis, -1)
        table = exp_table(float(x.scale), rows.shape[-1])
        index = rows.astype(np.intp) + (255 - rows.max(-1, keepdims=True).astype(np.intp))
        e = table[index]
        total = np.add.accumulate(e, axis=-1)[..., -1:]
        rounded = np.rint(e.astype(np.float64) * inverse / total) + (y.zero_point + 128)
        out = (np.clip(rounded, 0, 255) - 128).astype(np.int8)
        return np.ascontiguousarray(np.moveaxis(out, -1, axis))

    return apply


def exp_table(scale: float, length: int) -> NDArray[np.float32]:
    """float32 (256,): entry i for the code i - 255 steps below a row's largest; `length` codes are to be summed."""
    room = float(np.float32(math.log(FLOAT32_MAX / np.float32(length))))  # C++ takes the float32 logarithm
    shift = max(0.0, room - RESERVE) / scale
    return np.array([math.exp((i - 255 + shift) * scale) for i in range(256)]).astype(np.float32)
