"""One measured figure, beside the bound that the project promises for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`value` in `unit`; `bound` is the largest value that keeps the promise; `detail` says what was measured."""

    name: str
    value: float
    bound: float
    unit: str
    detail: str

    @property
    def holds(self) -> bool:
        """Whether the promise is kept."""
        return self.value <= self.bound
