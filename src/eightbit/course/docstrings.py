"""Sentences for language models: the docstrings of Python's standard library, the same on every Python version.

`docstrings.jsonl` beside this file holds what `collect` found in CPython 3.11: the name of a public class or function
and the start of its docstring. The texts are part of Python (PSF licence, in `docstrings_license.txt`). To write the
file anew:

    python -m eightbit.course.docstrings > src/eightbit/course/docstrings.jsonl
"""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files

from eightbit.errors import LoadError

MODULES = (
    "argparse", "base64", "bisect", "calendar", "collections", "configparser", "copy", "csv", "datetime", "decimal",
    "difflib", "fractions", "functools", "glob", "gzip", "hashlib", "heapq", "itertools",
    "json", "logging", "math", "os", "os.path", "pathlib", "random", "re", "shutil", "sqlite3", "statistics",
    "string", "subprocess", "tempfile", "textwrap", "threading", "time", "urllib.parse", "zipfile",
)  # fmt: skip
SHORTEST, LONGEST = 40, 300
"""Characters of a text: shorter docstrings say nothing, longer ones are cut at a word."""


@dataclass(frozen=True)
class Docstring:
    """A class or function of the standard library and the start of its docstring, in one line."""

    name: str
    text: str

    @property
    def passage(self) -> str:
        """Name and text, as a search engine would index them."""
        return f"{self.name}: {self.text}"


@dataclass(frozen=True)
class Passages:
    """Docstrings for calibration and for test; none is in both."""

    calibration: tuple[Docstring, ...]
    test: tuple[Docstring, ...]


@cache
def docstrings() -> tuple[Docstring, ...]:
    """All docstrings of the snapshot, in an order that mixes the modules and never changes."""
    text = files("eightbit.course").joinpath("docstrings.jsonl").read_text("utf-8")
    return tuple(Docstring(**json.loads(line)) for line in text.splitlines())


def docstring_split(calibration: int = 64, test: int = 400) -> Passages:
    """The first docstrings for test, the last ones for calibration: a larger set holds the smaller one.

    Raises LoadError if there are not that many.
    """
    every = docstrings()
    if min(calibration, test) < 0 or calibration + test > len(every):
        raise LoadError(
            f"{calibration} docstrings for calibration and {test} for test; there are {len(every)} in all"
        )
    return Passages(every[::-1][:calibration], every[:test])


def collect() -> tuple[Docstring, ...]:
    """The docstrings of the running Python: public callables of MODULES and public methods of their classes.

    A text that several names share is kept once. Sorted by a digest of the name, which mixes the modules.
    """
    found: dict[str, str] = {}
    for module in MODULES:
        for name, thing in vars(import_module(module)).items():
            if name.startswith("_") or not callable(thing):
                continue
            found.setdefault(_start(thing), f"{module}.{name}")
            if inspect.isclass(thing) and thing.__module__ == module:
                for part, method in vars(thing).items():
                    if not part.startswith("_") and inspect.isroutine(method):
                        found.setdefault(_start(method), f"{module}.{name}.{part}")
    found.pop("", None)
    named = sorted((hashlib.sha256(name.encode()).hexdigest(), name, text) for text, name in found.items())
    return tuple(Docstring(name, text) for _, name, text in named)


def _start(thing: object) -> str:
    """The start of a docstring in one line, or "" where there is too little of it."""
    text = " ".join((inspect.getdoc(thing) or "").split())
    if len(text) < SHORTEST:
        return ""
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0]


if __name__ == "__main__":
    for entry in collect():
        print(json.dumps(asdict(entry), ensure_ascii=False))
