"""The shape of every tensor, where a writer needs them all: one sample, and every other length fixed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eightbit.errors import ExportError
from eightbit.integer import program as p
from eightbit.integer.engine import run

Shape = tuple[int, ...]


def shapes_of(program: p.Program, batch: int = 1) -> Mapping[str, Shape]:
    """The shape of every tensor of codes, by a run on zeros. A free first axis of an input becomes `batch` long."""
    feeds = {name: np.zeros(shape, np.float32) for name, shape in input_shapes(program, batch).items()}
    values = run(program, feeds, keep=True)
    return {name: values[name].shape for name in program.tensors}


def input_shapes(program: p.Program, batch: int = 1) -> dict[str, Shape]:
    """The shape of every input that becomes codes."""
    shapes: dict[str, Shape] = {}
    for op in program.ops:
        if not isinstance(op, p.Quantize):
            continue
        found = program.tensors[op.outputs[0]].shape
        if found is None or None in found[1:]:
            raise ExportError(
                f"input {op.inputs[0]!r} has shape {found}; every length but the batch's must be known: load the model"
                " with those fixed"
            )
        shapes[op.inputs[0]] = tuple(batch if n is None else n for n in found)
    return shapes
