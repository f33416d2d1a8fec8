"""How long a model takes in every engine that is installed, in float and in int8, and on which processor.

In: the float and the int8 model, and one set of feeds. Out: a frozen `Speeds` that prints and turns into JSON. All
calls take turns in one run, so that ratios between any two of them can be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eightbit.data.batch_axis import batch_of
from eightbit.data.feeds import Feeds, feed
from eightbit.data.specs import TensorSpec
from eightbit.deploy.engines import ENGINES, Engine, Runner, engine_of, installed
from eightbit.errors import EightbitError, EngineError
from eightbit.graph.processor import processor_features, processor_name
from eightbit.model import Model, QuantizedModel
from eightbit.quant.observe.calibrate import Progress
from eightbit.report.table import Table
from eightbit.report.timing import interleaved

BURST = 3
"""Runs in a row of one engine: the first wakes its threads and is not counted."""


@dataclass(frozen=True)
class EngineSpeed:
    """Median seconds of one run in `engine`; `float_seconds` is None for an engine that runs no float models.

    `threads` None is every core, 0 what the engine itself decides on: it cannot be told.
    """

    engine: str
    arithmetic: str | None
    threads: int | None
    float_seconds: float | None
    int8_seconds: float

    @property
    def ratio(self) -> float | None:
        """Int8 time / float time in this engine: below 1, int8 is faster."""
        return None if self.float_seconds is None else self.int8_seconds / self.float_seconds


@dataclass(frozen=True)
class Speeds:
    """Medians of `rounds` in turns on a `batch`, in the order of `ENGINES`; `left_out` says why others are not."""

    processor: str
    features: tuple[str, ...]
    engines: tuple[EngineSpeed, ...]
    left_out: tuple[tuple[str, str], ...]
    rounds: int
    batch: int
    threads: int | None

    @property
    def fastest_float(self) -> float | None:
        """Seconds of the engine that runs the float model fastest."""
        return min((e.float_seconds for e in self.engines if e.float_seconds is not None), default=None)

    def table(self) -> Table:
        """A row for each engine; the last column holds int8 against the fastest float of all."""
        best, rows = self.fastest_float, []
        for e in self.engines:
            first = "" if e.float_seconds is None else f"{1e3 * e.float_seconds:.3f}"
            ratio = "" if e.ratio is None else f"{e.ratio:.2f}"
            name = e.engine if e.arithmetic is None else f"{e.engine} ({e.arithmetic})"
            every = "" if best is None else f"{e.int8_seconds / best:.2f}"
            rows.append((name, first, f"{1e3 * e.int8_seconds:.3f}", ratio, every))
        own = [e.engine for e in self.engines if e.threads == 0]
        notes = [
            f"medians of {self.rounds} rounds in turns, batch {self.batch}, threads {self.threads or 'all'}"
            + (f" ({', '.join(own)}: as they are)" if own else "")
        ]
        notes += [f"{name} is left out: {reason}" for name, reason in self.left_out]
        columns = ("engine", "float ms>", "int8 ms>", "ratio>", "to the fastest float>")
        return Table(
            f"{self.processor}: {', '.join(self.features) or 'no features known'}",
            columns,
            tuple(rows),
            "; ".join(notes),
        )

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        found = asdict(self)
        for fields, speed in zip(found["engines"], self.engines, strict=True):
            fields["ratio"] = speed.ratio
        return found | {"left_out": dict(self.left_out)}


def speeds(
    model: Model,
    q: QuantizedModel,
    feeds: Feeds,
    *,
    engines: Sequence[str] | None = None,
    threads: int | None = None,
    rounds: int = 200,
    seconds: float = 10.0,
    progress: Progress | None = None,
) -> Speeds:
    """Time both models on `feeds` in `engines`, each in its own arithmetic; default: in all that are installed.

    An engine that cannot run the int8 model is left out with the reason, unless it was asked for by name. Raises
    EngineError, MissingExtra.
    """
    wanted = installed() if engines is None else tuple(map(engine_of, dict.fromkeys(engines)))
    left_out = (
        [] if engines is not None else [(e.name, str(e.missing)) for e in ENGINES.values() if e.missing]
    )
    calls: list[Callable[[], Any]] = []
    found: list[tuple[Engine, bool]] = []
    coded = feed(feeds, q.inputs, EngineError)
    for engine in wanted:
        try:
            runner = engine.start(q, engine.chosen(None), threads)
            runner.run(coded)
            first = None if engine.start_float is None else engine.start_float(model.ir, threads)
        except EightbitError as cause:
            if engines is not None:
                raise
            left_out.append((engine.name, " ".join(str(cause).split())))
            continue
        calls += [] if first is None else [_call(first, feeds)]
        calls.append(_call(runner, coded))
        found.append((engine, first is not None))
    medians, done = interleaved(
        calls,
        rounds=rounds,
        seconds=seconds,
        burst=BURST,
        tick=None if progress is None else lambda n: progress("bench", n),
    )
    times = iter(medians)
    rows = []
    for engine, has_float in found:
        arithmetic = engine.chosen(None)
        rows.append(
            EngineSpeed(
                engine.name,
                None if arithmetic is None else arithmetic.value,
                threads if engine.threaded else 0,
                next(times) if has_float else None,
                next(times),
            )
        )
    return Speeds(
        processor_name(),
        processor_features(),
        tuple(rows),
        tuple(left_out),
        done,
        batch_of(model.inputs, feeds),
        threads,
    )


def _call(runner: Runner, feeds: Feeds) -> Callable[[], Any]:
    return lambda: runner.run(feeds)


def random_feeds(specs: Sequence[TensorSpec], batch: int) -> Feeds:
    """Standard normal floats, zeros for integers; only the batch axis may be free. Raises EngineError."""
    rng, found = np.random.default_rng(0), {}
    for spec in specs:
        if None in spec.shape[1:]:
            raise EngineError(f"input {spec} has free axes beside the batch; give data with -d")
        shape = tuple(batch if d is None else d for d in spec.shape)
        values = rng.standard_normal(shape) if spec.dtype.kind == "f" else np.zeros(shape)
        found[spec.name] = values.astype(spec.dtype)
    return found
