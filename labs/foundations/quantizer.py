"""A quantizer with five planted faults, one in each function. Put them right.

Each docstring says what the function should do, and is right. Chapters 2 to 4.
"""

import numpy as np


def parameters(low, high):
    """Scale and zero point of int8 codes for the numbers from low to high.

    Zero, which pads images and is what a Relu leaves, has a code of its own.
    """
    scale = (high - low) / 255
    zero_point = np.clip(np.rint(-128 - low / scale), -128, 127)
    return scale, int(zero_point)


def quantize(x, scale, zero_point):
    """Codes of real numbers: the nearest, ties to the even one, saturated."""
    codes = np.floor(x / scale + 0.5) + zero_point
    return np.clip(codes, -128, 127).astype(np.int8)


def weight_scales(weights):
    """A symmetric scale for each filter of weights (out, in, kh, kw)."""
    return np.abs(weights).max(axis=(0, 2, 3)) / 127


def bias_codes(bias, x_scale, weight_scale):
    """The bias as integers that can be added to sums of code products."""
    return np.rint(bias / weight_scale).astype(np.int32)


def accumulate(x_codes, zero_point, weight_codes, bias):
    """Integer sums of a layer: (n, in) codes, (out, in) weights, (out,) bias."""
    x = x_codes.astype(np.int16) - np.int16(zero_point)
    return x @ weight_codes.astype(np.int16).T + bias
