"""`eightbit quantize`: a float model becomes int8."""

from __future__ import annotations

from pathlib import Path

import click

from eightbit.cli.group import main
from eightbit.cli.options import CONSTANTS, FILE, Held
from eightbit.cli.places import check_places
from eightbit.cli.reading import Reader, read_model, takes_data
from eightbit.cli.terminal import bars, say
from eightbit.errors import CalibrationError
from eightbit.model import quantize
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.choose.recipe_file import read_recipe
from eightbit.report.table import Table
from eightbit.train.refine import refine
from eightbit.train.refinement import Refinement


@main.command("quantize")
@click.argument("model", type=FILE)
@click.option(
    "-c", "--calibration", type=FILE, required=True, help="Inputs to calibrate with, .npz or pictures."
)
@click.option("-o", "--output", type=FILE, required=True, help="Where to write the int8 model.")
@click.option("--recipe", type=FILE, help="How to quantize, TOML; see below.")
@click.option(
    "--refine", "refined", is_flag=True, help="Learn codes, biases and scales from MODEL's answers, too."
)
@CONSTANTS
@takes_data("--size", "--crop")
def quantize_command(
    model: Path,
    calibration: Path,
    output: Path,
    recipe: Path | None,
    refined: bool,
    constants: Held,
    read: Reader,
) -> None:
    """Turn the float MODEL (.onnx) into int8.

    A recipe holds tables [weights], [activations] and [overrides]. Overrides are for single nodes, by patterns of
    names ("classifier*" = "float") or of op types ("op:Conv" = { weights = { bits = 4 } }); the last that matches a
    node decides. All keys: the documentation of eightbit.quant.choose.recipe_file.
    """
    check_places(output, beside=(calibration, recipe))
    chosen = Recipe() if recipe is None else read_recipe(recipe)
    graph = read_model(model, constants)
    data = read(graph.ir, calibration, CalibrationError)
    with bars({"calibrate": data.rows, "moments": data.rows, "train": Refinement().steps}) as tick:
        q = (refine if refined else quantize)(graph, data, chosen, progress=tick)
    before = sum(p.stat().st_size for p in (model, *model.rglob("*")) if p.is_file())
    q.save(output)
    after = output.stat().st_size if output.is_file() else 0
    say(f"{output}: {after:,} bytes, {after / before:.2f} of {model}" if after else f"{output}: written")
    if q.report is not None and q.report.islands:
        nodes = ((i.node, i.op, i.reason) for i in q.report.islands)
        say(Table("Left in float:", ("node", "op", "reason"), tuple(nodes)))
    if refined and q.report is not None:
        say(q.report.notes[-1])
