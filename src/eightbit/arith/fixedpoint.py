"""Integer arithmetic: an int32 accumulator to an int8 code, in each of the four ways that runtimes do it.

In: accumulators, a multiplier (float32, or 31 bits and a shift), a zero point. Out: codes. The families differ in
where they round and how ties go; chapter 3 derives them.

===========  ==============================================================  =====================================
family       formula                                                         who
===========  ==============================================================  =====================================
A            RNE(clip(f32(acc) * M, qmin - z, qmax - z)) + z                 ONNX Runtime Conv, Gemm, MatMul
B            clip(RNE(x + z))                                                ONNX Runtime Add, Mul, AveragePool
C            RDPOT(SRDHM(acc << left, m), right) + z, rounded twice          TFLite Micro, CMSIS-NN
D            (acc * m + half) >> total shift, rounded once, + z              ruy, XNNPACK rndnu
===========  ==============================================================  =====================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eightbit.arith.affine import IntType
from eightbit.errors import EightbitError, QuantizationError

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class Arithmetic(Enum):
    """A runtime's way of computing: which rounding family each operation uses."""

    ONNX = "onnx"
    """Families A and B, as ONNX Runtime on x86."""
    TFLITE = "tflite"
    """Family C, as TFLite Micro."""
    SINGLE = "single"
    """Family D, as ruy and XNNPACK's rndnu."""

    @classmethod
    def of(cls, chosen: str | Arithmetic, error: type[EightbitError]) -> Arithmetic:
        """The member, or the one of that value. Raises `error` for any other."""
        try:
            return cls(chosen)
        except ValueError:
            known = ", ".join(repr(a.value) for a in cls)
            raise error(f"unknown arithmetic {chosen!r}; choose {known}") from None


def round_half_even(x: ArrayLike) -> Int64:
    """To the nearest integer, ties to the even one (IEEE 754 roundTiesToEven).

    >>> round_half_even([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]).tolist()
    [-2, -2, 0, 0, 2, 2]
    """
    return np.rint(_finite(x)).astype(np.int64)


def round_half_away(x: ArrayLike) -> Int64:
    """To the nearest integer, ties away from zero (C's `round`).

    >>> round_half_away([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]).tolist()
    [-3, -2, -1, 1, 2, 3]
    """
    values = _finite(x)
    magnitude = np.abs(values)
    whole = np.floor(magnitude)
    return np.copysign(whole + (magnitude - whole >= 0.5), values).astype(np.int64)


def round_half_up(x: ArrayLike) -> Int64:
    """To the nearest integer, ties towards plus infinity.

    >>> round_half_up([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]).tolist()
    [-2, -1, 0, 1, 2, 3]
    """
    values = _finite(x)
    whole = np.floor(values)
    return (whole + (values - whole >= 0.5)).astype(np.int64)


def _finite(x: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(x, np.float64)
    fits = np.abs(values) < 2.0**63  # False for NaN, too
    if not fits.all():
        raise QuantizationError(f"{values[~fits][0]} cannot be rounded to an int64")
    return values


def quantize_multiplier(real: ArrayLike) -> tuple[Int32, Int32]:
    """A positive real multiplier as `m * 2**(shift - 31)`, m in [2**30, 2**31) int32; zero below 2**-32.

    `real` has any shape; both results have it too. A significand that rounds up to 2**31 is halved and the shift
    raised. Raises QuantizationError for a value that is negative, not finite, or 2**30 and above.
    Source: TensorFlow Lite, `QuantizeMultiplier` in kernels/internal/quantization_util.cc.

    >>> m, shift = quantize_multiplier(0.75)
    >>> int(m), int(shift)
    (1610612736, 0)
    """
    value = np.asarray(real, np.float64)
    if not np.isfinite(value).all() or (value < 0).any():
        raise QuantizationError(
            f"multipliers must be finite and not negative; found {value.min()} to {value.max()}"
        )
    significand, shift = np.frexp(value)
    m = round_half_away(significand * 2.0**31)
    carried = m == 2**31
    m, shift = np.where(carried, m // 2, m), shift + carried
    if (shift > 30).any():
        raise QuantizationError(
            f"multiplier {value.max()} is too large for 31 bits and a shift of at most 30"
        )
    tiny = shift < -31  # so that no right shift exceeds 31; the product with any int32 is then below 1/2
    return np.where(tiny, 0, m).astype(np.int32), np.where(tiny, 0, shift).astype(np.int32)


def srdhm(a: ArrayLike, b: ArrayLike) -> Int32:
    """Saturating rounding doubling high multiply: the high half of `2 a b`, ties towards plus infinity.

    Only the product of two minima overflows; it saturates. Operands are int32 and broadcast.
    Source: gemmlowp, `SaturatingRoundingDoublingHighMul` in fixedpoint.h.

    >>> int(srdhm(-3, 2**30)), int(srdhm(3, 2**30))  # -1.5 and 1.5
    (-1, 2)
    """
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    # gemmlowp adds 2**30 or 1 - 2**30 by sign and divides towards zero: the same as a floor with 2**30.
    return np.minimum((product + 2**30) >> 31, 2**31 - 1).astype(np.int32)


def rdpot(x: ArrayLike, exponent: ArrayLike) -> Int32:
    """Rounding division by a power of two, `x / 2**exponent`, ties away from zero; int32, exponent in [0, 31].

    Source: gemmlowp, `RoundingDivideByPOT` in fixedpoint.h.

    >>> rdpot([-3, -1, 1, 3], 1).tolist()
    [-2, -1, 1, 2]
    """
    values, shift = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    mask = (np.int64(1) << shift) - 1
    threshold = (mask >> 1) + (values < 0)
    return ((values >> shift) + ((values & mask) > threshold)).astype(np.int32)


def requantize_a(
    acc: NDArray[np.generic],
    multiplier: ArrayLike,
    zero_point: ArrayLike,
    itype: IntType,
    *,
    out: NDArray[np.integer] | None = None,
    scratch: NDArray[np.float32] | None = None,
) -> NDArray[np.integer]:
    """Family A: `RNE(clip(f32(acc) * M, qmin - z, qmax - z)) + z`, the product in float32.

    `acc` of any shape is int32, or a float type that holds the same integers; `multiplier` float32 and `zero_point`
    broadcast with it; codes of `itype`, of at most 16 bits, come back, in `out` if given. The work is done in
    `scratch` if given: float32 of the codes' shape, which may be `acc`.
    Source: ONNX Runtime, `MlasRequantizeOutput` in mlas/lib/quantize.cpp.

    >>> requantize_a(np.array([-3, -1, 1, 3, 999], np.int32), 0.5, 0, IntType(8, signed=True)).tolist()
    [-2, 0, 0, 2, 127]
    """
    z = np.asarray(zero_point, np.float32)
    f32 = np.asarray(acc).astype(np.float32, copy=False)  # from float64: the one rounding of the accumulator
    scaled = np.asarray(np.multiply(f32, np.asarray(multiplier, np.float32), out=scratch))
    np.clip(scaled, itype.qmin - z, itype.qmax - z, out=scaled)
    np.rint(scaled, out=scaled)
    np.add(scaled, z, out=scaled)
    codes = np.empty(scaled.shape, itype.dtype) if out is None else out
    np.copyto(codes, scaled, casting="unsafe")  # in range by the clip above
    return codes


def requantize_b(x: ArrayLike, zero_point: ArrayLike, itype: IntType) -> NDArray[np.integer]:
    """Family B: the zero point is added in float32 before rounding, so the parity of ties follows it.

    `x` float32 in steps of the output's scale; codes of `itype` come back.
    Source: ONNX Runtime, `MlasQLinearAdd` in mlas/lib/qladd.cpp; the ONNX reference of QuantizeLinear rounds first.

    >>> int8 = IntType(8, signed=True)
    >>> requantize_b([0.5, 1.5], 1, int8).tolist(), requantize_a(np.array([1, 3]), 0.5, 1, int8).tolist()
    ([2, 2], [1, 3])
    """
    shifted = np.asarray(x, np.float32) + np.asarray(zero_point, np.float32)
    return np.asarray(np.rint(np.clip(shifted, itype.qmin, itype.qmax)).astype(itype.dtype))


def requantize_c(
    acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, zero_point: ArrayLike, itype: IntType
) -> NDArray[np.integer]:
    """Family C: `RDPOT(SRDHM(acc << max(shift, 0), m), max(-shift, 0)) + z`, saturated: two roundings.

    `multiplier` and `shift` come from `quantize_multiplier` and broadcast with `acc` int32. A left shift that leaves
    int32, undefined in C, saturates here: the code it leads to is an end of the range either way.
    Source: TensorFlow Lite, `MultiplyByQuantizedMultiplier` in kernels/internal/common.h.

    >>> requantize_c([-3, 3], *quantize_multiplier(0.5), 0, IntType(8, signed=True)).tolist()  # -1.5 and 1.5
    [-1, 2]
    """
    left, right = np.maximum(shift, 0), np.maximum(np.negative(shift), 0)
    wide = np.asarray(acc, np.int64) << np.asarray(left, np.int64)
    scaled = rdpot(srdhm(np.clip(wide, -(2**31), 2**31 - 1), multiplier), right)
    return _saturated(scaled, zero_point, itype)


def requantize_d(
    acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, zero_point: ArrayLike, itype: IntType
) -> NDArray[np.integer]:
    """Family D: `(acc * m + 2**(30 - shift)) >> (31 - shift)`, plus z, saturated: one rounding, ties upwards.

    `multiplier` and `shift` come from `quantize_multiplier` and broadcast with `acc` int32.
    Source: TensorFlow Lite with TFLITE_SINGLE_ROUNDING, kernels/internal/common.h.

    >>> requantize_d([-3, 3], *quantize_multiplier(0.5), 0, IntType(8, signed=True)).tolist()  # -1.5 and 1.5
    [-1, 2]
    """
    total = 31 - np.asarray(shift, np.int64)
    product = np.asarray(acc, np.int64) * np.asarray(multiplier, np.int64)
    return _saturated((product + (np.int64(1) << (total - 1))) >> total, zero_point, itype)


FIXED_POINT: Mapping[Arithmetic, Callable[..., NDArray[np.integer]]] = {
    Arithmetic.TFLITE: requantize_c,
    Arithmetic.SINGLE: requantize_d,
}
"""The requantization of the arithmetics whose multiplier is 31 bits and a shift."""


def accumulator_bound(weight: NDArray[np.integer], x_type: IntType, *, axis: int = 0) -> Int64:
    """The largest `|sum of w (x - z)|` that codes of `x_type` can reach, for each channel of `weight` along `axis`.

    The difference of two codes is at most qmax - qmin, so the bound is that times the sum of `|w|`; a layer is safe in
    int32 while this plus `|bias|` stays below 2**31.

    >>> accumulator_bound(np.full((1, 66_311), 127, np.int8), IntType(8, signed=False)).item() < 2**31
    True
    """
    rows = np.moveaxis(np.asarray(weight), axis, 0).reshape(weight.shape[axis], -1)
    return np.abs(rows.astype(np.int64)).sum(axis=1) * (x_type.qmax - x_type.qmin)


def _saturated(scaled: ArrayLike, zero_point: ArrayLike, itype: IntType) -> NDArray[np.integer]:
    codes = np.asarray(scaled, np.int64) + np.asarray(zero_point, np.int64)
    return np.clip(codes, itype.qmin, itype.qmax).astype(itype.dtype)
