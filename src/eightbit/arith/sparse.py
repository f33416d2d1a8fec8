"""Codes most of which are zero: a bit for each that says whether it is, and the others one behind the other.

Of every eight codes the first takes the lowest bit of a byte; the last byte is filled up with zeros. A pattern of n in
m needs no form of its own: the four bits of a 2:4 group are no more than two places of two bits each.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.packing import pack, unpack
from eightbit.errors import QuantizationError


def sparse_bytes(codes: NDArray[np.integer], width: int) -> int:
    """How many bytes `sparse_parts` takes for codes of `width` bits."""
    return -(-codes.size // 8) + -(-int(np.count_nonzero(codes)) * width // 8)


def sparse_parts(codes: NDArray[np.integer], width: int) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """Codes of any shape as bits, (ceil(size / 8),) uint8, and those that are not 0, packed at 2 or 4 bits.

    >>> where, values = sparse_parts(np.int8([0, 7, 0, 0, -3, 0, 0, 0, 0, 1]), 8)
    >>> where.tolist(), values.tolist()
    ([18, 2], [7, -3, 1])
    """
    flat = codes.ravel()
    values = flat[flat != 0]
    where = np.packbits(flat != 0, bitorder="little")
    return where, pack(values, width) if width < 8 else values


def from_sparse(
    where: NDArray[np.uint8], values: NDArray[np.integer], width: int, shape: tuple[int, ...]
) -> NDArray[np.integer]:
    """The codes of `shape` that `sparse_parts` took apart. Raises QuantizationError if the parts do not fit.

    >>> from_sparse(np.uint8([18, 2]), np.int8([7, -3, 1]), 8, (2, 5)).tolist()
    [[0, 7, 0, 0, -3], [0, 0, 0, 0, 1]]
    """
    size = math.prod(shape)
    if where.dtype != np.uint8 or where.shape != (-(-size // 8),):
        raise QuantizationError(
            f"a map of the zeros among codes of shape {shape} takes {-(-size // 8)} bytes; found {where.size}"
        )
    bits = np.unpackbits(where, bitorder="little")
    count = int(np.count_nonzero(bits))
    if bits[size:].any():
        raise QuantizationError(f"a map of zeros marks codes beyond the {size} of shape {shape}")
    found = unpack(values.view(np.uint8), width, (count,)) if width < 8 else values
    if found.shape != (count,):
        raise QuantizationError(f"a map of zeros has room for {count} other codes; found {found.size}")
    codes = np.zeros(size, found.dtype)
    codes[bits[:size] != 0] = found
    return codes.reshape(shape)
