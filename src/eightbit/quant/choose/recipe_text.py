"""A recipe as the TOML that `recipe_file` reads: what tuning found, to keep and to use again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from eightbit.files import write_whole
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.choose.recipe_file import CHOICES

_NAMES = {kind: name for table in CHOICES.values() for name, kind in table.items()}


def recipe_text(recipe: Recipe) -> str:
    """The TOML of a recipe; settings that are None (left to the data) are left out.

    >>> print(recipe_text(Recipe()).splitlines()[-1])
    dynamic = false
    """
    return "\n".join(_table(recipe, "")).lstrip("\n") + "\n"


def write_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> Path:
    """Write a recipe file that `read_recipe` turns into an equal recipe. Raises ExportError."""
    return write_whole(recipe_text(recipe).encode("utf-8"), path)


def _table(value: Any, place: str) -> Iterator[str]:
    """The lines of a dataclass or mapping: its plain values first, then its tables, as TOML wants them.

    Overrides go on a line each, because their order counts.
    """
    given = _given(value)
    tables = [] if place == "overrides" else [(key, item) for key, item in given if _is_table(item)]
    lines = [f"{_key(key)} = {_plain(item)}" for key, item in given if (key, item) not in tables]
    if lines and place:
        yield f"\n[{place}]"
    yield from lines
    for key, item in tables:
        yield from _table(item, key)


def _given(value: Any) -> list[tuple[str, Any]]:
    pairs = (
        value.items()
        if isinstance(value, Mapping)
        else ((f.name, getattr(value, f.name)) for f in fields(value))
    )
    return [(key, item) for key, item in pairs if item is not None]


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (is_dataclass(value) and type(value) not in _NAMES)


def _plain(value: Any) -> str:
    if isinstance(value, Enum):
        return json.dumps(value.value)
    if is_dataclass(value):  # a choice goes by its name, with its options
        name = _NAMES.get(type(value))
        own = [f"{key} = {_plain(item)}" for key, item in _given(value)]
        if name is not None and not own:
            return json.dumps(name)
        return f"{{ {', '.join([*([f'name = {json.dumps(name)}'] if name else []), *own])} }}"
    return json.dumps(value, ensure_ascii=False)  # strings, numbers and booleans are written alike in TOML


def _key(name: str) -> str:
    return (
        name if name.replace("_", "").isalpha() and name.isascii() else json.dumps(name, ensure_ascii=False)
    )
