"""Weights whose products never saturate where a processor adds them in pairs, in int16 (`graph.processor`).

With activations up to 255, two neighbours along the sum are safe if their positive parts sum to at most 128, and the
magnitudes of their negative parts as well: 255 * 128 = 32,640 <= 32,767, and one more is too much.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import IntType

Pairs = NDArray[np.int64]
"""The inputs of a row that a kernel adds first and second, (2, pairs)."""
LARGEST_SUM = 128


def pairs_along(order: NDArray[np.int64]) -> Pairs:
    """The pairs of a sum whose terms a kernel takes in this order, (K,); with K odd the last has no neighbour."""
    even = len(order) // 2 * 2
    return np.stack([order[:even:2], order[1:even:2]])


def partners(pairs: Pairs, inputs: int) -> NDArray[np.int64]:
    """The other of the pair for each input, (K,); one without a neighbour is its own."""
    other = np.arange(inputs)
    other[pairs[0]], other[pairs[1]] = pairs[1], pairs[0]
    return other


def steps_needed(rows: NDArray[np.floating], pairs: Pairs) -> NDArray[np.float64]:
    """The smallest scales with which rows (..., K) fit, before they are rounded: (...)."""
    sides = (np.maximum(rows, 0), np.maximum(-rows, 0))
    sums = [(side[..., pairs[0]] + side[..., pairs[1]]).max(axis=-1, initial=0.0) for side in sides]
    return np.maximum(*sums).astype(np.float64) / LARGEST_SUM


def room(taken: NDArray[np.integer], itype: IntType) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """The smallest and the largest code beside each of the codes `taken`."""
    least = np.maximum(itype.qmin, np.maximum(-taken, 0) - LARGEST_SUM)
    return least, np.minimum(itype.qmax, LARGEST_SUM - np.maximum(taken, 0))


def held(codes: NDArray[np.int32], units: NDArray[Any], pairs: Pairs, itype: IntType) -> NDArray[np.int32]:
    """`codes` (..., K), but in pairs that are too large those nearest to `units`, the weights in steps of their scale.

    Such a pair has one sign, and the nearest codes have the largest sum that there may be, in magnitude: codes a and
    128 - a with a nearest to ``(128 + u - v) / 2`` for the weights u and v.
    """
    first, second = pairs
    sums = codes[..., first] + codes[..., second]
    alike = np.sign(codes[..., first]) * np.sign(codes[..., second]) > 0
    large = alike & (np.abs(sums) > LARGEST_SUM)
    sign = np.sign(sums)
    ahead = sign * (units[..., first] - units[..., second])
    share = np.clip(np.rint((LARGEST_SUM + ahead) / 2), LARGEST_SUM - itype.qmax, itype.qmax)
    result = codes.copy()
    result[..., first] = np.where(large, sign * share, codes[..., first])
    result[..., second] = np.where(large, sign * (LARGEST_SUM - share), codes[..., second])
    return result
