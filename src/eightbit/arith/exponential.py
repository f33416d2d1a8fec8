"""The exponential and the reciprocal in fixed point, as TensorFlow Lite's Softmax of codes takes them from gemmlowp.

In and out: raw integers, int64 arrays that hold int32 values; Q5.26 has 5 integer bits, 26 fractional ones
and a sign. Products are `srdhm`, so that the integer bits of the factors add up. Source: gemmlowp,
fixedpoint/fixedpoint.h (exp_on_negative_values, one_over_one_plus_x_for_x_in_0_1); TensorFlow Lite, GetReciprocal in
kernels/internal/common.h.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eightbit.arith.fixedpoint import rdpot, srdhm

Int64 = NDArray[np.int64]
ONE = 2**31 - 1
"""1.0 in Q0.31, or as near as it gets."""
EXP_INTEGER_BITS = 5
SUM_INTEGER_BITS = 12
LONGEST_SUM = 2**SUM_INTEGER_BITS - 1
"""Terms of at most 1 whose sum stays below 2^12."""
QUARTER = 1 << (31 - EXP_INTEGER_BITS - 2)
EXP_MINUS_EIGHTH = 1895147668
THIRD = 715827883
BITS = {-2: 1672461947, -1: 1302514674, 0: 790015084, 1: 290630308, 2: 39332535, 3: 720401, 4: 242}
"""exp(-2^k) in Q0.31, by k: what each bit of the argument multiplies the result with."""
NEWTON_STEPS = 3
A_48_17, A_MINUS_32_17 = 1515870810, -1010580540
"""In Q2.29: 48/17 - 32/17 d is the line nearest to 1/d for d in [1/2, 1]."""


def exp_of_negatives(x: ArrayLike) -> Int64:
    """exp(x) for x <= 0 in Q5.26, as Q0.31: a Taylor series around -1/8 for what is left of quarters, then their bits.

    >>> [round(int(v) / 2**31, 6) for v in exp_of_negatives([0, -(2**26), -(2**27)])]  # 0, -1, -2
    [1.0, 0.36788, 0.135335]
    """
    raw = np.asarray(x, np.int64)
    below = (raw & (QUARTER - 1)) - QUARTER  # in [-1/4, 0)
    result = _exp_of_a_quarter(below << EXP_INTEGER_BITS)
    quarters = below - raw
    for power, factor in BITS.items():
        bit = np.int64(1) << (31 - EXP_INTEGER_BITS + power)
        result = np.where(quarters & bit, _product(result, factor), result)
    return np.where(raw == 0, ONE, result)


def _exp_of_a_quarter(a: Int64) -> Int64:
    """exp(a) for a in [-1/4, 0), in Q0.31: four terms around -1/8."""
    x = a + (1 << 28)
    x2 = _product(x, x)
    x3, x4 = _product(x2, x), _product(x2, x2)
    tail = rdpot(_product(rdpot(x4, 2).astype(np.int64) + x3, THIRD) + x2, 1).astype(np.int64)
    return EXP_MINUS_EIGHTH + _product(x + tail, EXP_MINUS_EIGHTH)


def reciprocal(total: ArrayLike) -> tuple[Int64, Int64]:
    """1 / total for a positive sum in Q12.19: Q0.31 of the significand's, in (1/2, 1], and the sum's power of two.

    The result stands for `significand * 2**-power`. Three steps of Newton's method.

    >>> significand, power = reciprocal([1 << 19, 3 << 19])  # 1 and 3
    >>> [round(int(s) / 2**31 / 2**int(p), 6) for s, p in zip(significand, power)]
    [1.0, 0.333333]
    """
    raw = np.asarray(total, np.int64)
    headroom = 32 - np.frexp(raw.astype(np.float64))[1].astype(np.int64)  # leading zeros of 32 bits
    half = (raw << headroom) >> 1  # the significand, in [1/2, 1)
    x = A_48_17 + _product(half, A_MINUS_32_17)
    for _ in range(NEWTON_STEPS):
        error = (1 << 29) - _product(half, x)
        x = x + _saturated(_product(x, error) << 2)
    return _saturated(x << 1), SUM_INTEGER_BITS - headroom


def _product(a: Int64, b: Int64 | int) -> Int64:
    return srdhm(a, b).astype(np.int64)


def _saturated(x: Int64) -> Int64:
    return np.clip(x, -(2**31), 2**31 - 1)
