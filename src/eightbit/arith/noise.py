"""Signal and noise: how far the numbers of a coded tensor lie from those of the exact one.

SQNR = 10 log10(sum x^2 / sum (x - y)^2)   in dB, x exact and y coded
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.errors import EngineError


class Noise:
    """Sums of squares of a signal and of its error, over any number of arrays."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def update(self, reference: NDArray[Any], actual: NDArray[Any]) -> float:
        """Add one pair of arrays of one size; returns the SQNR of the pair alone.

        Where both hold the same infinity there is neither signal nor error. Raises EngineError for NaN, and for an
        infinity in one of them.
        """
        exact, found = reference.astype(np.float64).ravel(), actual.astype(np.float64).ravel()
        if not np.isfinite(exact).all() or not np.isfinite(found).all():
            alike = np.isinf(exact) & (exact == found)
            exact, found = exact[~alike], found[~alike]
            if not (np.isfinite(exact).all() and np.isfinite(found).all()):
                raise EngineError(
                    "NaN, or an infinity in one of the two models alone; look for an overflow in the float model, or "
                    "for such values in the data"
                )
        error = exact - found
        signal, noise = float(exact @ exact), float(error @ error)
        self.signal += signal
        self.noise += noise
        return _in_decibels(signal, noise)

    @property
    def sqnr_db(self) -> float:
        """10 log10(signal / noise): inf without noise, -inf for noise on a silent tensor."""
        return _in_decibels(self.signal, self.noise)


def as_numbers(reference: Any, actual: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """One output of two models for `Noise`: a sequence's tensors one behind the other, strings as equal or not."""
    if isinstance(reference, list) and isinstance(actual, list):
        first, second = (np.concatenate([np.ravel(part) for part in parts]) for parts in (reference, actual))
        return first, second
    if reference.dtype.kind in "OSU" and reference.shape == actual.shape:
        return np.ones(reference.shape), np.asarray(reference == actual, np.float64)
    return reference, actual


def _in_decibels(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def decibels(value: float) -> str:
    """A ratio in dB with one decimal; `exact` where there is no error at all."""
    return "exact" if value == float("inf") else f"{value:.1f}"
