"""What calibration keeps of a stream of activations: the states that a calibrator reads its range off.

In: arrays of one tensor's values, in any number of pieces. A state takes constant memory and holds exact sums: it does
not depend on the order of what it saw, and `a.merge(b)` equals having seen both, so that shards of the data can be
calibrated apart, on processes or machines, and joined. `calibrators` holds the choices made from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eightbit.errors import CalibrationError

HALF = 4096
"""Bins on each side of zero. The largest magnitude seen always lies beyond bin HALF / 2."""

Limits = tuple[float, float]


@dataclass
class Extremes:
    """The smallest and the largest value seen."""

    lo: float = np.inf
    hi: float = -np.inf

    def update(self, x: NDArray[np.float32]) -> None:
        """Take in float32 values of any shape; a NaN or Inf raises CalibrationError."""
        if x.size == 0:
            return
        lo, hi = float(x.min()), float(x.max())
        if not (np.isfinite(lo) and np.isfinite(hi)):
            raise CalibrationError(f"found NaN or Inf in an array of shape {x.shape}")
        self.lo, self.hi = min(self.lo, lo), max(self.hi, hi)

    def merge(self, other: Extremes) -> Extremes:
        """A new state that has seen what both have seen."""
        return Extremes(min(self.lo, other.lo), max(self.hi, other.hi))

    @property
    def peak(self) -> float:
        """The largest magnitude; 0 where nothing was seen."""
        return max(0.0, self.hi, -self.lo)


ULP_BITS = 149
"""Every float32 is a whole number of 2**-149, the smallest subnormal."""


@dataclass
class MeanExtremes:
    """The extremes of each sample, summed: one `update` is one sample.

    The sums are Python integers in units of 2**-149, in which every float32 is whole; so they are exact, and neither
    the order of the samples nor the joining of shards rounds anything.
    """

    lo_sum: int = 0
    hi_sum: int = 0
    samples: int = 0

    def update(self, x: NDArray[np.float32]) -> None:
        """Take in one sample's float32 values, any shape; a NaN or Inf raises CalibrationError."""
        one = Extremes()
        one.update(x)
        if x.size:
            self.lo_sum += int(np.ldexp(one.lo, ULP_BITS))  # below 2**278: exact in float64, and then in int
            self.hi_sum += int(np.ldexp(one.hi, ULP_BITS))
            self.samples += 1

    def merge(self, other: MeanExtremes) -> MeanExtremes:
        """A new state that has seen what both have seen."""
        return MeanExtremes(
            self.lo_sum + other.lo_sum, self.hi_sum + other.hi_sum, self.samples + other.samples
        )

    @property
    def means(self) -> Limits:
        """The mean smallest and the mean largest value of a sample, each rounded once to float64."""
        units = self.samples << ULP_BITS
        return self.lo_sum / units, self.hi_sum / units

    @property
    def peak(self) -> float:
        """The larger magnitude of the two means; 0 where nothing was seen."""
        return max(map(abs, self.means)) if self.samples else 0.0


@dataclass
class Histogram:
    """Counts of magnitudes in HALF bins on each side of zero; exact zeros and the extremes are kept apart.

    The bin width is the power of two that the largest magnitude needs. When a larger one arrives the width doubles
    and neighbours are added in pairs; the bins of the finer grid nest in the coarser one, so this is exact, and
    the counts depend on the values seen and on nothing else.
    """

    exponent: int | None = None  # the bin width is 2**exponent; None until something other than zero is seen
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * HALF, np.int64))
    zeros: int = 0
    extremes: Extremes = field(default_factory=Extremes)

    def update(self, x: NDArray[np.float32]) -> None:
        """Take in float32 values of any shape; a NaN or Inf raises CalibrationError."""
        seen = Extremes()
        seen.update(x)
        self.extremes = self.extremes.merge(seen)
        values = x.ravel()
        nonzero = int(np.count_nonzero(values))
        self.zeros += values.size - nonzero
        if nonzero == 0:
            return
        self._widen(_exponent_for(max(-seen.lo, seen.hi)))
        assert self.exponent is not None
        index = np.ldexp(np.abs(values), -self.exponent).astype(
            np.int64
        )  # truncation is the floor of a magnitude
        if seen.lo < 0:
            index ^= -(values < 0).astype(np.int64)  # bin i of a negative value is -1 - i
        counts = np.bincount(index + HALF, minlength=2 * HALF)
        counts[HALF] -= values.size - nonzero
        self.counts = self.counts + counts

    def _widen(self, exponent: int) -> None:
        if self.exponent is None:
            self.exponent = exponent
        while self.exponent < exponent:
            halved = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(halved, HALF // 2)
            self.exponent += 1

    def merge(self, other: Histogram) -> Histogram:
        """A new state that has seen what both have seen."""
        a = Histogram(self.exponent, self.counts, self.zeros, self.extremes)
        b = Histogram(other.exponent, other.counts, other.zeros, other.extremes)
        if a.exponent is not None and b.exponent is not None:
            a._widen(b.exponent)
            b._widen(a.exponent)
        exponent = a.exponent if a.exponent is not None else b.exponent
        return Histogram(exponent, a.counts + b.counts, a.zeros + b.zeros, a.extremes.merge(b.extremes))

    @property
    def peak(self) -> float:
        """The largest magnitude; 0 where nothing was seen."""
        return self.extremes.peak

    def within(self, lo: float, hi: float) -> Histogram:
        """What it would have seen of values cut off at `lo` and `hi`, to within a bin; zero lies between them."""
        inside = (self.centers >= lo) & (self.centers <= hi)
        first, last = np.flatnonzero(inside)[[0, -1]]
        counts = np.where(inside, self.counts, 0)
        counts[first] += self.counts[:first].sum()
        counts[last] += self.counts[last + 1 :].sum()
        extremes = Extremes(max(self.extremes.lo, lo), min(self.extremes.hi, hi))
        return Histogram(self.exponent, counts, self.zeros, extremes)

    @property
    def centers(self) -> NDArray[np.float64]:
        """The middle of each bin in the units of the data, (2 * HALF,)."""
        return np.asarray((np.arange(-HALF, HALF) + 0.5) * 2.0 ** (self.exponent or 0), np.float64)

    def occupied(self, groups: int = 2048) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centers and counts of the bins that hold something, in about `groups` bins; zeros left out."""
        first, last = np.flatnonzero(self.counts)[[0, -1]]
        step = max(1, int(2 ** np.floor(np.log2(max(1, (last - first + 1) / groups)))))
        counts = self.counts.reshape(-1, step).sum(axis=1)
        centers = self.centers.reshape(-1, step).mean(axis=1)
        keep = counts > 0
        return centers[keep], counts[keep].astype(np.float64)


def _exponent_for(largest: float) -> int:
    return int(np.frexp(largest)[1]) - int(np.log2(HALF))  # largest < 2**frexp_exponent, strictly


class State(Protocol):
    """What a calibrator's stream fills."""

    @property
    def peak(self) -> float:
        """The largest magnitude that a range read off it can have."""

    def update(self, x: NDArray[np.float32]) -> None:
        """Take in float32 values of any shape; a NaN or Inf raises CalibrationError."""

    def merge(self, other: Any) -> Any:
        """A new state that has seen what both have seen."""
