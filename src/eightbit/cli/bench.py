"""`eightbit bench`: how long the float and the int8 model take."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from eightbit.cli.group import main
from eightbit.cli.options import CONSTANTS, FILE, JSON, THREADS, Held, Number
from eightbit.cli.reading import Reader, read_model, takes_data
from eightbit.cli.terminal import bars, say
from eightbit.data.feeds import Feeds, feed
from eightbit.data.specs import TensorSpec
from eightbit.errors import EngineError
from eightbit.graph.samples import samples
from eightbit.model import open as open_quantized
from eightbit.report.comparison import measure
from eightbit.report.table import Table


@main.command("bench", short_help="Time both models, taking turns.")
@click.argument("float_model", type=FILE)
@click.argument("int8_model", type=FILE)
@click.option(
    "-d", "--data", "data_file", type=FILE, help="Inputs, .npz or pictures; default: random numbers."
)
@click.option(
    "--batch", type=click.IntRange(1, 2**20), default=1, show_default=True, help="Samples in one run."
)
@click.option(
    "--rounds",
    type=click.IntRange(5, 2**20),
    default=200,
    show_default=True,
    help="Runs of each model, at most.",
)
@click.option("--seconds", type=Number(0), default=10.0, show_default=True, help="Time to spend, about.")
@click.option("--threads", type=THREADS, help="Threads of ONNX Runtime; default: every core.")
@JSON
@CONSTANTS
@takes_data("--size", "--crop")
def bench_command(
    float_model: Path,
    int8_model: Path,
    data_file: Path | None,
    batch: int,
    rounds: int,
    seconds: float,
    threads: int | None,
    as_json: bool,
    constants: Held,
    read: Reader,
) -> None:
    """Time both models in ONNX Runtime, taking turns, and give the medians and their ratio."""
    model, q = read_model(float_model, constants), open_quantized(int8_model)
    if data_file is None:
        feeds = _random(model.inputs, batch)
    else:
        found = samples(model.ir, read(model.ir, data_file, EngineError), EngineError)
        feeds = next(found.side_by_side(batch))
    feeds = feed(feeds, q.inputs, EngineError)
    with bars({"bench": rounds}) as tick:
        speed = measure(model, q, feeds, threads=threads, rounds=rounds, seconds=seconds, progress=tick)
    if as_json:
        fields = {
            "float_seconds": speed.float_seconds,
            "int8_seconds": speed.int8_seconds,
            "ratio": speed.ratio,
        }
        say(
            json.dumps(
                fields | {"rounds": speed.rounds, "batch": speed.batch, "threads": speed.threads}, indent=2
            )
        )
        return
    rows = (
        (float_model.name, f"{1e3 * speed.float_seconds:.3f}", "1.00"),
        (int8_model.name, f"{1e3 * speed.int8_seconds:.3f}", f"{speed.ratio:.2f}"),
    )
    how = f"medians of {speed.rounds} rounds in turns, batch {speed.batch}, threads {threads or 'all'}"
    say(Table("", ("model", "ms>", "ratio>"), rows, how))


def _random(specs: tuple[TensorSpec, ...], batch: int) -> Feeds:
    """Standard normal floats, zeros for integers; only the batch axis may be free."""
    rng, found = np.random.default_rng(0), {}
    for spec in specs:
        if None in spec.shape[1:]:
            raise EngineError(f"input {spec} has free axes beside the batch; give data with -d")
        shape = tuple(batch if d is None else d for d in spec.shape)
        values = rng.standard_normal(shape) if spec.dtype.kind == "f" else np.zeros(shape)
        found[spec.name] = values.astype(spec.dtype)
    return found
