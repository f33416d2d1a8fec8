"""What options take: files, numbers, sizes, constants."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.engines import ENGINES
from eightbit.graph.run import MOST_THREADS


class Number(click.FloatRange):
    """A finite number; NaN lies in every range of click's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or click's complaint."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The numbers as a tuple."""
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no number, or numbers with commas between them.", param, ctx)


class Size(click.ParamType):
    """A side, or height and width with an x between them."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """(height, width)."""
        sides = value.lower().split("x")
        if len(sides) > 2 or not all(side.isdecimal() for side in sides):
            self.fail(f"{value!r} is no size such as 224, or 192x256 (height, width).", param, ctx)
        return int(sides[0]), int(sides[-1])


class Constant(click.ParamType):
    """The name of an input and what it always holds: sr=16000, mask=[true, false]."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """(name, array)."""
        name, equals, text = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is no NAME=VALUE such as sr=16000.", param, ctx)
        try:
            array = np.asarray(json.loads(text))
        except ValueError:  # a text that is no JSON, or lists of different lengths
            array = np.asarray(None)
        if array.dtype.kind not in "biuf":
            self.fail(f"{text!r} is no number, true or false, or list of them in brackets.", param, ctx)
        return name, array


FILE = click.Path(path_type=Path)
THREADS = click.IntRange(1, MOST_THREADS)
ARITHMETIC = click.Choice([arithmetic.value for arithmetic in Arithmetic])
CONSTANTS = click.option(
    "--constant",
    "constants",
    multiple=True,
    type=Constant(),
    help="An input that always holds the same: sr=16000.",
)
Held = tuple[tuple[str, np.ndarray], ...]
"""What `CONSTANTS` gives a command."""
ENGINE = click.Choice(list(ENGINES))
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
