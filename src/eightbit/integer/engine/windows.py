"""Sliding windows over (N, C, ...): padding, and the view of all windows. Their numbers: `arith.windows`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.windows import window_count


def pad_spatial(
    x: NDArray, pads: tuple[int, ...], value: float, dtype: np.dtype | type | None = None
) -> NDArray:
    """`x` (N, C, ...) with `pads` (begins, then ends) filled with `value`, as `dtype`; a copy."""
    axes = x.ndim - 2
    ends = list(zip(pads[:axes], pads[axes:], x.shape[2:], strict=True))
    padded = np.empty((*x.shape[:2], *(before + n + after for before, after, n in ends)), dtype or x.dtype)
    if any(pads):
        for axis, (before, _, n) in enumerate(ends, start=2):
            along = (slice(None),) * axis
            padded[(*along, slice(before))] = padded[(*along, slice(before + n, None))] = value
    padded[(slice(None), slice(None), *(slice(before, before + n) for before, _, n in ends))] = x
    return padded


def windows(x: NDArray, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> NDArray:
    """All windows of padded `x` (N, C, ...), as a view (N, C, taps of each axis, windows along each axis)."""
    axes = list(zip(x.shape[2:], kernel, strides, dilations, strict=True))
    counts = (window_count(n, k, s, (0, 0), d) for n, k, s, d in axes)
    steps = list(zip(x.strides[2:], strides, dilations, strict=True))
    return np.lib.stride_tricks.as_strided(
        x,
        (*x.shape[:2], *kernel, *counts),
        (*x.strides[:2], *(b * d for b, _, d in steps), *(b * s for b, s, _ in steps)),
        writeable=False,
    )
