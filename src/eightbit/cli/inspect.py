"""`eightbit inspect`: what is in an int8 file."""

from __future__ import annotations

from pathlib import Path

import click

from eightbit.cli.group import main
from eightbit.cli.options import FILE, JSON
from eightbit.cli.terminal import show
from eightbit.report.inspection import inspect


@main.command("inspect", short_help="List tensors, scales, operations, bytes.")
@click.argument("model", type=FILE)
@JSON
def inspect_command(model: Path, as_json: bool) -> None:
    """List the tensors, scales, operations and bytes of the int8 MODEL."""
    show(inspect(model), as_json)
