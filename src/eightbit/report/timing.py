"""How long two ways of doing one thing take, measured so that the ratio can be trusted.

In: functions without arguments. Out: the median time of each. The calls take turns, so that a change of the
processor's clock or a busy neighbour falls on all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any


@dataclass(frozen=True)
class Latency:
    """Median seconds of one inference of each model, over `rounds` alternating runs; `threads` None: every core."""

    float_seconds: float
    int8_seconds: float
    rounds: int
    batch: int
    threads: int | None

    @property
    def ratio(self) -> float:
        """Int8 time / float time: below 1, int8 is faster."""
        return self.int8_seconds / self.float_seconds


def interleaved(
    calls: Sequence[Callable[[], Any]],
    *,
    rounds: int = 50,
    seconds: float = 5.0,
    burst: int = 1,
    clock: Callable[[], float] | None = None,
    tick: Callable[[int], None] | None = None,
) -> tuple[list[float], int]:
    """Median seconds of each call, and the rounds measured: `rounds`, or fewer once `seconds` have passed.

    Each round makes every call once; with a `burst` above 1 it makes it so often in a row and leaves out the first,
    which finds another model's data in the caches: the time of a model that runs alone, still beside the others.
    `clock` gives the seconds, by default as they pass; `time.process_time` gives the processor's own, which its other
    work hardly changes.
    Three rounds of warm-up are not counted, and at least five are. `tick` is told how many are done.
    """
    now = clock or perf_counter
    for call in [*calls] * 3:
        call()
    taken: list[list[float]] = [[] for _ in calls]
    end = perf_counter() + seconds
    done = 0
    while done < rounds and (done < 5 or perf_counter() < end):
        for call, times in zip(calls, taken, strict=True):
            for turn in range(burst):
                start = now()
                call()
                if turn or burst == 1:
                    times.append(now() - start)
        done += 1
        if tick is not None:
            tick(done)
    return [median(times) for times in taken], done
