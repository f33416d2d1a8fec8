"""One measured figure, beside the bound that the project promises for it, and the machine that it was measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version

from eightbit.graph.processor import processor_name

LIBRARIES = ("numpy", "onnxruntime", "torch")


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


def machine() -> str:
    """The processor and the libraries, in a line."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return f"{processor_name()}, {os.cpu_count()} cores; Python {platform.python_version()}, {libraries}"
