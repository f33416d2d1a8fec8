"""Where the codes of a tensor lie: a buffer, and which axis runs fastest in it.

The graph's images have their channels second, the kernels' have them last. So the order of the axes in memory is kept
beside the shape: a Transpose moves nothing, a Reshape moves codes only where the order matters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from eightbit.errors import ExportError

RANK = 6
"""Axes that a kernel walks over (EB_RANK), after those that lie alike in all its operands are taken together."""

Order = tuple[int, ...]
Walk = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class View:
    """`shape` is the tensor's in the graph; `order` names its axes from the slowest in memory to the fastest."""

    buffer: str
    shape: tuple[int, ...]
    order: Order

    @property
    def size(self) -> int:
        """How many codes."""
        return int(np.prod(self.shape))

    @property
    def steps(self) -> tuple[int, ...]:
        """How far apart two neighbours along each axis are, in the order of the shape."""
        steps, step = [0] * len(self.shape), 1
        for axis in reversed(self.order):
            steps[axis], step = step, step * self.shape[axis]
        return tuple(steps)

    def lies(self, order: Order) -> bool:
        """Whether the codes are where `order` would have them; axes of length 1 may stand anywhere."""
        return self._long(self.order) == self._long(order)

    def reshaped(self, shape: tuple[int, ...]) -> View:
        """The same codes with another shape; they must lie in the order of the axes."""
        return replace(self, shape=shape, order=in_order(len(shape)))

    def transposed(self, perm: Sequence[int]) -> View:
        """The same bytes, the axes named anew."""
        inverse = {axis: place for place, axis in enumerate(perm)}
        shape = tuple(self.shape[axis] for axis in perm)
        return replace(self, shape=shape, order=tuple(inverse[axis] for axis in self.order))

    def _long(self, order: Order) -> list[int]:
        return [axis for axis in order if self.shape[axis] != 1]


def in_order(rank: int) -> Order:
    """The first axis slowest, the last one fastest."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """Batch, space, channels."""
    return (0, *range(2, rank), 1) if rank > 1 else in_order(rank)


def walk(name: str, shape: Sequence[int], order: Order, *steps: Sequence[int]) -> Walk:
    """Lengths of RANK axes and the steps of each operand along them, for a walk over `shape` in `order`.

    Axes that all operands step over alike become one. Raises ExportError where more than RANK remain.
    """
    dims: list[int] = []
    found: list[list[int]] = [[] for _ in steps]
    for axis in order:
        if shape[axis] == 1:
            continue
        length = shape[axis]
        if dims and all(f[-1] == s[axis] * length for f, s in zip(found, steps, strict=True)):
            dims[-1] *= length
            for f, s in zip(found, steps, strict=True):
                f[-1] = s[axis]
            continue
        dims.append(length)
        for f, s in zip(found, steps, strict=True):
            f.append(s[axis])
    if len(dims) > RANK:
        raise ExportError(f"{name}: a walk over {len(dims)} axes; C takes {RANK}: use fewer axes")
    if not dims:
        dims, found = [1], [[1] for _ in steps]
    room = RANK - len(dims)
    return (1,) * room + tuple(dims), tuple((0,) * room + tuple(f) for f in found)


def runs(index: NDArray[np.integer]) -> Iterator[tuple[int, int, int, int]]:
    """(place, length, first, step) of each stretch of `index` that goes up or down evenly.

    Places of index -1 have no input, and go together.

    >>> list(runs(np.array([0, 0, 0, 1, 2, 2]))), list(runs(np.array([-1, 0, 1])))
    ([(0, 3, 0, 0), (3, 2, 1, 1), (5, 1, 2, 0)], [(0, 1, -1, 0), (1, 2, 0, 1)])
    """
    begin = 0
    while begin < len(index):
        alike = (index >= 0) == (index[begin] >= 0)
        end, step = begin + 1, 0
        while end < len(index) and alike[end] and (end == begin + 1 or index[end] - index[end - 1] == step):
            step = int(index[end] - index[end - 1])
            end += 1
        yield begin, end - begin, int(index[begin]), step
        begin = end


def pieces(maps: Sequence[NDArray[np.integer]]) -> Iterator[tuple[tuple[int, int, int, int], ...]]:
    """The boxes in which every axis of an output follows its input evenly; a run of each axis."""
    return product(*(list(runs(index)) for index in maps))
