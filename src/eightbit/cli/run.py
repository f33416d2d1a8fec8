"""`eightbit run`: an int8 model on every sample of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from eightbit.cli.group import main
from eightbit.cli.options import ARITHMETIC, ENGINE, FILE
from eightbit.cli.places import check_places
from eightbit.cli.reading import Reader, takes_data
from eightbit.cli.terminal import bars, say
from eightbit.data.batch_axis import joined
from eightbit.data.feeds import Feeds
from eightbit.data.npz import write_npz
from eightbit.errors import EngineError
from eightbit.graph.samples import samples
from eightbit.model import open as open_quantized


@main.command("run")
@click.argument("model", type=FILE)
@click.option("-i", "--input", "inputs", type=FILE, required=True, help="Inputs, .npz or pictures.")
@click.option("-o", "--output", type=FILE, required=True, help="Where to write the outputs, .npz.")
@click.option("--engine", type=ENGINE, default="onnxruntime", show_default=True)
@click.option(
    "--arithmetic", type=ARITHMETIC, help="How accumulators become codes; default: the engine's own."
)
@takes_data("--size", "--crop")
def run_command(
    model: Path, inputs: Path, output: Path, engine: str, arithmetic: str | None, read: Reader
) -> None:
    """Run the int8 MODEL on every sample of an .npz file, or every picture in the order of their paths."""
    check_places(output, beside=(model, inputs))
    q = open_quantized(model)
    data = read(q.ir, inputs, EngineError)
    found = samples(q.ir, data, EngineError)
    names = [str(v.name) for v in q.ir.graph.outputs]
    first: list[Feeds] = []
    parts: list[tuple[np.ndarray, ...]] = []
    with bars({"run": data.rows}) as tick:
        done = 0
        for sample in found:
            first = [*first, sample][:2]
            parts.append(_tuple(q.run(sample, engine=engine, arithmetic=arithmetic)))
            done += found.count(sample)
            tick("run", done)
    axes: list[int | None] = [0] * len(names)
    if found.axes == {}:
        axes = [None] * len(names)
    elif found.axes and not found.fixed and len(first) == 2:
        pair = joined(first, found.axes)
        together = _tuple(q.run(pair, engine=engine, arithmetic=arithmetic))
        axes = [_grown(one, two) for one, two in zip(parts[0], together, strict=True)]
    columns = zip(names, axes, zip(*parts, strict=True), strict=True)
    results = {name: _column(name, column, axis) for name, axis, column in columns}
    write_npz(results, output)
    say(f"{output}: {', '.join(f'{n} {a.dtype} {a.shape}' for n, a in results.items())}")


def _tuple(result: Any) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


def _grown(one: np.ndarray, two: np.ndarray) -> int:
    """The axis on which the output of two samples is longer than that of one; 0 where none is."""
    return next(
        (axis for axis, sizes in enumerate(zip(one.shape, two.shape, strict=True)) if sizes[0] != sizes[1]), 0
    )


def _column(name: str, parts: tuple[np.ndarray, ...], axis: int | None) -> np.ndarray:
    """An output over all samples, one behind the other on its batch axis; stacked where it has none (None)."""
    if axis is None:
        if len(parts) == 1:
            return parts[0]
        if len({part.shape for part in parts}) > 1:
            shapes = ", ".join(dict.fromkeys(str(part.shape) for part in parts))
            raise EngineError(f"output '{name}' has shapes {shapes}, which do not fit into one array")
        return np.stack(parts)
    return np.concatenate(parts, axis=axis) if parts[0].ndim else parts[0]
