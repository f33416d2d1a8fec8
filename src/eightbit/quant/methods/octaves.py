"""How the values of a tensor lie in size: by powers of two, with what is far below all others told apart.

A state like those of `observers`, for a question that no range answers: whether the tensor is a mask. It takes constant
memory, and minus infinity, and does not depend on the order of what it saw.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LOWEST = -149
"""The power of two of float32's smallest subnormal."""
OCTAVES = 128 - LOWEST + 2
"""Places for every power of two that a float32 can have, and one for infinity."""
FAR = 16.0
"""exp(-16) is 1e-7 of the largest term: what lies so far below adds nothing that float32 keeps to a Softmax."""
GAP = 4.0
"""How many times larger than any other value the far ones are."""


@dataclass
class Octaves:
    """Counts of negative values by power of two, and the largest of the others, None if there was none."""

    negative: NDArray[np.int64] = field(default_factory=lambda: np.zeros(OCTAVES, np.int64))
    highest: float | None = None

    def update(self, x: NDArray[np.float32]) -> None:
        """Take in float32 values of any shape, infinities included."""
        below = x[x < 0]
        _, exponents = np.frexp(below)  # 2**(e-1) <= |x| < 2**e; 0 for infinity
        places = np.where(np.isinf(below), OCTAVES - 1, exponents - LOWEST)
        self.negative = self.negative + np.bincount(places, minlength=OCTAVES)
        if below.size < x.size:
            highest = float(x.max())
            self.highest = highest if self.highest is None else max(self.highest, highest)

    def merge(self, other: Octaves) -> Octaves:
        """A new state that has seen what both have seen."""
        seen = [h for h in (self.highest, other.highest) if h is not None]
        return Octaves(self.negative + other.negative, max(seen, default=None))

    @property
    def masks(self) -> bool:
        """Whether the values are those of a mask: some beyond -FAR and GAP times beyond all others, and some others.

        Sizes are compared by octaves, so that a gap of less than 4 * GAP may go unseen.
        """
        near = self.highest
        for place in np.flatnonzero(self.negative):
            smallest = np.ldexp(0.5, int(place) + LOWEST)  # of the octave
            if near is not None and smallest >= max(FAR, GAP * near):
                return True
            near = max(2 * smallest, near or 0.0)
        return False

    @property
    def silent(self) -> bool:
        """Whether nothing but zeros was seen: a mask that hid nothing, if it stands where masks do."""
        return self.highest == 0 and not self.negative.any()


def is_mask(array: NDArray[np.float32]) -> bool:
    """Whether the values of `array` are those of a mask (see `Octaves.masks`).

    >>> is_mask(np.float32([[0, -1e4], [0, 0]])), is_mask(np.float32([[0, -1], [-2, -40]]))
    (True, True)
    >>> is_mask(np.float32([[0, -1], [-4, -16]]))
    False
    """
    seen = Octaves()
    seen.update(array)
    return seen.masks
