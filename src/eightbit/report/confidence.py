"""How sure a share or a difference of accuracies is, from counts alone.

In: how many of n images agree, or which of them each of two models names rightly; or differences from several
trainings. Out: frozen values that hold the estimate and its interval. The two models see the same images, so their
difference is judged on the images where they part, which is a far sharper test than two separate accuracies would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import ceil, comb, cos, inf, pi, sin, sqrt
from statistics import NormalDist, fmean, stdev

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
"""The standard normal quantile of a two-sided interval of LEVEL: 1.96."""
MARGIN = 0.005
"""The loss of accuracy that is still taken for none, as a share: half a point."""
POWER = 0.8
"""How often the number of images in `NonInferiority.images_needed` would settle the question."""


@dataclass(frozen=True)
class Share:
    """`count` of `total`, and the Wilson score interval (lo, hi) of the share at LEVEL."""

    count: int
    total: int
    lo: float
    hi: float

    @property
    def value(self) -> float:
        """The share itself, 0 to 1."""
        return self.count / self.total


def share(count: int, total: int) -> Share:
    """The share of `count` in `total` with its interval.

    Source: Wilson, "Probable inference", JASA 22 (1927), 209-212.

    >>> s = share(98, 100)
    >>> f"{s.value:.2f} [{s.lo:.3f}, {s.hi:.3f}]"
    '0.98 [0.930, 0.994]'
    """
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"{count} of {total} is no share; 0 <= count <= total and total > 0 are needed")
    p = count / total
    middle = (p + Z * Z / (2 * total)) / (1 + Z * Z / total)
    half = Z / (1 + Z * Z / total) * sqrt(p * (1 - p) / total + Z * Z / (4 * total * total))
    return Share(count, total, max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class PairedAccuracy:
    """Two models on the same `total` labelled images.

    `lost` images only the float model names rightly, `won` only the int8 model; (lo, hi) is the interval of
    `delta` at LEVEL.
    """

    total: int
    float_right: int
    lost: int
    won: int
    lo: float
    hi: float

    @property
    def float_accuracy(self) -> float:
        """Share of the images that the float model names rightly."""
        return self.float_right / self.total

    @property
    def int8_accuracy(self) -> float:
        """Share of the images that the int8 model names rightly."""
        return (self.float_right - self.lost + self.won) / self.total

    @property
    def delta(self) -> float:
        """Accuracy of the int8 model minus that of the float model."""
        return (self.won - self.lost) / self.total

    @property
    def p_value(self) -> float:
        """Chance of so uneven a split of the parted images if neither model were better: McNemar's exact test.

        Source: McNemar, Psychometrika 12 (1947), 153-157; exact form by the binomial(lost + won, 1/2).
        """
        parted, fewer = self.lost + self.won, min(self.lost, self.won)
        tail = sum(comb(parted, k) for k in range(fewer + 1))
        return min(1.0, 2 * tail / 2**parted)


def paired(*, total: int, float_right: int, lost: int, won: int) -> PairedAccuracy:
    """Difference of two accuracies on the same images, with the adjusted Wald interval for matched pairs.

    Half an image is added to each of the four cells, so that the interval keeps its coverage for small counts
    and is not empty when the models never part. Source: Agresti and Min, "Simple improved confidence intervals
    for comparing matched proportions", Statistics in Medicine 24 (2005), 729-740.

    >>> p = paired(total=10_000, float_right=9_200, lost=40, won=30)
    >>> f"{p.delta:+.4f} [{p.lo:+.4f}, {p.hi:+.4f}]"
    '-0.0010 [-0.0027, +0.0007]'
    """
    if total <= 0 or not 0 <= lost <= float_right <= total - won or won < 0:
        raise ValueError(
            f"total={total}, float_right={float_right}, lost={lost}, won={won} fit no {total} images"
        )
    b, c, n = lost + 0.5, won + 0.5, total + 2
    middle = (c - b) / n
    half = Z * sqrt(b + c - (c - b) ** 2 / n) / n
    return PairedAccuracy(total, float_right, lost, won, max(-1.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class MeanOfRuns:
    """The mean of what `count` independent runs gave, and its interval (lo, hi) at LEVEL."""

    count: int
    mean: float
    lo: float
    hi: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.lo:+.2f}, {self.hi:+.2f}]"


def mean_of_runs(values: Sequence[float]) -> MeanOfRuns:
    """The mean of `values`, one of each run, with Student's t interval; of a pair of trainings give the difference.

    The chance of a training is in it, and that of the images only as far as the runs saw others: on one test set they
    did not. Source: Student, "The probable error of a mean", Biometrika 6 (1908), 1-25.

    >>> print(mean_of_runs([1.0, 1.5, 0.8]))
    +1.10 [+0.20, +2.00]
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} run(s) say nothing of their spread; give two or more")
    mean, half = fmean(values), t_quantile(len(values) - 1) * stdev(values) / sqrt(len(values))
    return MeanOfRuns(len(values), mean, mean - half, mean + half)


def t_quantile(degrees: int) -> float:
    """What a Student variable of so many degrees of freedom, 1 or more, stays within at LEVEL, above and below 0.

    >>> f"{t_quantile(4):.3f}"
    '2.776'
    """
    lo, hi = 0.0, pi / 2
    for _ in range(60):
        middle = (lo + hi) / 2
        lo, hi = (middle, hi) if _within(middle, degrees) < LEVEL else (lo, middle)
    return sqrt(degrees) * sin(lo) / cos(lo)


def _within(angle: float, degrees: int) -> float:
    """The chance that |t| < sqrt(degrees) tan(angle). Source: Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd = degrees % 2
    term = cos(angle) if odd else 1.0
    total = 0.0
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= cos(angle) ** 2 * (k - 1) / k
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


class Verdict(Enum):
    """What the images say about a loss of accuracy larger than the margin."""

    NO_WORSE = "no worse"
    WORSE = "worse"
    UNDECIDED = "not enough images to say"


@dataclass(frozen=True)
class NonInferiority:
    """The test whether the int8 model loses less than `margin`, a share, of the float model's accuracy.

    `z` is Tango's score for a true loss of just `margin`: above +1.96 such a loss is refuted, and with it every larger
    one (no worse); below -1.96 every smaller loss is refuted (worse). Each is a one-sided test at half of 1 - LEVEL,
    2.5 %, the size at which it agrees with a two-sided interval of LEVEL. Source: ICH E9, "Statistical principles for
    clinical trials" (1998), sections 3.3.2 and 5.5.
    """

    margin: float
    z: float
    total: int

    @property
    def verdict(self) -> Verdict:
        """What the images say."""
        if abs(self.z) < Z:
            return Verdict.UNDECIDED
        return Verdict.NO_WORSE if self.z > 0 else Verdict.WORSE

    @property
    def images_needed(self) -> int | None:
        """About so many images would decide the test, POWER of the time, if their shares are those seen here.

        The score grows with the square root of the number of images. None if no number would: the loss seen is just
        the margin.
        """
        wanted = Z + NormalDist().inv_cdf(POWER)
        needed = self.total * (wanted / self.z) ** 2 if self.z else inf
        return None if needed > 1e12 else ceil(needed)

    def __str__(self) -> str:
        asked = f"no worse than {100 * self.margin:g} points"
        if self.verdict is not Verdict.UNDECIDED:
            return f"{asked}: {self.verdict.value}"
        needed = f"about {self.images_needed:,} would" if self.images_needed else "no number would"
        return f"{asked}: {self.verdict.value}; {needed}"


def no_worse(p: PairedAccuracy, margin: float = MARGIN) -> NonInferiority:
    """Test that the int8 model's accuracy lies less than `margin` (a share, 0 < margin < 1) below the float model's.

    Under a true difference of -margin the most likely share q of images that only the float model names rightly
    solves A q^2 + B q + C = 0 with A = 2 n, B = -(b + c) - (2 n + b - c) margin and C = b margin (1 + margin), where
    b = lost and c = won; the score is (c - b + n margin) / sqrt(n (2 q - margin (1 + margin))). Unlike a Wald test it
    keeps its size when hardly any image parts the models. Source: Tango, "Equivalence test and confidence interval
    for the difference in proportions for the paired-sample design", Statistics in Medicine 17 (1998), 891-908.

    >>> print(no_worse(paired(total=10_000, float_right=9_200, lost=40, won=30)))
    no worse than 0.5 points: no worse
    >>> print(no_worse(paired(total=200, float_right=180, lost=1, won=1)))
    no worse than 0.5 points: not enough images to say; about 3,777 would
    """
    if not 0 < margin < 1:
        raise ValueError(
            f"margin={margin} is no loss of accuracy; give a share, such as 0.005 for half a point"
        )
    n, b, c = p.total, p.lost, p.won
    linear = -(b + c) - (2 * n + b - c) * margin
    root = sqrt(max(0.0, linear * linear - 8 * n * b * margin * (1 + margin)))
    q = (root - linear) / (4 * n)
    variance = n * (2 * q - margin * (1 + margin))
    return NonInferiority(margin, (c - b + n * margin) / sqrt(variance), n)
