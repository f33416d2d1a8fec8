"""Codes of two and four bits, four and two to a byte.

The first code takes the lowest bits of the first byte; codes are two's complement; the last byte is filled up with
zeros. This is how ONNX stores INT4 and INT2 tensors, and how a file of weights holds them. Chapter 4 counts the bytes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from eightbit.errors import QuantizationError

WIDTHS = (2, 4, 8)
"""Bits that a packed code may take: what divides a byte."""


def width_of(codes: NDArray[np.integer]) -> int:
    """The least of 2, 4 and 8 bits that holds every int8 code; 16 for int16 codes, which are stored as they are.

    >>> width_of(np.int8([-2, 1])), width_of(np.int8([2])), width_of(np.int8([-8, 7])), width_of(np.int8([8]))
    (2, 4, 4, 8)
    """
    if codes.dtype == np.int16:
        return 16
    low, high = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
    return next(w for w in WIDTHS if -(2 ** (w - 1)) <= low and high < 2 ** (w - 1))


def pack(codes: NDArray[np.integer], width: int) -> NDArray[np.uint8]:
    """Codes of any shape as bytes, (ceil(size * width / 8),) uint8.

    Raises QuantizationError for a width other than 2, 4, 8, and for codes that do not fit it.

    >>> [hex(byte) for byte in pack(np.int8([1, -1, 7]), 4)]
    ['0xf1', '0x7']
    """
    per_byte = _per_byte(width)
    if width_of(codes) > width:
        raise QuantizationError(f"codes from {codes.min()} to {codes.max()} do not fit {width} bits")
    flat = np.zeros(-(-codes.size // per_byte) * per_byte, np.uint8)
    flat[: codes.size] = codes.reshape(-1).view(np.uint8) & (2**width - 1)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(width)
    return np.asarray(np.bitwise_or.reduce(flat.reshape(-1, per_byte) << shifts, axis=1), np.uint8)


def unpack(data: NDArray[np.uint8], width: int, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """The codes of `shape` that `pack` made bytes of. Raises QuantizationError if the bytes are too few or too many.

    >>> unpack(pack(np.int8([1, -1, 7]), 4), 4, (3,)).tolist()
    [1, -1, 7]
    """
    per_byte, size = _per_byte(width), math.prod(shape)
    if data.size != -(-size // per_byte):
        raise QuantizationError(
            f"codes of shape {shape} at {width} bits take {-(-size // per_byte)} bytes; found {data.size}"
        )
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(width)
    upper = (data.reshape(-1, 1) >> shifts) << np.uint8(8 - width)  # the code in the top bits of its own byte
    signed = upper.astype(np.uint8).view(np.int8) >> np.int8(8 - width)  # and back, which repeats the sign
    return signed.reshape(-1)[:size].reshape(shape)


def _per_byte(width: int) -> int:
    if width not in WIDTHS:
        raise QuantizationError(f"codes of {width} bits cannot be packed; choose 2, 4 or 8")
    return 8 // width
