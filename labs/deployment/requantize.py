"""From an int32 sum to an int8 code as TensorFlow Lite Micro does it.

Then a certificate. No float is allowed on the way: the device may not have any.
Chapters 3 and 15.
"""

import numpy as np


def high_product(a, b):
    """The high half of 2 a b for int32 arrays: (a b + 2**30) >> 31, saturated.

    One product alone overflows: that of two smallest int32.
    """
    raise NotImplementedError


def divide_by_power(x, exponent):
    """X / 2**exponent to the nearest integer, ties away from zero; 0 to 31."""
    raise NotImplementedError


def requantize(sums, multiplier, shift, zero_point):
    """int8 codes of int32 sums, by a multiplier of 31 bits and a shift.

    The real factor is multiplier * 2**(shift - 31). A positive shift goes to the
    left before the product, a negative one to the right after; the code saturates.
    """
    # Right in real numbers, and equal to the device nearly always: no certificate.
    real = sums * (multiplier * 2.0 ** (shift - 31))
    return np.clip(np.rint(real) + zero_point, -128, 127).astype(np.int8)


def certificate(ours, theirs):
    """How many codes differ, by how much at most, and the first index (or None)."""
    raise NotImplementedError
