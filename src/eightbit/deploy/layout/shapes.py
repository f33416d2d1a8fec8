"""The shape of every tensor, where a writer needs them all: one sample, and every other length fixed.

They are read off a run on zeros (ones where integers go in: a mask that hides everything leaves nothing to compute),
in which the tensors inside float islands are looked at, too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.errors import ExportError
from eightbit.graph.model import dims
from eightbit.graph.run import FloatSession
from eightbit.integer import program as p
from eightbit.integer.engine import run

Shape = tuple[int, ...]
Array = NDArray[np.generic]


def shapes_of(program: p.Program, batch: int = 1) -> Mapping[str, Shape]:
    """The shape of every tensor. A free first axis of an input becomes `batch` long."""
    return {name: array.shape for name, array in values_on_zeros(program, batch).items()}


def values_on_zeros(program: p.Program, batch: int = 1) -> Mapping[str, Array]:
    """Every tensor of a run on zeros: codes, and what float islands read, compute and give out."""
    inside: dict[str, Array] = {}

    def island(op: p.FloatIsland, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        model = island_graph(op)
        names = [value.name for node in model.graph for value in node.outputs if value.name]
        found = FloatSession(model, names, optimize=False).run(feeds)
        inside.update(feeds)
        inside.update(found)
        return found

    feeds = {
        name: np.full(shape, dtype.kind != "f", dtype)
        for name, (shape, dtype) in _inputs(program, batch).items()
    }
    found = run(program, feeds, keep=True, island=island)
    return feeds | inside | found


def island_graph(island: p.FloatIsland) -> ir.Model:
    """A graph of its own for each call."""
    return ir.from_proto(onnx.load_model_from_string(island.model))


def input_shapes(program: p.Program, batch: int = 1) -> dict[str, Shape]:
    """The shape of every input."""
    return {name: shape for name, (shape, _) in _inputs(program, batch).items()}


def _inputs(program: p.Program, batch: int) -> dict[str, tuple[Shape, np.dtype]]:
    """Shape and type of every input, as those say that read it."""
    told: dict[str, tuple[tuple[int | None, ...] | None, np.dtype]] = {}
    for op in program.ops:
        if isinstance(op, p.Quantize) and op.inputs[0] in program.inputs:
            told[op.inputs[0]] = program.tensors[op.outputs[0]].shape, np.dtype(np.float32)
        elif isinstance(op, p.Embedding) and op.inputs[0] in program.inputs:
            told[op.inputs[0]] = op.ids_shape, np.dtype(op.ids_dtype)
        elif isinstance(op, p.FloatIsland):
            graph = island_graph(op).graph
            told |= {
                str(v.name): (dims(v), (v.dtype or ir.DataType.FLOAT).numpy())
                for v in graph.inputs
                if v.name in program.inputs
            }
    for name, (shape, _) in told.items():
        if shape is None or None in shape[1:]:
            raise ExportError(
                f"input {name!r} has shape {shape}; every length but the batch's must be known: load the model"
                " with those fixed"
            )
    return {name: (tuple(n or batch for n in shape or ()), dtype) for name, (shape, dtype) in told.items()}
