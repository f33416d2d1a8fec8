"""`eightbit lint`: what will go wrong on a target."""

from __future__ import annotations

from pathlib import Path

import click

from eightbit.cli.group import main
from eightbit.cli.options import FILE, JSON
from eightbit.cli.terminal import show
from eightbit.errors import EngineError
from eightbit.report.lint import TARGETS, lint

BYTES = click.IntRange(0)


@main.command("lint", short_help="Say what will go wrong on a target.")
@click.argument("model", type=FILE)
@click.option("--target", type=click.Choice(list(TARGETS)), required=True, help="Where it is to run.")
@click.option("--arena", type=BYTES, help="Bytes of memory that there are; cortex-m.")
@click.option("--flash", type=BYTES, help="Bytes of flash that there are; cortex-m.")
@JSON
def lint_command(model: Path, target: str, arena: int | None, flash: int | None, as_json: bool) -> None:
    """Say what of the int8 MODEL will saturate, fall back to float or be refused; status 1 if anything will."""
    report = lint(model, target, arena=arena, flash=flash)
    show(report, as_json)
    if not report.clean:
        raise EngineError(f"{len(report.findings)} findings for {target} in {model}")
