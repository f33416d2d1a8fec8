"""From accumulators to codes, or to float: the last step of every layer, in each named arithmetic.

The accumulator arrives as float32 or float64 that hold integers exactly; the multiplier is `s_x s_w / s_y`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import INT8, IntType
from eightbit.arith.fixedpoint import Arithmetic, quantize_multiplier, requantize_c, requantize_d
from eightbit.integer.program import Codes, TensorInfo

BLOCK = 1 << 16  # elements worked on at a time, so that the passes stay in the level-2 cache

Requantizer = Callable[[NDArray[np.floating], Codes], None]


def requantizer(
    scales: tuple[np.float32, NDArray[np.float32], np.float32], y: TensorInfo, arithmetic: Arithmetic
) -> Requantizer:
    """A function `(acc, out)` that writes the codes of accumulators (C, P), row c with multiplier c, to `out`.

    `scales` are (s_x, s_w, s_y), s_w with one value a row or one in all. `acc` may be overwritten.
    Family A rounds `float32(acc) * float32(s_x s_w / s_y)`, all operations in float32 and in this order (ONNX
    Runtime's QLinearConv, QGemm and QLinearMatMul); C and D take a 31-bit multiplier from the double quotient.
    ONNX Runtime has no kernels for codes of 16 bits, and computes such layers in float32; here family A is theirs, too.
    """
    s_x, s_w, s_y = scales
    if arithmetic is Arithmetic.ONNX:
        multiplier = (np.float32(s_x) * np.asarray(s_w, np.float32)) / np.float32(s_y)
        return _family_a(multiplier.reshape(-1, 1), y.zero_point, y.itype)
    real = np.float64(s_x) * np.asarray(s_w, np.float64) / np.float64(s_y)
    m, shift = quantize_multiplier(real.reshape(-1, 1))
    fixed = requantize_c if arithmetic is Arithmetic.TFLITE else requantize_d

    def run(acc: NDArray[np.floating], out: Codes) -> None:
        out[...] = fixed(acc.astype(np.int32), m, shift, y.zero_point, INT8)

    return run


def to_float(
    s_x: np.float32, s_w: NDArray[np.float32]
) -> Callable[[NDArray[np.floating], NDArray[np.float32]], None]:
    """A function `(acc, out)` that writes `float32(acc) * (s_x * s_w)` of accumulators (C, P) to float32 `out`.

    All in float32, the scales multiplied first: ONNX Runtime's QGemm and MatMulIntegerToFloat (mlas, the
    ScaleBias output processor). It is the same in every arithmetic: nothing is rounded to an integer.
    """
    multiplier = (np.float32(s_x) * np.asarray(s_w, np.float32)).reshape(-1, 1)

    def run(acc: NDArray[np.floating], out: NDArray[np.float32]) -> None:
        np.multiply(acc.astype(np.float32, copy=False), multiplier, out=out)

    return run


def _family_a(multiplier: NDArray[np.float32], zero_point: int, itype: IntType) -> Requantizer:
    low, high = np.float32(itype.qmin - zero_point), np.float32(itype.qmax - zero_point)

    def run(acc: NDArray[np.floating], out: Codes) -> None:
        rows = max(1, BLOCK // max(1, acc.shape[1]))
        for begin in range(0, acc.shape[0], rows):
            part = acc[begin : begin + rows].astype(
                np.float32, copy=False
            )  # float64: the one rounding of the accumulator
            m = multiplier if multiplier.shape[0] == 1 else multiplier[begin : begin + rows]
            round_a(part, m, (low, high), zero_point, out[begin : begin + rows])

    return run


def round_a(
    acc: NDArray[np.float32],
    multiplier: NDArray[np.float32] | np.float32,
    limits: tuple[np.float32, np.float32],
    zero_point: int,
    out: Codes,
) -> None:
    """`out = RNE(clip(acc * multiplier, *limits)) + zero_point` in float32, working in `acc`."""
    np.multiply(acc, multiplier, out=acc)
    np.clip(acc, *limits, out=acc)
    np.rint(acc, out=acc)
    np.add(acc, np.float32(zero_point), out=acc)
    np.copyto(out, acc, casting="unsafe")  # in range by the clip above
