"""Sliding windows over (N, C, H, W): padding, and the view of all windows. Their numbers: `arith.windows`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.windows import window_count


def pad_spatial(
    x: NDArray, pads: tuple[int, ...], value: float, dtype: np.dtype | type | None = None
) -> NDArray:
    """`x` (N, C, H, W) with `pads` (top, left, bottom, right) filled with `value`, as `dtype`; a copy."""
    top, left, bottom, right = pads
    n, c, h, w = x.shape
    shape = (n, c, h + top + bottom, w + left + right)
    padded = np.empty(shape, dtype or x.dtype)
    if any(pads):
        padded[:, :, :top], padded[:, :, top + h :] = value, value
        padded[:, :, :, :left], padded[:, :, :, left + w :] = value, value
    padded[:, :, top : top + h, left : left + w] = x
    return padded


def windows(
    x: NDArray, kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> NDArray:
    """All windows of padded `x` (N, C, H, W), as a view (N, C, kh, kw, OH, OW)."""
    n, c, h, w = x.shape
    (kh, kw), (sh, sw), (dh, dw) = kernel, strides, dilations
    oh, ow = window_count(h, kh, sh, (0, 0), dh), window_count(w, kw, sw, (0, 0), dw)
    bn, bc, bh, bw = x.strides
    return np.lib.stride_tricks.as_strided(
        x, (n, c, kh, kw, oh, ow), (bn, bc, bh * dh, bw * dw, bh * sh, bw * sw), writeable=False
    )
