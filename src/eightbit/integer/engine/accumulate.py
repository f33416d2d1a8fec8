"""Exact integer matrix products through the float units of BLAS.

A float32 holds every integer up to 2^24 exactly, so a float32 product of integer matrices is exact, in whatever order
it is summed, as long as the sum of the magnitudes of its terms stays at or below 2^24. The weights are constant, so
that bound is known: with codes in [-128, 127] it is `128 * sum|w|` for each output channel. Where K is too long it is
cut into chunks that satisfy the bound, added up in float64, which is exact up to 2^53. Where codes or weights have 16
bits a chunk would be a few products long, so the whole product is taken in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eightbit.integer.program import Codes, TensorInfo

FLOAT32_EXACT = 2**24
FLOAT64_EXACT = 2**53


def magnitude(x: TensorInfo) -> int:
    """The largest magnitude of a code of `x`: 128 or 32,768."""
    return -x.itype.qmin


@dataclass(frozen=True, eq=False)
class ExactWeight:
    """A constant matrix of codes made ready for exact products with codes; see `exact_weight`.

    `chunks` are pairs of a slice of K and the weight, in float32, or in float64 for products of 16 bits. `bias` is what
    is still to be added to their sum: None if the weight's last column holds it, to meet a row of ones in the codes.
    """

    chunks: tuple[tuple[slice, NDArray[np.floating]], ...]
    bias: NDArray[np.float64] | None

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The float type that the codes are to be given in."""
        return self.chunks[0][1].dtype

    @property
    def ones(self) -> bool:
        """Whether the codes need a last row of ones."""
        return self.bias is None


def exact_weight(weight: Codes, bias: NDArray[np.integer], zero_point: int, *, largest: int) -> ExactWeight:
    """Prepare `weight` (..., O, K), applied from the left, with `bias` (..., O), for codes of `zero_point`.

    The input's zero point goes into the bias: sum w (q - z) = sum w q - z sum w. `largest` is the largest magnitude
    of what the weight will be multiplied with (`magnitude`).
    """
    w = weight.astype(np.int64)
    wide = weight.dtype == np.int16 or largest > 255
    dtype: type[np.floating] = np.float64 if wide else np.float32
    exact = FLOAT64_EXACT if wide else FLOAT32_EXACT
    folded = bias.astype(np.int64) - zero_point * w.sum(-1)
    terms = np.abs(w) * largest
    if (terms.sum(-1) + np.abs(folded)).max(initial=0) <= exact:
        augmented = np.concatenate([w, folded[..., None]], axis=-1).astype(dtype)
        return ExactWeight(((slice(0, w.shape[-1] + 1), augmented),), None)
    running = np.cumsum(terms.reshape(-1, w.shape[-1]), axis=-1)
    chunks, begin, spent = [], 0, np.zeros((running.shape[0], 1), np.int64)
    while begin < w.shape[-1]:
        fits = (running[:, begin:] - spent).max(0) <= exact  # a prefix: the sums only grow
        end = begin + max(1, int(fits.sum()))
        chunks.append((slice(begin, end), weight[..., begin:end].astype(dtype)))
        spent, begin = running[:, end - 1 : end], end
    return ExactWeight(tuple(chunks), folded.astype(np.float64))


def accumulate(weight: ExactWeight, codes: NDArray[np.floating]) -> NDArray[np.floating]:
    """The accumulators (..., O, P) of codes (..., K, P), bias included: integers, held in float32 or float64.

    With `weight.ones`, `codes` has K + 1 rows and the last one is all ones.
    """
    if weight.bias is None:
        result: NDArray[np.floating] = np.matmul(weight.chunks[0][1], codes)
        return result
    total = np.zeros((), np.float64) + weight.bias[..., None]
    for rows, part in weight.chunks:
        total = total + np.matmul(part, codes[..., rows, :])
    return total
