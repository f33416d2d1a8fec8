"""`eightbit tune`: the search for a recipe that meets a budget."""

from __future__ import annotations

from pathlib import Path

import click

from eightbit.cli.group import main
from eightbit.cli.options import CONSTANTS, FILE, JSON, THREADS, Held, Number
from eightbit.cli.places import check_places
from eightbit.cli.reading import Reader, read_model, takes_data
from eightbit.cli.terminal import bars, show
from eightbit.errors import CalibrationError, EngineError, QuantizationError
from eightbit.quant.choose.recipe_file import read_recipe
from eightbit.tuning.search import tune
from eightbit.tuning.target import Target


@main.command("tune", short_help="Search for bits that meet a budget.")
@click.argument("model", type=FILE)
@click.option(
    "-c", "--calibration", type=FILE, required=True, help="Inputs to calibrate with, .npz or pictures."
)
@click.option(
    "-d", "--data", "data_file", type=FILE, help="Inputs to measure on, and labels if any, .npz or pictures."
)
@click.option(
    "--held-out", type=FILE, help="Inputs for the final figure, never searched on, .npz or pictures."
)
@click.option("-o", "--output", type=FILE, required=True, help="Where to write the int8 model.")
@click.option("--recipe", type=FILE, help="The recipe to begin with, TOML.")
@click.option("--save-recipe", type=FILE, help="Where to write the recipe that was found, TOML.")
@click.option("--drop", type=Number(), help="Accuracy that may be lost, as a share; needs labels.")
@click.option("--agreement", type=Number(), help="Least share of samples with float's first class.")
@click.option("--size", type=Number(), help="Largest file, as a fraction of the float file.")
@click.option("--latency", type=Number(), help="Longest time of a sample, as a fraction of float's.")
@click.option("--bits", type=Number(), help="Most bits a weight in the mean, as the file stores them.")
@click.option("--workers", type=THREADS, default=1, show_default=True, help="Processes to try in.")
@JSON
@CONSTANTS
@takes_data("--crop")
def tune_command(
    model: Path,
    calibration: Path,
    data_file: Path | None,
    held_out: Path | None,
    output: Path,
    recipe: Path | None,
    save_recipe: Path | None,
    workers: int,
    as_json: bool,
    constants: Held,
    read: Reader,
    **limits: float | None,
) -> None:
    """Search for a recipe by which the float MODEL (.onnx) meets a budget; exit status 1 if none does."""
    check_places(output, save_recipe, beside=(calibration, data_file, held_out))
    check_places(output, beside=(recipe,))
    check_places(save_recipe, beside=(model,))
    target = Target(**limits)
    start = None if recipe is None else read_recipe(recipe)
    graph = read_model(model, constants)
    seen = read(graph.ir, calibration, CalibrationError)
    others = [None if f is None else read(graph.ir, f, EngineError) for f in (data_file, held_out)]
    with bars({"calibrate": seen.rows, "moments": seen.rows}) as tick:
        found = tune(
            graph,
            seen,
            target=target,
            recipe=start,
            data=others[0],
            held_out=others[1],
            workers=workers,
            progress=tick,
        )
    found.model.save(output)
    if save_recipe is not None:
        found.save_recipe(save_recipe)
    show(found, as_json)
    if not found.met:
        raise QuantizationError(
            f"no recipe was found that meets the target; {output} is the nearest: {'; '.join(found.misses)}"
        )
