"""Calibrators: what a stream of activations tells about the range to give them.

In: arrays of one tensor's values, in any number of pieces. Out: the limits (lo, hi) that its codes shall span.
Each calibrator is two things: a small frozen *choice* (`MinMax()`, `Percentile(99.99)`, `MSE()`), which a recipe
holds, and a *state* that the stream fills (`Extremes`, `Histogram`). A state takes constant memory and holds exact
sums: the result does not depend on how the stream was cut into batches, nor on their order, and `a.merge(b)`
equals having seen both. Chapter 5 sets the choices against each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import IntType, params_from_range
from eightbit.errors import CalibrationError, QuantizationError

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

    def update(self, x: NDArray[np.float32]) -> None:
        """Take in float32 values of any shape; a NaN or Inf raises CalibrationError."""

    def merge(self, other: Any) -> Any:
        """A new state that has seen what both have seen."""


class Calibrator(Protocol):
    """The choice of a range: makes a state, and reads the limits off it."""

    def state(self) -> State:
        """An empty state for one tensor's stream."""

    def limits(self, state: Any, itype: IntType, symmetric: bool) -> Limits:
        """The range (lo, hi) for codes of `itype`; CalibrationError if the state has seen nothing."""

    def row_limits(self, rows: NDArray[np.float32], itype: IntType) -> NDArray[np.float64]:
        """The same choice for weights: the largest magnitude (C,) that the codes of each row of (C, K) shall span."""


@dataclass(frozen=True)
class MinMax:
    """Everything seen fits: no value is clipped, and one outlier coarsens all the others."""

    def state(self) -> Extremes:
        """An empty state."""
        return Extremes()

    def limits(self, state: Extremes, itype: IntType, symmetric: bool) -> Limits:
        """The range (lo, hi); see the class."""
        return _seen(state)

    def row_limits(self, rows: NDArray[np.float32], itype: IntType) -> NDArray[np.float64]:
        """The largest magnitude of each row's codes, (C,); see the class."""
        return np.abs(rows).max(axis=1).astype(np.float64)


@dataclass(frozen=True)
class Percentile:
    """The middle `keep` per cent of the values fit; half of the rest is clipped at each end.

    The cut falls on a bin's edge and never beyond the extremes. Source: Wu et al. 2020, arXiv 2004.09602, section 3.3.
    """

    keep: float = 99.999

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 100:
            raise QuantizationError(f"Percentile(keep={self.keep}): keep must lie in (0, 100]")

    def state(self) -> Histogram:
        """An empty state."""
        return Histogram()

    def limits(self, state: Histogram, itype: IntType, symmetric: bool) -> Limits:
        """The range (lo, hi); see the class."""
        lo, hi = _seen(state.extremes)
        if state.exponent is None:
            return lo, hi
        counts = state.counts.copy()
        counts[HALF] += state.zeros
        below = np.cumsum(counts)
        tail = int(below[-1]) * (1 - self.keep / 100) / 2
        width = 2.0**state.exponent
        first = int(np.searchsorted(below, tail, side="right"))
        last = int(np.searchsorted(below, below[-1] - tail, side="left"))
        return max(lo, (first - HALF) * width), min(hi, (last + 1 - HALF) * width)

    def row_limits(self, rows: NDArray[np.float32], itype: IntType) -> NDArray[np.float64]:
        """The largest magnitude of each row's codes, (C,); see the class."""
        return np.percentile(np.abs(rows), self.keep, axis=1).astype(np.float64)


@dataclass(frozen=True)
class MSE:
    """The limits that make the mean squared error of the codes smallest, found by a search on the histogram.

    Candidates shrink each end in `steps` steps from the extremes to a twentieth of them, first both ends alike, then
    one at a time. Source: Nagel et al. 2021, arXiv 2106.08295, equation 19; `norm` 2.4 as in Choukroun et al.'s and
    later implementations weighs large errors more than the plain square.
    """

    steps: int = 100
    norm: float = 2.0

    def __post_init__(self) -> None:
        if self.steps < 2 or self.norm <= 0:
            raise QuantizationError(
                f"MSE(steps={self.steps}, norm={self.norm}): steps >= 2 and norm > 0 are needed"
            )

    def state(self) -> Histogram:
        """An empty state."""
        return Histogram()

    def limits(self, state: Histogram, itype: IntType, symmetric: bool) -> Limits:
        """The range (lo, hi); see the class."""
        lo, hi = _seen(state.extremes)
        if state.exponent is None:
            return lo, hi
        centers, counts = state.occupied()
        fractions = np.linspace(1.0, 0.05, self.steps)

        def error(lo: float, hi: float) -> float:
            return code_error(centers, counts, lo, hi, itype, symmetric, self.norm)

        def best(candidates: Iterable[Limits]) -> Limits:
            return min(candidates, key=lambda limits: error(*limits))

        if lo >= 0 or hi <= 0 or symmetric:
            return best((lo * f, hi * f) for f in fractions)
        limits = best((lo * f, hi * f) for f in fractions)
        for _ in range(2):
            limits = best((lo * f, limits[1]) for f in fractions)
            limits = best((limits[0], hi * f) for f in fractions)
        return limits

    def row_limits(self, rows: NDArray[np.float32], itype: IntType) -> NDArray[np.float64]:
        """The largest magnitude of each row's codes, (C,); see the class."""
        largest = np.abs(rows).max(axis=1)
        best = np.full(len(rows), np.inf)
        limit = largest.copy()
        for fraction in np.linspace(1.0, 0.2, self.steps, dtype=np.float32):
            step = np.maximum(largest * fraction / itype.qmax, np.finfo(np.float32).tiny)[:, None]
            error = np.abs(rows - np.clip(np.rint(rows / step), itype.qmin, itype.qmax) * step)
            total = (error**self.norm).sum(axis=1, dtype=np.float64)
            limit = np.where(total < best, largest * fraction, limit)
            best = np.minimum(total, best)
        return limit.astype(np.float64)


def code_error(
    x: NDArray[np.float64],
    weight: NDArray[np.float64],
    lo: float,
    hi: float,
    itype: IntType,
    symmetric: bool,
    norm: float = 2.0,
) -> float:
    """Sum of `weight * |x - dequantize(quantize(x))| ** norm` over values `x` (N,), codes spanning [lo, hi]."""
    params = params_from_range(lo, hi, itype, symmetric=symmetric)
    scale, zero_point = float(params.scale), int(params.zero_point)
    codes = np.clip(np.rint(x / scale) + zero_point, itype.qmin, itype.qmax)
    return float(weight @ np.abs(x - (codes - zero_point) * scale) ** norm)


def _seen(extremes: Extremes) -> Limits:
    if extremes.lo > extremes.hi:
        raise CalibrationError("no value was seen; give at least one calibration sample")
    return extremes.lo, extremes.hi
