"""`eightbit certify`: one model in every engine, integer by integer."""

from __future__ import annotations

import json
from pathlib import Path

import click

from eightbit.cli.group import main
from eightbit.cli.options import FILE
from eightbit.cli.places import check_places
from eightbit.cli.reading import Reader, takes_data
from eightbit.cli.terminal import bars, show
from eightbit.errors import EngineError
from eightbit.files import write_whole
from eightbit.model import open as open_quantized
from eightbit.plot.look import pyplot
from eightbit.report.certificate import SAMPLES, certify


@main.command("certify", short_help="Compare the integers of every engine.")
@click.argument("model", type=FILE)
@click.option("-d", "--data", "data_file", type=FILE, required=True, help="Inputs, .npz or pictures.")
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=SAMPLES,
    show_default=True,
    help="Samples to compare, at most.",
)
@click.option("--html", type=FILE, help="Also write a page with figures.")
@click.option("--json", "json_file", type=FILE, help="Also write the certificate as JSON.")
@takes_data("--size", "--crop")
def certify_command(
    model: Path, data_file: Path, samples: int, html: Path | None, json_file: Path | None, read: Reader
) -> None:
    """Run the int8 MODEL in every engine that is installed, layer by layer, and count the integers that differ.

    Exit status 1 if an engine does not give the integers of its own arithmetic.
    """
    q = open_quantized(model)
    data = read(q.ir, data_file, EngineError)
    if html is not None:
        pyplot()  # a missing extra is better known before the work than after it
    check_places(html, json_file, beside=(model, data_file))
    with bars({"certify": min(samples, data.rows)}) as tick:
        found = certify(q, data, most=samples, progress=tick)
    if html is not None:
        found.html(html)
    if json_file is not None:
        write_whole(f"{json.dumps(found.to_dict(), indent=2, allow_nan=False)}\n".encode(), json_file)
    show(found, False)
    if not found.holds:
        wrong = ", ".join(row.title for row in found.engines if row.exact is False)
        raise EngineError(f"{wrong}: not the integers of the engine's own arithmetic")
