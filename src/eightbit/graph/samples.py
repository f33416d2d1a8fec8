"""A graph and what a caller hands in for it -> samples; the batch axes are found by running the graph."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from eightbit.data.batch_axis import SAME, SAME_CODES, Axes, Run, batch_axes, fixed
from eightbit.data.feeds import Feeds
from eightbit.data.npz import Npz, read_npz
from eightbit.data.samples import Samples
from eightbit.data.specs import BATCH_AXIS, TensorSpec, specs
from eightbit.errors import EightbitError
from eightbit.graph.run import FloatSession

ROUNDS = ("QuantizeLinear", "DynamicQuantizeLinear")


def samples(model: ir.Model, data: Any, error: type[EightbitError]) -> Samples:
    """`data` for `model`, sample by sample; see `Samples`. What is found of the batch axes is kept with the graph."""
    wanted = specs(model)
    session: list[FloatSession] = []

    def run(feeds: Feeds) -> Feeds:
        if not session:
            session.append(FloatSession(model))
        return session[0].run(feeds)

    def decide(batch: Feeds, before: Feeds | None) -> Axes | None:
        coded = any(node.op_type in ROUNDS for node in model.graph)
        axes = batch_axes(wanted, batch, run, before=before, same=SAME_CODES if coded else SAME)
        if axes == {}:
            _check_lengths(wanted, batch, run, error)
        if axes and not fixed(wanted):
            for value in model.graph.inputs:
                value.meta[BATCH_AXIS] = axes.get(str(value.name), -1)
        return axes

    return Samples(data, wanted, error, decide)


def _check_lengths(wanted: Sequence[TensorSpec], batch: Feeds, run: Run, error: type[EightbitError]) -> None:
    """Inputs of different lengths are right where the graph can run them, and otherwise the caller's mistake."""
    lengths = {s.name: len(batch[s.name]) for s in wanted if s.shape and s.shape[0] is None}
    if len(set(lengths.values())) > 1:
        try:
            run(batch)
        except EightbitError as cause:
            raise error(
                f"inputs of one batch hold different numbers of samples: {lengths}; make them equal"
            ) from cause


def npz_for(model: ir.Model, path: str | os.PathLike[str], error: type[EightbitError]) -> Npz:
    """An `.npz` file as data for `model`, cut where its samples begin. Raises `error` for a file that does not fit."""
    file = read_npz(path, specs(model), error)
    found = samples(model, file, error)
    next(iter(found), None)
    return file.along(found.axes)
