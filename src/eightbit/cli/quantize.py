"""`eightbit quantize`: a float model becomes int8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args
from warnings import catch_warnings

import click

from eightbit.cli.group import main
from eightbit.cli.options import CONSTANTS, FILE, Held
from eightbit.cli.places import check_places
from eightbit.cli.reading import Reader, read_model, takes_data
from eightbit.cli.terminal import bars, say
from eightbit.errors import CalibrationError
from eightbit.graph.processor import Processor
from eightbit.graph.source.onnx_file import with_weights
from eightbit.model import quantize
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.choose.recipe_file import read_recipe
from eightbit.report.table import Table
from eightbit.safety.check import FLOOR
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
    "--processor",
    type=click.Choice(get_args(Processor)),
    help="What the file is for, in place of the recipe's choice.  [default: this machine]",
)
@click.option(
    "--refine", "refined", is_flag=True, help="Learn codes, biases and scales from MODEL's answers, too."
)
@click.option(
    "--check/--no-check", default=True, help="Run calibration samples through both models, and mend."
)
@click.option(
    "--floor", type=float, default=FLOOR, show_default=True, metavar="DB", help="The least SQNR of an output."
)
@CONSTANTS
@takes_data("--size", "--crop")
def quantize_command(
    model: Path,
    calibration: Path,
    output: Path,
    recipe: Path | None,
    processor: Processor | None,
    refined: bool,
    check: bool,
    floor: float,
    constants: Held,
    read: Reader,
) -> None:
    """Turn the float MODEL (.onnx) into int8.

    A recipe holds tables [weights], [activations] and [overrides]. Overrides are for single nodes, by patterns of
    names ("classifier*" = "float") or of op types ("op:Conv" = { weights = { bits = 4 } }); the last that matches a
    node decides. All keys: the documentation of eightbit.quant.choose.recipe_file.

    The outputs' SQNR on a few calibration samples is printed. Where one is below the floor, the fewest weights and
    activations that mend it get 16 bits or stay in float; with a recipe of your own they are only named.
    """
    check_places(output, beside=(calibration, recipe))
    chosen = Recipe() if recipe is None else read_recipe(recipe)
    chosen = replace(chosen, processor=processor or chosen.processor)
    graph = read_model(model, constants)
    data = read(graph.ir, calibration, CalibrationError)
    with bars({"calibrate": data.rows, "moments": data.rows, "train": Refinement().steps}) as tick:
        with catch_warnings(action="ignore", category=UserWarning):  # the check's own words are printed below
            q = quantize(graph, data, chosen, check=check, floor=floor, progress=tick)
        found = q.report.check if q.report is not None else None
        q = refine(graph, data, q, progress=tick) if refined else q
    files = with_weights(model) if model.suffix == ".onnx" else {model, *model.rglob("*")}
    before = sum(p.stat().st_size for p in files if p.is_file())
    q.save(output)
    after = output.stat().st_size if output.is_file() else 0
    say(f"{output}: {after:,} bytes, {after / before:.2f} of {model}" if after else f"{output}: written")
    if found is not None:
        say(found)
    if q.report is not None and q.report.islands:
        nodes = ((i.node, i.op, i.reason) for i in q.report.islands)
        say(Table("Left in float:", ("node", "op", "reason"), tuple(nodes)))
    if refined and q.report is not None:
        say(q.report.notes[-1])
