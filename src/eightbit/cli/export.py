"""`eightbit export`: an int8 model as C, or as a .tflite."""

from __future__ import annotations

from pathlib import Path

import click

from eightbit.cli.group import main
from eightbit.cli.options import ARITHMETIC, FILE
from eightbit.cli.reading import Reader, takes_data
from eightbit.cli.terminal import say
from eightbit.errors import ExportError
from eightbit.model import FORMATS, export
from eightbit.model import open as open_quantized


@main.command("export", short_help="Write the network as C, a .tflite, or a repository.")
@click.argument("model", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    help="The folder to write to, or a file that ends in .tflite.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="What to write; default: tflite for a file that ends so, else c.",
)
@click.option("--arithmetic", type=ARITHMETIC, default="tflite", show_default=True, help="How to round.")
@click.option("--name", default="net", show_default=True, help="What files and functions are called.")
@click.option(
    "-d",
    "--data",
    "data_file",
    type=FILE,
    help="Inputs for the self-test, .npz or pictures; default: random.",
)
@takes_data("--size", "--crop")
def export_command(
    model: Path,
    output: Path,
    kind: str | None,
    arithmetic: str,
    name: str,
    data_file: Path | None,
    read: Reader,
) -> None:
    """Write the int8 MODEL as C99 that needs no library: sources, a self-test, a Makefile; `make check` tries it.

    An output that ends in .tflite is a file for LiteRT and TFLite Micro instead, and takes none of the options. With
    `--format triton` the output is a model repository for Triton and KServe, and the name is the model's there.
    """
    q = open_quantized(model)
    data = None if data_file is None else read(q.ir, data_file, ExportError)
    say(export(q, output, format=kind, arithmetic=arithmetic, name=name, data=data))
