"""Models and data from files: an option on pictures is one of every command that takes data."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import onnx_ir as ir

from eightbit.cli.options import Held, Numbers, Size
from eightbit.cli.terminal import status
from eightbit.data.npz import Npz
from eightbit.data.pictures import Pictures, Preparation, is_picture
from eightbit.data.specs import specs
from eightbit.errors import EightbitError
from eightbit.graph.samples import npz_for
from eightbit.model import Model, load

ON_PICTURES = (
    click.option(
        "--resize", type=click.IntRange(1), help="Pictures: shorter side before the crop; default: 256 for 224."
    ),
    click.option("--mean", type=Numbers(), help="Pictures: subtracted; one number or R,G,B.  [default: 0]"),
    click.option("--std", type=Numbers(), help="Pictures: divided by; one number or R,G,B.  [default: 1]"),
    click.option(
        "--range", "top", type=click.Choice(["1", "255"]), callback=lambda ctx, param, top: top and int(top),
        help="Pictures: what white is before --mean and --std.  [default: 1]",
    ),
    click.option("--layout", type=click.Choice(["nchw", "nhwc"]), help="Pictures: where the model's channels are."),
    click.option("--bgr", is_flag=True, default=None, help="Pictures: blue first."),
    click.option("--most", type=click.IntRange(1), help="Pictures: at most so many, spread over all."),
)  # fmt: skip


def takes_data(*size: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose data may be pictures: for the options on them it gets `read`, which opens data for a model.

    `size` are the names of the option on the size of pictures.
    """
    crop = click.option(
        *size, "crop_size", type=Size(), help="Pictures: side of the crop, or HxW; default: the model's."
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**words: Any) -> None:
            given = {"size": words.pop("crop_size")}  # `tune` has a size of its own
            given |= {n: words.pop(n) for n in ("resize", "mean", "std", "top", "layout", "bgr", "most")}
            options = {name: value for name, value in given.items() if value is not None}
            if options and not any(_are_pictures(path) for path in words.values() if isinstance(path, Path)):
                raise click.UsageError("no data are pictures; leave the options on pictures out")
            command(read=Reader(**options), **words)

        for option in reversed((crop, *ON_PICTURES)):
            run = option(run)
        return run

    return decorate


class Reader:
    """Opens data for a model: an .npz file, a folder of pictures or one picture, prepared as the options say."""

    def __init__(self, most: int | None = None, **how: Any) -> None:
        self.most, self.how = most, Preparation(**how)

    def __call__(self, model: ir.Model, path: Path, error: type[EightbitError]) -> Npz | Pictures:
        """The data at `path` for `model`; raises `error`."""
        if not _are_pictures(path):
            return npz_for(model, path, error)
        found = Pictures(path, specs(model), error, self.how, self.most)
        if found.classes:
            first, last = found.classes[0], found.classes[-1]
            click.echo(
                f"Note: the folders in {path} are taken for classes 0 ({first}) to {len(found.classes) - 1} ({last})",
                err=True,
            )
        return found


def _are_pictures(path: Path) -> bool:
    return path.is_dir() or is_picture(path.name)


def read_model(path: Path, constants: Held) -> Model:
    """The float model of a file; what loading did that its owner should know of goes to stderr."""
    with status("load"):
        model = load(path, constants=dict(constants))
    for text in model.notes:
        click.echo(f"Note: {text}", err=True)
    return model
