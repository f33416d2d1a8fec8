"""Where the codes of a tensor lie: a buffer, and which axis runs fastest in it.

The graph's images have their channels second, the kernels' have them last. So the order of the axes in memory is kept
beside the shape: a Transpose moves nothing, a Reshape moves codes only where the order matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

Order = tuple[int, ...]


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
    def laid(self) -> tuple[int, ...]:
        """The lengths of the axes from the slowest in memory to the fastest."""
        return tuple(self.shape[axis] for axis in self.order)

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

    def left(self, axes: Sequence[int], *, keep: bool) -> Order:
        """The order of what a reduction over `axes` leaves where it is; with `keep` they stay, with length 1."""
        left = [axis for axis in self.order if keep or axis not in axes]
        return tuple(sorted(left).index(axis) for axis in left)

    def _long(self, order: Order) -> list[int]:
        return [axis for axis in order if self.shape[axis] != 1]


def in_order(rank: int) -> Order:
    """The first axis slowest, the last one fastest."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """Batch, space, channels."""
    return (0, *range(2, rank), 1) if rank > 1 else in_order(rank)
