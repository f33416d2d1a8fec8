"""What quantization changed, as logs that TensorBoard opens: `tensorboard --logdir FOLDER`.

In: the values of an `Explanation`. Out: two runs, `float` and `int8`, one event file each. Tensors are steps, from the
input to the output: ranges and noise are curves over the depth of the network, and each tensor has a histogram in both
runs. The records are written by TensorBoard's own writer (extra `tensorboard`), which needs no TensorFlow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from eightbit.errors import ExportError, MissingExtra
from eightbit.files import write_whole
from eightbit.report.tensors import TensorHistogram

FILE = "events.out.tfevents.eightbit"
"""The same name each time: a second report into one folder replaces the first."""
RUNS = ("float", "int8")


def write_logs(
    folder: str | os.PathLike[str],
    histograms: Sequence[TensorHistogram],
    *,
    sqnr_db: Mapping[str, float],
    accuracy: tuple[float, float] | None,
    agreement: float | None,
    text: str,
) -> Path:
    """Write both runs below `folder`, which is made if need be, and return it.

    Scalars: `range/lowest` and `range/highest` (of the values in float, of the codes in int8), `noise/sqnr_db` and
    `noise/clipped` by tensor, `accuracy` (of float and int8), `agreement`. Histograms: `tensor/NAME`. Texts: `report`,
    `tensors`. Raises MissingExtra without TensorBoard, ExportError.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as cause:
        raise MissingExtra("tensorboard", "tensorboard") from cause

    def summaries(in_float: bool) -> Iterator[tuple[int, Any]]:
        """Step and summary of everything that goes into a run."""
        for step, h in enumerate(histograms):
            lo, hi = h.float_range if in_float else h.grid.limits
            yield step, scalar_pb("range/lowest", lo)
            yield step, scalar_pb("range/highest", hi)
            yield step, _histogram(h, in_float)
            if not in_float:
                yield step, scalar_pb("noise/clipped", h.clipped)
        if accuracy is not None:
            yield 0, scalar_pb("accuracy", accuracy[0 if in_float else 1])
        if in_float:
            return
        steps = {h.name: step for step, h in enumerate(histograms)}
        for name, decibels in sqnr_db.items():
            if isfinite(decibels):
                yield steps[name], scalar_pb("noise/sqnr_db", decibels)
        if agreement is not None:
            yield 0, scalar_pb("agreement", agreement)
        yield 0, text_pb("report", "\n".join(f"    {line}" for line in text.splitlines()))
        names = "\n".join(f"{step}. {name}" for name, step in steps.items())
        yield 0, text_pb("tensors", names.replace("_", "\\_"))

    now = time.time()
    for run in RUNS:
        target = BytesIO()
        writer = RecordWriter(target)
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for step, summary in summaries(run == "float"):
            writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
        place = Path(folder) / run
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise ExportError(f"cannot make the folder {place}: {cause.strerror}") from cause
        write_whole(target.getvalue(), place / FILE)
    return Path(folder)


def _histogram(h: TensorHistogram, in_float: bool) -> Any:
    """Bins (left, right, count), as the histogram plugin keeps them; float values beyond the edges have their own."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.histogram.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    edges = np.array(h.edges)
    bins = np.stack([edges[:-1], edges[1:], np.array(h.before if in_float else h.after)], axis=1)
    if in_float and h.below:
        bins = np.vstack([[h.float_range[0], edges[0], h.below], bins])
    if in_float and h.above:
        bins = np.vstack([bins, [edges[-1], h.float_range[1], h.above]])
    found = Summary()
    found.value.add(
        tag=f"tensor/{h.name}",
        metadata=create_summary_metadata("", f"{h.op}, scale {h.grid.scale:.4g}"),
        tensor=make_tensor_proto(bins, dtype=np.float64),
    )
    return found
