"""What commands print: reports on standard output, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eightbit.errors import printable

Tick = Callable[[str, int], None]


def say(text: object, *, bold: bool = False) -> None:
    """Print to standard output what cannot command a terminal."""
    click.echo(click.style(printable(str(text)), bold=bold or None))


def show(report: Any, as_json: bool) -> None:
    """Print a report, as JSON if asked."""
    if as_json:
        say(json.dumps(report.to_dict(), indent=2, allow_nan=False))
        return
    for line in str(
        report
    ).splitlines():  # titles and warnings stand at the margin; click drops the bold in a pipe
        say(line, bold=bool(line) and not line.startswith(" "))


@contextmanager
def bars(totals: dict[str, int]) -> Iterator[Tick]:
    """Progress bars on stderr, one a stage, which vanish when done; silent where stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, Any] = {}

        def tick(stage: str, done: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=totals.get(stage))
            bars.update(tasks[stage], completed=done)

        yield tick


@contextmanager
def status(what: str) -> Iterator[None]:
    """A word on stderr while something lasts; silent where stderr is not a terminal."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield
        return
    with console.status(what):
        yield
