"""How far a training is: a bar on stderr, or calls of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eightbit.errors import QuantizationError
from eightbit.quant.observe.calibrate import Progress as Told
from eightbit.train.training import Epoch

Show = Callable[[int, Epoch], None]
"""Told of the steps done, and of the epoch as it stands."""


@contextmanager
def shown(wanted: Told | bool | None, total: int, console: Console | None = None) -> Iterator[Show]:
    """What to call after each of `total` steps. Raises QuantizationError for what is no function, True or None."""
    if wanted is None or wanted is False:
        yield lambda steps, epoch: None
    elif wanted is True:
        console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
            task = bars.add_task("train", total=total)
            yield lambda steps, epoch: bars.update(task, completed=steps, description=str(epoch))
    elif callable(wanted):
        told = wanted
        yield lambda steps, epoch: told("train", steps)
    else:
        raise QuantizationError(f"progress is {wanted!r}; give True, or a function of a stage and a count")
