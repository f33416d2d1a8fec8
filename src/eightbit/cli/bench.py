"""`eightbit bench`: how long the float and the int8 model take, in every engine that is installed."""

from __future__ import annotations

from pathlib import Path

import click

from eightbit.cli.group import main
from eightbit.cli.options import CONSTANTS, ENGINE, FILE, JSON, THREADS, Held, Number
from eightbit.cli.reading import Reader, read_model, takes_data
from eightbit.cli.terminal import bars, show
from eightbit.errors import EngineError
from eightbit.graph.samples import samples
from eightbit.model import open as open_quantized
from eightbit.report.speed import random_feeds, speeds


@main.command("bench", short_help="Time both models in every engine.")
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
@click.option(
    "--engine", "engines", type=ENGINE, multiple=True, help="Only these engines; default: all installed."
)
@click.option(
    "--threads", type=THREADS, help="Threads of engines that let it be chosen; default: every core."
)
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
    engines: tuple[str, ...],
    threads: int | None,
    as_json: bool,
    constants: Held,
    read: Reader,
) -> None:
    """Time both models in every engine that is installed, taking turns, and give the medians and their ratios.

    An engine that runs no float models is timed with int8 alone; the last column sets all against the fastest float.
    """
    model, q = read_model(float_model, constants), open_quantized(int8_model)
    if data_file is None:
        feeds = random_feeds(model.inputs, batch)
    else:
        found = samples(model.ir, read(model.ir, data_file, EngineError), EngineError)
        feeds = next(found.side_by_side(batch))
    with bars({"bench": rounds}) as tick:
        report = speeds(
            model,
            q,
            feeds,
            engines=engines or None,
            threads=threads,
            rounds=rounds,
            seconds=seconds,
            progress=tick,
        )
    show(report, as_json)
