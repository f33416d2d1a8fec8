"""How sure a share or a difference of accuracies is, from counts alone.

In: how many of n images agree, or which of them each of two models names rightly. Out: frozen values that hold
the estimate and its interval. The two models see the same images, so their difference is judged on the images
where they part, which is a far sharper test than two separate accuracies would give.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
"""The standard normal quantile of a two-sided interval of LEVEL: 1.96."""


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
