"""Calibrators: what a stream of activations tells about the range to give them.

In: a state that has seen the stream (`observers`). Out: the limits (lo, hi) that the tensor's codes shall span.
A calibrator is a small frozen value (`MinMax()`, `Percentile(99.99)`, `MSE()`) that a recipe holds: it makes a state,
and reads the limits off it. All look at exact counts or sums, so the limits do not depend on how the stream was
cut, ordered or shared out. Chapter 5 sets them against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import IntType, QuantParams, params_from_range
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.quant.methods.observers import HALF, Extremes, Histogram, Limits, MeanExtremes, State
from eightbit.values.fields import Above, AtLeast, check

DECADES = 30
"""Powers of ten, up or down, that errors in float32 may take: sums of many, and small errors, need the others."""


@runtime_checkable
class Calibrator(Protocol):
    """The choice of a range: makes a state, and reads the limits off it."""

    def state(self) -> State:
        """An empty state for one tensor's stream."""

    def limits(self, state: Any, itype: IntType, symmetric: bool) -> Limits:
        """The range (lo, hi) for codes of `itype`; CalibrationError if the state has seen nothing."""

    def row_limits(self, rows: NDArray[np.float32], itype: IntType) -> NDArray[np.float64]:
        """The same choice for weights: the largest magnitude (C,) that the codes of each row of (C, K) shall span."""


Ranged = Annotated[
    Calibrator,
    "MinMax(), MovingAverage(), Percentile(), MSE(), Entropy() or a value with the methods of Calibrator",
]
"""A field that holds the choice of a range."""


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
class MovingAverage:
    """The mean over the samples of each sample's smallest and largest value: one odd sample moves it a little.

    Frameworks keep an exponential average, which depends on the order of the batches; this is the plain mean, each
    sample counted once, which does not. For weights there is one sample, so it is min-max. Source: Jacob et al.
    2018, arXiv 1712.05877, section 3.1 (there exponential).
    """

    def state(self) -> MeanExtremes:
        """An empty state."""
        return MeanExtremes()

    def limits(self, state: MeanExtremes, itype: IntType, symmetric: bool) -> Limits:
        """The range (lo, hi); see the class."""
        if state.samples == 0:
            raise CalibrationError(_NOTHING)
        return state.means

    def row_limits(self, rows: NDArray[np.float32], itype: IntType) -> NDArray[np.float64]:
        """The largest magnitude of each row's codes, (C,); see the class."""
        return MinMax().row_limits(rows, itype)


@dataclass(frozen=True)
class Percentile:
    """The middle `keep` per cent of the values fit; half of the rest is clipped at each end.

    The cut falls on a bin's edge and never beyond the extremes. Source: Wu et al. 2020, arXiv 2004.09602, section 3.3.
    """

    keep: Annotated[float, Above(0, most=100)] = 99.999

    def __post_init__(self) -> None:
        check(self)

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

    steps: Annotated[int, AtLeast(2)] = 100
    norm: Annotated[float, Above(0, most=10)] = 2.0

    def __post_init__(self) -> None:
        check(self)

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

        def errors(candidates: Sequence[Limits]) -> list[float]:
            return code_errors(centers, counts, candidates, itype, symmetric, self.norm)

        return _search((lo, hi), fractions, errors, together=symmetric)

    def row_limits(self, rows: NDArray[np.float32], itype: IntType) -> NDArray[np.float64]:
        """The largest magnitude of each row's codes, (C,); see the class."""
        largest = np.abs(rows).max(axis=1)
        unit = self._units(largest)
        rows, largest = rows / unit[:, None], largest / unit
        best = np.full(len(rows), np.inf)
        limit = largest.copy()
        for fraction in np.linspace(1.0, 0.2, self.steps, dtype=np.float32):
            step = np.maximum(largest * fraction / itype.qmax, np.finfo(np.float32).tiny)[:, None]
            error = np.abs(rows - np.clip(np.rint(rows / step), itype.qmin, itype.qmax) * step)
            total = (error**self.norm).sum(axis=1, dtype=np.float64)
            limit = np.where(total < best, largest * fraction, limit)
            best = np.minimum(total, best)
        return limit.astype(np.float64) * unit

    def _units(self, largest: NDArray[np.float32]) -> NDArray[np.float32]:
        """In what each row is measured (C,): 1, or its power of two where float32 cannot hold its errors to `norm`."""
        peak = np.where(largest > 0, largest, np.float32(1))
        fits = self.norm * np.abs(np.log10(peak)) < DECADES
        return np.where(fits, 1, np.ldexp(np.float32(1), np.frexp(peak)[1] - 1))


@dataclass(frozen=True)
class Entropy:
    """The limits whose codes keep most of the distribution: the least Kullback-Leibler divergence, by search.

    For each candidate the values outside are moved to the last bin inside (P), what is inside is spread evenly over
    the bins that share a code (Q), and sum P log(P / Q) is compared. Candidates shrink each end in `steps` steps, as
    long as a code spans at least one bin; narrower ones would lose nothing by rounding and win unfairly. A histogram
    with no more bins than codes would leave one candidate, the whole range, and the search would end as min-max
    without a word (onnxruntime issue 9597): types with that many codes are refused. Source: Migacz, 8-bit inference
    with TensorRT, GTC 2017, extended from a threshold to two ends.
    """

    steps: Annotated[int, AtLeast(2)] = 100

    def __post_init__(self) -> None:
        check(self)

    def state(self) -> Histogram:
        """An empty state."""
        return Histogram()

    def limits(self, state: Histogram, itype: IntType, symmetric: bool) -> Limits:
        """The range (lo, hi); see the class. QuantizationError if the histogram is too coarse for `itype`."""
        lo, hi = _seen(state.extremes)
        check_width(self, itype)
        if state.exponent is None:
            return lo, hi
        bins, counts = np.flatnonzero(state.counts), state.counts[state.counts > 0].astype(np.float64)
        width = 2.0**state.exponent
        centers = np.asarray((bins - HALF + 0.5) * width, np.float64)

        def errors(candidates: Sequence[Limits]) -> list[float]:
            every = (params_from_range(*limits, itype, symmetric=symmetric) for limits in candidates)
            return [divergence(centers, counts, p) if float(p.scale) >= width else np.inf for p in every]

        whole = params_from_range(lo, hi, itype, symmetric=symmetric).scale
        smallest = max(0.02, width / float(whole))  # below it no candidate is left
        return _search((lo, hi), np.linspace(1.0, smallest, self.steps), errors, together=symmetric)

    def row_limits(self, rows: NDArray[np.float32], itype: IntType) -> NDArray[np.float64]:
        """The largest magnitude of each row's codes, (C,); see the class. Some milliseconds a row."""
        found = np.zeros(len(rows))
        for index, row in enumerate(rows):
            state = self.state()
            state.update(np.abs(row))
            found[index] = self.limits(state, itype, True)[1]
        return found


def check_width(calibrator: Calibrator, itype: IntType) -> None:
    """Raise QuantizationError where a calibrator cannot find a range for codes of `itype`."""
    if isinstance(calibrator, Entropy) and 4 * (itype.qmax - itype.qmin) > HALF:
        raise QuantizationError(
            f"Entropy has {HALF} bins for the codes of {itype.name}: too few to search; use MSE() instead"
        )


def divergence(centers: NDArray[np.float64], counts: NDArray[np.float64], params: QuantParams) -> float:
    """Kullback-Leibler divergence in nats between a histogram and what the codes of `params` keep of it.

    `centers` (N,) rising and `counts` (N,) > 0 are its bins. Infinite if no bin lies within the codes' range.
    """
    scale, zero_point = float(params.scale), int(params.zero_point)
    codes = np.rint(centers / scale).astype(np.int64) + zero_point
    first = int(np.searchsorted(codes, params.itype.qmin))
    last = int(np.searchsorted(codes, params.itype.qmax, side="right"))
    if first == last:
        return np.inf
    inside, group = counts[first:last], codes[first:last] - params.itype.qmin
    p = inside.copy()
    p[0] += counts[:first].sum()
    p[-1] += counts[last:].sum()
    q = (np.bincount(group, inside) / np.maximum(np.bincount(group), 1))[group]
    p, q = p / p.sum(), q / q.sum()
    return float(p @ np.log(p / q))


Errors = Callable[[Sequence[Limits]], list[float]]


def _search(seen: Limits, fractions: NDArray[np.float64], errors: Errors, *, together: bool) -> Limits:
    """The limits of the least of `errors`, of those that shrink the `seen` ones by `fractions` (falling from 1).

    Both ends alike first, then, unless `together` or one of them is zero, one at a time, twice. Of equals, the widest.
    """

    def best(candidates: Sequence[Limits]) -> Limits:
        found = errors(candidates)
        return candidates[min(range(len(found)), key=found.__getitem__)]

    lo, hi = seen
    steps = fractions.tolist()
    limits = best([(lo * f, hi * f) for f in steps])
    if lo >= 0 or hi <= 0 or together:
        return limits
    for _ in range(2):
        limits = best([(lo * f, limits[1]) for f in steps])
        limits = best([(limits[0], hi * f) for f in steps])
    return limits


def code_error(
    x: NDArray[np.float64],
    weight: NDArray[np.float64],
    lo: float,
    hi: float,
    itype: IntType,
    symmetric: bool,
    norm: float = 2.0,
) -> float:
    """Sum of `weight * |x - dequantize(quantize(x))| ** norm` over values `x` (N,), codes spanning [lo, hi].

    `x` are the centers of a histogram's bins. Where a code is far narrower than a bin, as those of more than 8 bits
    are, the values inside lie evenly between two codes, and each errs by (s/2)**norm / (norm + 1) in the mean.
    """
    return code_errors(x, weight, [(lo, hi)], itype, symmetric, norm)[0]


def code_errors(
    x: NDArray[np.float64],
    weight: NDArray[np.float64],
    ranges: Sequence[Limits],
    itype: IntType,
    symmetric: bool,
    norm: float = 2.0,
) -> list[float]:
    """`code_error` for each of `ranges`. Their parameters are made together: a search tries three hundred a tensor."""
    low, high = np.transpose(ranges)
    params = params_from_range(low, high, itype, symmetric=symmetric, axis=0)

    def wide(scale: float, zero_point: int) -> float:
        beyond = np.maximum(
            x - (itype.qmax - zero_point + 0.5) * scale, (itype.qmin - zero_point - 0.5) * scale - x
        )
        inside = (scale / 2) ** norm / (norm + 1)
        return float(weight @ np.where(beyond > 0, np.maximum(beyond, 0) ** norm, inside))

    def narrow(scale: float, zero_point: int) -> float:
        codes = np.rint(x / scale)
        np.clip(codes, itype.qmin - zero_point, itype.qmax - zero_point, out=codes)
        return float(weight @ np.abs(x - codes * scale) ** norm)

    error = wide if itype.bits > 8 else narrow
    return [error(s, z) for s, z in zip(params.scale.tolist(), params.zero_point.tolist(), strict=True)]


def _seen(extremes: Extremes) -> Limits:
    if extremes.lo > extremes.hi:
        raise CalibrationError(_NOTHING)
    return extremes.lo, extremes.hi


_NOTHING = "no value was seen; give at least one calibration sample in which it holds some"


def predicted_sqnr_db(calibrator: Calibrator, state: Histogram, itype: IntType, symmetric: bool) -> float:
    """What codes in the calibrator's limits would keep of the values seen: their signal to noise ratio in decibels."""
    if state.exponent is None:
        return float("inf")
    return kept_db(calibrator.limits(state, itype, symmetric), state, itype, symmetric)


def kept_db(limits: Limits, state: Histogram, itype: IntType, symmetric: bool) -> float:
    """The same for codes that span `limits`."""
    if state.exponent is None:
        return float("inf")
    centers, counts = state.occupied()
    noise = code_error(centers, counts, *limits, itype, symmetric)
    return float(10 * np.log10(counts @ centers**2 / noise)) if noise > 0 else float("inf")
