"""`python -m eightbit.course.zoo list` names the models; `... train NAME` trains one and writes its checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.core import ParameterSource

from eightbit.course.zoo.catalog import ENTRIES, find, require_torch
from eightbit.course.zoo.learned import LEARNED
from eightbit.errors import EightbitError

OWN = ("resnet8_narrow", *LEARNED)
"""Models with a schedule of their own."""


@click.group()
def main() -> None:
    """The course's models."""


@main.command("list")
def list_models() -> None:
    """Name every model, its input and its size on disk."""
    for entry in ENTRIES.values():
        size = f"{entry.checkpoint.stat().st_size / 1e3:.0f} kB" if entry.checkpoint.is_file() else "-"
        click.echo(f"{entry.name:20} {'x'.join(map(str, entry.shape)):>11}  {size:>8}  {entry.summary}")
    for learned in LEARNED.values():
        size = f"{learned.checkpoint.stat().st_size / 1e3:.0f} kB" if learned.checkpoint.is_file() else "-"
        click.echo(f"{learned.name:20} {'int8':>11}  {size:>8}  {learned.summary}")


@main.command()
@click.argument("name")
@click.option("--epochs", default=15, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("--peak", default=0.2, show_default=True, help="Highest learning rate.")
@click.option("--bfloat16", is_flag=True, help="Convolutions in bfloat16: faster where the processor has it.")
@click.option("--resume", is_flag=True, help="Begin with the weights of the present checkpoint.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Instead of the package's checkpoint."
)
@click.pass_context
def train(
    context: click.Context,
    name: str,
    epochs: int,
    seed: int,
    peak: float,
    bfloat16: bool,
    resume: bool,
    output: Path | None,
) -> None:
    """Train NAME on Fashion-MNIST; print its accuracy on the 10,000 test images.

    Int8 models and students start from a float model and have a schedule of their own: only --output is for them.
    """
    if name in OWN:
        _train_own(context, name, output)
        return
    entry = find(name)
    if not entry.trainable:
        trainable = ", ".join([*(e.name for e in ENTRIES.values() if e.trainable), *OWN])
        raise click.UsageError(f"{name} is not trained here; choose one of {trainable}")
    require_torch()
    from eightbit.course.zoo.train import Schedule, train_and_save

    path = output or entry.checkpoint
    score = train_and_save(
        entry, Schedule(epochs=epochs, peak=peak, seed=seed, bfloat16=bfloat16), path, resume=resume
    )
    click.echo(f"{name}: {score:.2%} of the test images right; wrote {path}")


def _train_own(context: click.Context, name: str, output: Path | None) -> None:
    """Train a model that has a schedule of its own."""
    given = [p for p in context.params if p != "name" and p != "output"]
    given = [p for p in given if context.get_parameter_source(p) is not ParameterSource.DEFAULT]
    if given:
        raise click.UsageError(f"{name} has a schedule of its own; leave out --{', --'.join(given)}")
    require_torch()
    from eightbit.course.zoo import students

    entry = LEARNED[name] if name in LEARNED else find(name)
    train = LEARNED[name].train_and_save if name in LEARNED else students.train_and_save
    path = output or entry.checkpoint
    score = train(
        path, lambda text, step: click.echo(f"{text}, step {step}", err=True) if step % 50 == 0 else None
    )
    click.echo(f"{name}: {score:.2%} of the test images right; wrote {path}")


if __name__ == "__main__":
    try:
        main(prog_name="python -m eightbit.course.zoo")
    except EightbitError as error:
        sys.exit(f"error: {error}")
