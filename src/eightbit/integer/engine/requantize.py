"""From accumulators to codes, or to float: the last step of every layer, in each named arithmetic.

The accumulator arrives as float32 or float64 that hold integers exactly; the multiplier is `s_x s_w / s_y`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import INT8
from eightbit.arith.fixedpoint import FIXED_POINT, Arithmetic, quantize_multiplier, requantize_a
from eightbit.integer.program import Codes, TensorInfo, all_codes

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
        return _family_a(multiplier.reshape(-1, 1), y)
    m, shift = (part.reshape(-1, 1) for part in fixed_multiplier(s_x, s_w, s_y))

    def run(acc: NDArray[np.floating], out: Codes) -> None:
        out[...] = FIXED_POINT[arithmetic](acc.astype(np.int32), m, shift, y.zero_point, INT8)

    return run


def fixed_multiplier(
    s_x: np.float32, s_w: NDArray[np.float32] | np.float32, s_y: np.float32
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Multiplier and shift of families C and D, from `s_x s_w / s_y` in double; in the shape of `s_w`."""
    return quantize_multiplier(np.float64(s_x) * np.asarray(s_w, np.float64) / np.float64(s_y))


def requantize_codes(
    codes: Codes, x: TensorInfo, y: TensorInfo, arithmetic: Arithmetic
) -> NDArray[np.integer]:
    """Codes of `x` as codes of `y` in families C and D, by the multiplier s_x / s_y (TFLite's reference/requantize.h).

    Codes whose scale and zero point are those of `y` stay as they are.
    """
    by = fixed_multiplier(x.scale, np.float32(1), y.scale)
    return FIXED_POINT[arithmetic](codes.astype(np.int32) - x.zero_point, *by, y.zero_point, INT8)


def requantize_table(
    table: Codes | None, infos: tuple[TensorInfo, TensorInfo], arithmetic: Arithmetic
) -> Codes | None:
    """What takes codes of one scale to another: `table`, which rounds in float, in ONNX arithmetic; else the family's.

    None, where the two scales are one, stays None.
    """
    if table is None or arithmetic is Arithmetic.ONNX:
        return table
    return requantize_codes(all_codes(INT8), *infos, arithmetic)


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


def _family_a(multiplier: NDArray[np.float32], y: TensorInfo) -> Requantizer:
    def run(acc: NDArray[np.floating], out: Codes) -> None:
        rows = max(1, BLOCK // max(1, acc.shape[1]))
        for begin in range(0, acc.shape[0], rows):
            some = slice(begin, begin + rows)
            part = acc[some].astype(np.float32, copy=False)
            m = multiplier if multiplier.shape[0] == 1 else multiplier[some]
            requantize_a(part, m, y.zero_point, y.itype, out=out[some], scratch=part)

    return run
