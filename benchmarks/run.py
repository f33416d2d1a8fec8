"""Measures every figure, prints them in one table and writes them to benchmarks/results.md.

    python -m benchmarks.run [MODULE ...]        # MODULE: speed, memory, ...; all of them by default

Each module has a process of its own: what one leaves behind in memory and threads would cost the next one time. Exit
status 1 if a promise is not kept. With modules named, results.md is left alone: it holds one whole run.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

import benchmarks
from benchmarks.figure import Figure, machine

RESULTS = Path(__file__).with_name("results.md")


def modules() -> list[str]:
    """Names of the modules beside this one that define `figures`."""
    names = [info.name for info in pkgutil.iter_modules(benchmarks.__path__)]
    return [name for name in names if hasattr(importlib.import_module(f"benchmarks.{name}"), "figures")]


def measured(name: str) -> list[Figure]:
    """The figures of a module."""
    return list(importlib.import_module(f"benchmarks.{name}").figures())


def cells(figure: Figure) -> tuple[str, ...]:
    """A figure as the cells of its row."""
    kept = "yes" if figure.holds else "NO"
    return (
        figure.name,
        f"{figure.value:.3g} {figure.unit}",
        f"{'≥' if figure.at_least else '≤'} {figure.bound:.3g} {figure.unit}",
        kept,
        figure.detail,
    )


HEADER = ("figure", "measured", "promised", "kept", "from")


def markdown(figures: Sequence[Figure]) -> str:
    """The figures as the text of results.md."""
    rows = [HEADER, ("---",) * len(HEADER), *map(cells, figures)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"# Measured figures\n\nOne run of `make bench` on {machine()}.\n\n{table}\n"


def main(chosen: Sequence[str]) -> int:
    """Measure, print, write; returns the exit status."""
    console = Console()
    known = modules()
    unknown = [name for name in chosen if name not in known]
    if unknown:
        console.print(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
        return 2
    figures: list[Figure] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for name in chosen or known:
            with console.status(f"measuring: {name}"):
                figures += pool.submit(measured, name).result()
    table = Table(*HEADER, title=machine())
    for figure in figures:
        table.add_row(*cells(figure))
    console.print(table)
    if not chosen:
        RESULTS.write_text(markdown(figures))
        console.print(f"wrote {RESULTS}")
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
