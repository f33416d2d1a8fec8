"""Family C of chapter 3 in int64."""

import numpy as np


def high_product(a, b):
    """(a b + 2**30) >> 31; the product of two minima saturates."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.minimum((product + 2**30) >> 31, 2**31 - 1).astype(np.int32)


def divide_by_power(x, exponent):
    """The magnitude rounded half up, and its sign."""
    wide = np.asarray(x, np.int64)
    half = (np.int64(1) << np.asarray(exponent, np.int64)) >> 1
    return (np.sign(wide) * ((np.abs(wide) + half) >> exponent)).astype(np.int32)


def requantize(sums, multiplier, shift, zero_point):
    """Shifted left, multiplied, divided, and saturated."""
    wide = np.asarray(sums, np.int64) << np.maximum(shift, 0)
    product = high_product(np.clip(wide, -(2**31), 2**31 - 1), multiplier)
    codes = divide_by_power(product, np.maximum(np.negative(shift), 0)).astype(np.int64) + zero_point
    return np.clip(codes, -128, 127).astype(np.int8)


def certificate(ours, theirs):
    """Differences in int16, where those of int8 codes have room."""
    apart = np.abs(ours.astype(np.int16) - theirs)
    places = np.argwhere(apart)
    return len(places), int(apart.max()), tuple(places[0].tolist()) if len(places) else None
