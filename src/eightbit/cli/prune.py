"""`eightbit prune`: less of a float model."""

from __future__ import annotations

from pathlib import Path

import click

from eightbit.cli.group import main
from eightbit.cli.options import CONSTANTS, FILE, JSON, Held, Number
from eightbit.cli.places import check_places
from eightbit.cli.reading import Reader, read_model, takes_data
from eightbit.cli.terminal import bars, show
from eightbit.errors import CalibrationError
from eightbit.pruning.prune import prune
from eightbit.report.pruning import pruned_layers


@main.command("prune", short_help="Remove channels, or set weights to zero.")
@click.argument("model", type=FILE)
@click.option(
    "-c",
    "--calibration",
    type=FILE,
    help="Inputs to look at, .npz or pictures; default: weights alone decide.",
)
@click.option("-o", "--output", type=FILE, required=True, help="Where to write the pruned float model.")
@click.option("--macs", type=Number(), help="Share of the multiplications that may be left.")
@click.option(
    "--branches", type=int, default=0, show_default=True, help="Residual branches to remove whole, first."
)
@click.option("--sparsity", type=Number(), help="Share of the weights that shall be zero.")
@click.option("--pattern", help="Zeros by neighbours along the input channels, such as 2:4.")
@click.option("--multiple", type=int, default=1, show_default=True, help="What divides numbers of channels.")
@click.option("--floor", type=Number(), default=0.1, show_default=True, help="Share of channels that stays.")
@JSON
@CONSTANTS
@takes_data("--size", "--crop")
def prune_command(
    model: Path,
    calibration: Path | None,
    output: Path,
    macs: float | None,
    branches: int,
    sparsity: float | None,
    pattern: str | None,
    multiple: int,
    floor: float,
    as_json: bool,
    constants: Held,
    read: Reader,
) -> None:
    """Take channels or branches out of the float MODEL (.onnx), or set weights to zero, without training.

    With data the weights that are left are fitted anew, so that the layers give what they gave.
    """
    check_places(output, beside=(model, calibration))
    graph = read_model(model, constants)
    data = None if calibration is None else read(graph.ir, calibration, CalibrationError)
    with bars({} if data is None else {"moments": data.rows}) as tick:
        pruned = prune(
            graph,
            data,
            macs=macs,
            branches=branches,
            sparsity=sparsity,
            pattern=pattern,
            multiple=multiple,
            floor=floor,
            progress=tick,
        )
    pruned.save(output)
    show(pruned_layers(graph, pruned, data), as_json)
