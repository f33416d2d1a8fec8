"""Channels that can only go together: a number for each position on an axis, and sets of numbers that are one unit.

Two positions that must be removed together are joined; a position that must stay is fixed, and everything joined to it
with it, for a reason that is kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
"""A number for each position of an axis, (n,). Positions whose numbers were joined are one unit."""
Axes = dict[int, Labels]
"""The axes of a tensor along which positions may be removed; those that are missing stay as they are."""


class Units:
    """Union-find over labels."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reasons: dict[int, str] = {}

    def fresh(self, count: int) -> Labels:
        """Labels (count,) that are joined with nothing."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, label: int) -> int:
        """The number of the unit that `label` belongs to now."""
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label

    def join(self, one: Labels, other: Labels) -> None:
        """Make each pair of labels, (n,) and (n,), one unit; a reason to stay holds for both."""
        for a, b in zip(one.ravel(), other.ravel(), strict=True):
            first, second = sorted((self.root(int(a)), self.root(int(b))))
            if first != second:
                self._parent[second] = first
                reason = self._reasons.pop(second, None)
                if reason is not None:
                    self._reasons.setdefault(first, reason)

    def join_rows(self, table: Labels) -> Labels:
        """Join the labels (m, n) of each column; what stands for the columns, (n,)."""
        for row in table[1:]:
            self.join(table[0], row)
        return np.asarray(table[0])

    def fix(self, labels: Labels, reason: str) -> None:
        """Say that these labels stay, and why; the first reason is kept."""
        for label in np.unique(labels):
            self._reasons.setdefault(self.root(int(label)), reason)

    def reason(self, label: int) -> str | None:
        """Why a label must stay; None if it may go."""
        return self._reasons.get(self.root(label))

    def roots(self, labels: Labels) -> Labels:
        """The units of labels (n,), -1 for those that must stay."""
        return np.array([-1 if self.reason(int(x)) else self.root(int(x)) for x in labels], np.int64)
