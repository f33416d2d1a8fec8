"""A recipe written down: a TOML file in, the same frozen `Recipe` that Python code would build out::

    bias_correction = true
    equalize = true
    smooth = true                                   # or false, or a number: SmoothQuant's alpha
    processor = "any"                               # or "x86-avx2", "x86-vnni", "arm"

    [weights]
    bits = 8
    granularity = "per-channel"                     # "per-tensor" or { name = "per-group", size = 32 }
    range = "mse"                                   # "minmax", "moving-average", "entropy" or
                                                    # { name = "percentile", keep = 99.99 }
    rounding = "gptq"                               # or "nearest", "adaround"

    [activations]
    range = "mse"
    symmetric = false
    dynamic = false                                 # true: no calibration, scales found in every run;
    granularity = "per-tensor"                      # then "per-token", too: a scale a row

    [overrides]                                     # patterns of node names, or op:... of op types;
    "op:Conv" = { weights = { bits = 7 } }          # the last that matches a node decides
    "classifier*" = "float"
    "blocks.3.*" = { weights = { bits = 4 } }       # single layers: weights, activations or both

`activations = "float"` in place of the table quantizes the weights only.
Tables and keys are the fields of the dataclasses of `recipe`; what is left out keeps its default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from eightbit.errors import QuantizationError
from eightbit.quant.choose.recipe import (
    FLOAT,
    Activations,
    Keep,
    Layer,
    PerChannel,
    PerGroup,
    PerTensor,
    PerToken,
    Recipe,
    Weights,
)
from eightbit.quant.methods.calibrators import MSE, Entropy, MinMax, MovingAverage, Percentile
from eightbit.quant.methods.rounding import GPTQ, AdaRound, Nearest

_TABLES: dict[str, type] = {"weights": Weights, "activations": Activations}
CHOICES: dict[str, dict[str, type]] = {
    "granularity": {
        "per-tensor": PerTensor,
        "per-channel": PerChannel,
        "per-group": PerGroup,
        "per-token": PerToken,
    },
    "range": {
        "minmax": MinMax,
        "moving-average": MovingAverage,
        "percentile": Percentile,
        "mse": MSE,
        "entropy": Entropy,
    },
    "rounding": {"nearest": Nearest, "gptq": GPTQ, "adaround": AdaRound},
}


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe in a TOML file. Raises QuantizationError naming the file, the key and the keys that exist."""
    file = Path(path)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as cause:
        raise QuantizationError(f"{file} cannot be read: {cause.strerror}") from cause
    # TOMLDecodeError is a ValueError; so are those of a number of 5,000 digits and of a path with a zero byte.
    except ValueError as cause:
        raise QuantizationError(f"{file} is not TOML: {cause}") from cause
    except RecursionError as cause:
        raise QuantizationError(
            f"{file}: its brackets lie too deep in one another; a recipe has three levels"
        ) from cause
    try:
        return parse_recipe(table)
    except QuantizationError as cause:
        raise QuantizationError(f"{file}: {cause}") from cause


def parse_recipe(table: Mapping[str, Any]) -> Recipe:
    """The recipe that a parsed TOML table describes. Raises QuantizationError.

    >>> parse_recipe({"weights": {"granularity": "per-tensor"}}).weights.granularity
    PerTensor()
    """
    return Recipe(**_arguments(Recipe, table, "the recipe"))


def _arguments(kind: type, table: Any, where: str) -> dict[str, Any]:
    """Constructor arguments of the dataclass `kind` from a TOML table found at `where`."""
    if not isinstance(table, Mapping):
        raise QuantizationError(f"{where} is {table!r}; a table is needed, such as [weights]")
    known = {f.name: f for f in fields(kind)}
    for key in table:
        if key not in known:
            raise QuantizationError(f"unknown key '{key}' in {where}; known keys: {_list(known)}")
    return {key: _value(kind, key, value) for key, value in table.items()}


def _value(kind: type, key: str, value: Any) -> Any:
    if (kind, key) in ((Recipe, "activations"), (Layer, "weights")) and value == FLOAT.value:
        return FLOAT
    if key in _TABLES and kind in (Recipe, Layer):
        return _TABLES[key](**_arguments(_TABLES[key], value, f"[{key}]"))
    if key == "overrides":
        return {pattern: _override(pattern, choice) for pattern, choice in _pairs(value)}
    if key in CHOICES:
        return _choice(key, value)
    return value  # the dataclass checks it


def _choice(key: str, value: Any) -> Any:
    name, options = (value, {}) if isinstance(value, str) else (None, value)
    if isinstance(value, Mapping):
        name = value.get("name")
        options = {k: v for k, v in value.items() if k != "name"}
    if not isinstance(name, str) or name not in CHOICES[key]:
        raise QuantizationError(f"'{key}' is {value!r}; choose one of {_list(CHOICES[key])}")
    kind = CHOICES[key][name]
    return kind(**_arguments(kind, options, f"{key} '{name}'"))


def _override(pattern: str, choice: Any) -> Keep | Layer:
    if isinstance(choice, Mapping):
        try:
            return Layer(**_arguments(Layer, choice, "its table"))
        except QuantizationError as cause:
            raise QuantizationError(f"override '{pattern}': {cause}") from cause
    try:
        return Keep(choice)
    except ValueError:
        known = _list(k.value for k in Keep)
        raise QuantizationError(
            f"override '{pattern}' is {choice!r}; choose one of {known}, or a table with weights or activations"
        ) from None


def _pairs(table: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(table, Mapping):
        raise QuantizationError(f"'overrides' is {table!r}; a table of node-name patterns is needed")
    return table.items()


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"'{n}'" for n in names) or "none"
