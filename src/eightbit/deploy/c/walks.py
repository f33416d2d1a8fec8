"""Walks over codes: the axes that a kernel of C steps along, the boxes in which an output follows its input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from eightbit.deploy.layout.views import Order
from eightbit.errors import ExportError

RANK = 6
"""Axes that a kernel walks over (EB_RANK), after those that lie alike in all its operands are taken together."""

Walk = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]


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
