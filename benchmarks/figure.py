"""One measured figure, beside the bound that the project promises for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`value` in `unit`, and `detail` that says what was measured.

    `bound` is the largest value that keeps the promise, or with `at_least` the smallest.
    """

    name: str
    value: float
    bound: float
    unit: str
    detail: str
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the promise is kept."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound
