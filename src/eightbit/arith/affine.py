"""The affine map between real numbers and integer codes: r = s (q - z).

In: real numbers and the range that codes shall span. Out: a scale s, a zero point z, and codes q. The scale is a
positive float32, the zero point an integer among the codes, so that the real number 0 has a code of its own:
padding and Relu cost no error. Chapter 2 derives every formula here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eightbit.errors import QuantizationError
from eightbit.values.fields import argument, check

TINY = np.finfo(np.float32).tiny
"""The smallest scale: subnormal float32 scales lose precision, and vanish where hardware flushes them to zero."""


@dataclass(frozen=True)
class IntType:
    """The integers that a code may take: `bits` wide, signed or not, `narrow` without the most negative one.

    >>> IntType(8, signed=True, narrow=True).qmin, UINT8.qmax, INT4.name
    (-127, 255, 'int4')
    """

    bits: int
    signed: bool
    narrow: bool = False

    def __post_init__(self) -> None:
        check(self)
        most = 32 if self.signed else 31  # zero points are int32
        if not 2 <= self.bits <= most:
            raise QuantizationError(f"{self.name} is not supported; choose 2 to {most} bits")
        if self.narrow and not self.signed:
            raise QuantizationError(
                f"narrow drops the most negative code, and {self.name} has none; leave it out"
            )

    @property
    def qmin(self) -> int:
        """The smallest code."""
        return (-(2 ** (self.bits - 1)) + self.narrow) if self.signed else 0

    @property
    def qmax(self) -> int:
        """The largest code."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def dtype(self) -> np.dtype[np.integer]:
        """The NumPy type that stores a code: the smallest of 8, 16 and 32 bits that holds it."""
        width = 8 if self.bits <= 8 else 16 if self.bits <= 16 else 32
        return np.dtype(f"{'int' if self.signed else 'uint'}{width}")

    @property
    def name(self) -> str:
        """Short for people: int8, uint4."""
        return f"{'int' if self.signed else 'uint'}{self.bits}"


INT4 = IntType(4, signed=True)
INT8 = IntType(8, signed=True)
INT8_NARROW = IntType(8, signed=True, narrow=True)
INT16 = IntType(16, signed=True)
INT32 = IntType(32, signed=True)
UINT8 = IntType(8, signed=False)


@dataclass(frozen=True, eq=False)
class QuantParams:
    """Scale and zero point: one pair for a tensor, or one for each index along `axis`.

    `scale` float32 and `zero_point` int32 are () without an axis and (C,) with one; they are read-only copies.
    Equal parameters compare equal and hash alike. Raises QuantizationError for a scale that is not a positive, normal,
    finite float32, or a zero point that is no code of `itype`.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    itype: IntType
    axis: int | None = None

    def __post_init__(self) -> None:
        argument("QuantParams: itype", self.itype, IntType)
        argument("QuantParams: axis", self.axis, int | None)
        with np.errstate(over="ignore"):  # a scale beyond float32 is Inf, and refused below
            scale = np.array(self.scale, np.float32)
        zero_point = np.asarray(self.zero_point)
        rank = 0 if self.axis is None else 1
        if scale.ndim != rank or scale.shape != zero_point.shape:
            raise QuantizationError(
                f"scale {scale.shape} and zero point {zero_point.shape} must both be "
                f"{'scalars' if rank == 0 else f'vectors along axis {self.axis}'}"
            )
        bad = ~(np.isfinite(scale) & (scale >= TINY))
        if bad.any():
            raise QuantizationError(
                f"scale {scale[bad][0]} is not a positive normal float32; widen the range it comes from"
            )
        if zero_point.dtype.kind not in "iu":
            raise QuantizationError(f"zero point {zero_point} is {zero_point.dtype}; give an integer")
        outside = (zero_point < self.itype.qmin) | (zero_point > self.itype.qmax)
        if outside.any():
            raise QuantizationError(
                f"zero point {zero_point[outside][0]} lies outside the codes {self.itype.qmin} to {self.itype.qmax}"
            )
        codes = np.array(zero_point, np.int32)
        for array in (scale, codes):
            array.setflags(write=False)
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "zero_point", codes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QuantParams) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[bytes, bytes, IntType, int | None]:
        return self.scale.tobytes(), self.zero_point.tobytes(), self.itype, self.axis

    def along(self, shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Scale and zero point shaped to broadcast with an array of `shape`; QuantizationError if they do not fit."""
        if self.axis is None:
            return self.scale, self.zero_point
        if not -len(shape) <= self.axis < len(shape) or shape[self.axis] != self.scale.size:
            raise QuantizationError(
                f"an array of shape {shape} does not have {self.scale.size} channels along axis {self.axis}"
            )
        channels = [1] * len(shape)
        channels[self.axis] = -1
        return self.scale.reshape(channels), self.zero_point.reshape(channels)


def params_from_range(
    lo: ArrayLike, hi: ArrayLike, itype: IntType, *, symmetric: bool = False, axis: int | None = None
) -> QuantParams:
    """The parameters whose codes span the reals from `lo` to `hi`.

    Both are scalars, or (C,) together with `axis`. The range is widened to hold 0, and to be symmetric if asked; the
    scale is rounded to float32 first and the zero point, z = RNE(qmin - lo / s), derived from the rounded one. A
    range that is only {0} gets scale 1. Raises QuantizationError for limits that are not finite or out of order.
    Source: Jacob et al. 2018, arXiv 1712.05877, section 2.1 and equation 12.

    >>> p = params_from_range(-1.0, 3.0, UINT8)
    >>> float(p.scale).hex() == float(np.float32(4 / 255)).hex(), int(p.zero_point)
    (True, 64)
    """
    low, high = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()) or (low > high).any():
        raise QuantizationError(f"no range from {lo!r} to {hi!r}: limits must be finite, the lower one first")
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if symmetric:
        return _symmetric(np.maximum(-low, high), itype, axis)
    scale = _scale((high - low) / (itype.qmax - itype.qmin))
    zero_point = np.clip(np.rint(itype.qmin - low / scale.astype(np.float64)), itype.qmin, itype.qmax)
    return QuantParams(scale, zero_point.astype(np.int32), itype, axis)


def _symmetric(limit: NDArray[np.float64], itype: IntType, axis: int | None) -> QuantParams:
    """Zero in the middle of the codes: 0 for signed types, 2**(bits - 1) for unsigned ones."""
    middle = 0 if itype.signed else 2 ** (itype.bits - 1)
    scale = _scale(limit / (itype.qmax - middle))
    return QuantParams(scale, np.full(limit.shape, middle, np.int32), itype, axis)


def _scale(real: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # an overflow to Inf is refused by QuantParams
        rounded = np.where(real > 0, np.maximum(real, float(TINY)), 1.0).astype(np.float32)
    return np.asarray(rounded)


def quantize(x: ArrayLike, params: QuantParams) -> NDArray[np.integer]:
    """Real numbers to codes, `saturate(RNE(x / s) + z)`; NaN becomes qmin.

    `x` is taken as float32, of any shape; codes of the same shape come back in `params.itype.dtype`.
    Source: ONNX Runtime's QuantizeLinear on x86, which divides in float32, clips, and then rounds half to even.

    >>> quantize([-0.5, 0.5, 1.5, 2.5, np.inf], QuantParams(np.float32(1), np.int32(0), INT8)).tolist()
    [0, 0, 2, 2, 127]
    """
    with np.errstate(over="ignore"):  # beyond float32 x or x / s is Inf, and saturates
        values = np.asarray(x, np.float32)
        scale, zero_point = params.along(values.shape)
        steps = np.asarray(values / scale)
    if params.itype.bits > 16:  # float32 holds q and q - z of narrower types exactly
        steps = steps.astype(np.float64)
    z = zero_point.astype(steps.dtype)
    # fmax, not maximum: of NaN and a number it takes the number.
    np.fmax(steps, params.itype.qmin - z, out=steps)
    np.fmin(steps, params.itype.qmax - z, out=steps)
    np.rint(steps, out=steps)
    np.add(steps, z, out=steps)
    return steps.astype(params.itype.dtype)


def dequantize(q: ArrayLike, params: QuantParams) -> NDArray[np.float32]:
    """Codes to the real numbers they stand for, `s (q - z)`, in float32; any shape.

    Raises QuantizationError for codes that are not integers.
    Source: ONNX Runtime's DequantizeLinear: the difference is an integer, the product is taken in float32.

    >>> dequantize(np.array([0, 64, 255], np.uint8), QuantParams(np.float32(0.5), np.int32(64), UINT8)).tolist()
    [-32.0, 0.0, 95.5]
    """
    codes = np.asarray(q)
    if codes.dtype.kind not in "iu":
        raise QuantizationError(f"codes are integers; found {codes.dtype}; quantize real numbers first")
    scale, zero_point = params.along(codes.shape)
    wide = np.int32 if codes.dtype.itemsize <= 2 else np.int64  # either holds every difference
    return np.asarray(np.subtract(codes, zero_point, dtype=wide).astype(np.float32) * scale)


def fake_quantize(x: ArrayLike, params: QuantParams) -> NDArray[np.float32]:
    """What remains of `x` after a trip through the codes: `dequantize(quantize(x))`. A simulation, in float."""
    return dequantize(quantize(x, params), params)


def sqnr_db(reference: ArrayLike, actual: ArrayLike) -> float:
    """Signal to quantization noise in decibels: 10 log10(sum reference² / sum (actual - reference)²).

    Infinite for equal arrays. Raises QuantizationError for shapes that differ, for empty arrays, and for NaN or Inf.
    Source: Widrow and Kollár, Quantization Noise, 2008.

    >>> round(sqnr_db([1.0, 2.0], [1.1, 2.0]), 2)
    26.99
    """
    a, b = np.asarray(reference, np.float64), np.asarray(actual, np.float64)
    if a.shape != b.shape:
        raise QuantizationError(f"cannot compare shapes {a.shape} and {b.shape}")
    if a.size == 0 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise QuantizationError(
            "signal to noise needs values, all finite; found none, or NaN or Inf among them"
        )
    signal, noise = float((a * a).sum()), float(((b - a) ** 2).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal > 0 else float("-inf")
