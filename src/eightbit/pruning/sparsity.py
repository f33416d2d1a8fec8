"""How many weights become zero, and which: the least of all layers, of each layer, or n of every m neighbours.

A mask is True where a weight stays. Sources: Han et al. 2015, arXiv 1506.02626 (magnitude); Mishra et al. 2021, arXiv
2104.08378 (2:4); Zhu and Gupta 2017, arXiv 1710.01878 (the cubic schedule); Sanh et al. 2020, arXiv 2005.07683
(movement); Lee et al. 2021, arXiv 2010.07611 (`adaptive`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from eightbit.errors import QuantizationError
from eightbit.values.fields import Between, check

Mask = NDArray[np.bool_]
PATTERN = re.compile(r"([1-9]\d?):([1-9]\d?)")


@dataclass(frozen=True)
class Sparsity:
    """The `share` of all layers' weights that is zero, or a `pattern` such as "2:4".

    With `each_layer` it is the share of each layer. With `adaptive` a weight counts by what it adds to those of its
    layer that are no smaller, w² / (sum of their squares): no layer is emptied, and its scale, which a BatchNorm behind
    it takes away, does not matter. Of a pattern "n:m" at most n of every m weights that follow one another along the
    input channels stay, whatever the share; layers whose input channels m does not divide, such as depthwise ones, stay
    dense. The rest is for training (`eightbit.fit`): between the parts `begin` and `end` of it the share rises to its
    end as 1 - (1 - t)³, and "movement" removes the weights that training draws to zero, "magnitude" those that are
    small.
    """

    share: Annotated[float, Between(0, 0.999)] = 0.5
    pattern: str | None = None
    each_layer: bool = False
    adaptive: bool = False
    method: Literal["magnitude", "movement"] = "magnitude"
    begin: Annotated[float, Between(0, 1)] = 0.0
    end: Annotated[float, Between(0, 1)] = 0.5

    def __post_init__(self) -> None:
        check(self)
        if self.pattern is not None:
            n, m = self.counts
            if n >= m:
                raise QuantizationError(
                    f'Sparsity(pattern={self.pattern!r}): give n:m with n below m, such as "2:4"'
                )
        if self.adaptive and (self.each_layer or self.pattern is not None or self.method != "magnitude"):
            raise QuantizationError(
                "Sparsity(adaptive=True) weighs magnitudes of all layers; leave out each_layer, pattern and method"
            )
        if self.end < self.begin:
            raise QuantizationError(
                f"Sparsity(begin={self.begin:g}, end={self.end:g}): give an end after the begin"
            )

    @property
    def counts(self) -> tuple[int, int]:
        """N and m of the pattern. Raises QuantizationError for a text that is none."""
        found = PATTERN.fullmatch(self.pattern or "")
        if found is None:
            raise QuantizationError(
                f'Sparsity(pattern={self.pattern!r}): give n:m with n below m, such as "2:4"'
            )
        return int(found[1]), int(found[2])

    def at(self, part: float) -> float:
        """The share of zeros after the `part` of a training, from 0 to 1."""
        if part >= self.end:
            return self.share
        return self.share * (1 - (1 - max(0.0, part - self.begin) / (self.end - self.begin)) ** 3)


def masks(
    scores: Mapping[str, NDArray[np.floating]],
    inputs: Mapping[str, int],
    sparsity: Sparsity,
    share: float | None = None,
) -> dict[str, Mask]:
    """Which weights stay: those with the largest `scores` by layer, in their shapes; `inputs` are the input axes.

    `share` takes the place of the sparsity's own. Raises QuantizationError where the pattern fits no layer.
    """
    part = sparsity.share if share is None else share
    if sparsity.pattern is not None:
        n, m = sparsity.counts
        found = {name: _of_neighbours(x, inputs[name], n, m) for name, x in scores.items()}
        if all(mask.all() for mask in found.values()):
            raise QuantizationError(
                f"pattern {sparsity.pattern!r} fits no layer: {m} divides the input channels of none; "
                f"they are {', '.join(f'{name!r}: {x.shape[inputs[name]]}' for name, x in list(scores.items())[:4])}"
            )
        return found
    if sparsity.each_layer:
        return {name: _largest(x, part) for name, x in scores.items()}
    compared = [_relative(x).ravel() if sparsity.adaptive else x.ravel() for x in scores.values()]
    flat = _largest(np.concatenate(compared), part)
    parts = np.split(flat, np.cumsum([x.size for x in scores.values()])[:-1])
    return {name: mask.reshape(x.shape) for (name, x), mask in zip(scores.items(), parts, strict=True)}


def _largest(scores: NDArray[np.floating], share: float) -> Mask:
    """True for all but the `share` of least scores."""
    keep = np.ones(scores.size, bool)
    gone = round(share * scores.size)
    if gone:
        keep[np.argpartition(scores.ravel(), gone - 1)[:gone]] = False
    return keep.reshape(scores.shape)


def _relative(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Each score squared, as a part of the squares of those that are no smaller; -inf, for what is gone, stays."""
    flat = scores.ravel()
    squares = np.where(np.isfinite(flat), flat, 0.0).astype(np.float64) ** 2
    order = np.argsort(-squares, kind="stable")
    found = np.empty_like(squares)
    found[order] = squares[order] / np.maximum(np.cumsum(squares[order]), np.finfo(np.float64).tiny)
    return np.where(np.isfinite(flat), found, -np.inf).reshape(scores.shape)


def _of_neighbours(scores: NDArray[np.floating], axis: int, n: int, m: int) -> Mask:
    """True for the n largest of every m scores along `axis`; everywhere if m does not divide it."""
    moved = np.moveaxis(scores, axis, -1)
    if moved.shape[-1] % m:
        return np.ones(scores.shape, bool)
    parts = moved.reshape(*moved.shape[:-1], -1, m)
    keep = np.zeros(parts.shape, bool)
    np.put_along_axis(keep, np.argsort(-parts, axis=-1, kind="stable")[..., :n], True, axis=-1)
    return np.moveaxis(keep.reshape(moved.shape), -1, axis)
