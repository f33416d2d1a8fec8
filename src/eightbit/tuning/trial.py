"""One recipe, tried: what a worker of the search does, wherever it runs.

A `Job` holds all that a trial needs and is pickled once; a trial itself is a recipe on the way there and a few
numbers on the way back.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf, log10
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.data.feeds import Feeds
from eightbit.data.labelled import Labelled
from eightbit.data.replay import bounded, once
from eightbit.deploy.sessions import OnnxRuntime
from eightbit.errors import EngineError, QuantizationError
from eightbit.graph.forms import LAYERS
from eightbit.graph.model import constant, is_op
from eightbit.graph.packing import packed_widths
from eightbit.graph.pickling import HoldsGraph
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples
from eightbit.graph.save import file_bytes
from eightbit.model import Model, QuantizedModel, Report
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.quantize import finish
from eightbit.quant.stage import Stage
from eightbit.tuning.sensitivity import stage_for_tuning
from eightbit.tuning.target import Trial

Evaluate = Callable[[Any], float]
"""The accuracy, as a share, of a model that is given as a callable."""


@dataclass(frozen=True)
class Data:
    """Batches to measure on, the float model's first outputs on them, and labels where there are any."""

    batches: tuple[Feeds, ...]
    exact: NDArray[np.float32]
    labels: NDArray[np.int64] | None

    @classmethod
    def of(cls, model: Model, data: Any, labels: Any = None) -> Data:
        """`data` and `labels` as `compare` takes them, run through the float model.

        Raises EngineError for outputs of no classes, and labels that are none of them.
        """
        stream = Labelled(data, labels, model.inputs)
        found = samples(model.ir, stream, EngineError).as_given()
        held = tuple(bounded(found, EngineError) if once(data) else found)
        exact = first_outputs(FloatSession(model.ir), held)
        if exact.ndim != 2 or exact.shape[1] < 2:
            raise EngineError(
                f"the model's first output has shape {exact.shape}; tuning compares the classes that it names, so it "
                "must be (N, classes)"
            )
        return cls(held, exact, stream.labels(*exact.shape))


@dataclass(frozen=True)
class Job(HoldsGraph):
    """The float `model`, what to calibrate and measure on, and the stage to finish recipes from, once there is one."""

    model: ir.Model
    calibration: tuple[Feeds, ...]
    data: Data
    float_bytes: int
    evaluate: Evaluate | None = None
    float_accuracy: float | None = None
    staged: Stage | None = None
    threads: int | None = None
    made: list[Stage] = field(default_factory=list, repr=False)
    """Stages that trials made in this process; they stay here when the job is pickled."""

    def _kept(self) -> dict[str, Any]:
        return {**self.__dict__, "made": []}

    def stage(self, recipe: Recipe) -> Stage:
        """The stage of just this recipe, made once."""
        known = next((s for s in self.made if s.recipe == recipe.settled(True)), None)
        if known is None:
            known = stage_for_tuning(self.model, self.calibration, recipe)
            self.made.append(known)
        return known

    def quantized(self, recipe: Recipe) -> QuantizedModel:
        """The model of a recipe: finished from the stage, or from the data where there is no stage yet."""
        graph, placement, params = finish(self.staged or self.stage(recipe), recipe, self.calibration)
        return QuantizedModel(graph, Report(placement.islands, params, recipe))


def attempt(job: Job, recipe: Recipe, step: str) -> Trial:
    """Quantize by `recipe` and measure on the job's data."""
    q = job.quantized(recipe)
    return measured_trial(job, q, recipe, step)


def measured_trial(job: Job, q: QuantizedModel, recipe: Recipe, step: str) -> Trial:
    """What `q` is worth on the job's data."""
    exact = job.data.exact
    found = first_outputs(OnnxRuntime(q.ir, threads=job.threads), job.data.batches)
    noise = float(np.square(exact.astype(np.float64) - found).sum())
    signal = float(np.square(exact, dtype=np.float64).sum())
    drop = None
    if job.evaluate is not None and job.float_accuracy is not None:
        drop = job.float_accuracy - as_share(job.evaluate(q))
    elif job.data.labels is not None:
        right = exact.argmax(axis=1) == job.data.labels
        drop = float(right.mean()) - float((found.argmax(axis=1) == job.data.labels).mean())
    return Trial(
        recipe=recipe,
        step=step,
        size=len(file_bytes(q.ir)) / job.float_bytes,
        bits=stored_bits(q.ir),
        agreement=float((exact.argmax(axis=1) == found.argmax(axis=1)).mean()),
        sqnr_db=10 * log10(signal / noise) if noise and signal else inf,
        drop=drop,
    )


def first_outputs(session: FloatSession | OnnxRuntime, data: Sequence[Feeds]) -> NDArray[np.float32]:
    """The first output on every batch, one behind the other."""
    return np.concatenate([next(iter(session.run(feeds).values())) for feeds in data])


def stored_bits(qdq: ir.Model) -> float:
    """Bits that the file spends on a weight in the mean: those of the codes, or 32 for a weight left in float."""
    narrow, bits, count = packed_widths(qdq), 0, 0
    for node in qdq.graph:
        if not is_op(node, *LAYERS) or len(node.inputs) < 2 or node.inputs[1] is None:
            continue
        source = node.inputs[1].producer()
        if source is not None and source.op_type == "Reshape" and source.inputs[0] is not None:
            source = source.inputs[0].producer()
        value = node.inputs[1] if source is None else source.inputs[0]
        codes = constant(value)
        if codes is not None and value is not None:
            bits += codes.size * narrow.get(str(value.name), 8 * codes.dtype.itemsize)
            count += codes.size
    return bits / count if count else 32.0


def as_share(accuracy: Any) -> float:
    """What `evaluate` returned, checked. Raises QuantizationError."""
    value = float(accuracy)
    if not 0 <= value <= 1:
        raise QuantizationError(f"`evaluate` returned {value}; give the accuracy as a share between 0 and 1")
    return value


@dataclass
class Workers:
    """Where trials run: here, in processes, or behind an executor that the caller brings."""

    executor: Any = None
    count: int = 1
    folder: Path | None = None
    _sent: list[tuple[Job, Any]] = field(default_factory=list)

    def run(self, job: Job, tasks: Sequence[tuple[Recipe, str]]) -> list[Trial]:
        """The trials of `tasks`, in their order."""
        if self.executor is None or len(tasks) == 0:
            return [attempt(job, recipe, step) for recipe, step in tasks]
        if not self._sent or self._sent[-1][0] is not job:
            self._sent.append((job, self._send(job)))
        sent = self._sent[-1][1]
        call = _attempt_from_file if isinstance(sent, Path) else attempt
        futures = [self.executor.submit(call, sent, recipe, step) for recipe, step in tasks]
        return [future.result() for future in futures]

    def _send(self, job: Job) -> Any:
        """The job as its tasks shall get it: through a file for own processes, scattered by Dask, else as it is."""
        if self.folder is not None:
            path = self.folder / f"{len(self._sent)}.pickle"
            path.write_bytes(pickle.dumps(job, protocol=pickle.HIGHEST_PROTOCOL))
            return path
        scatter = getattr(self.executor, "scatter", None)
        return job if scatter is None else scatter(job, broadcast=True)


@contextmanager
def workers(count: int = 1, executor: Any = None) -> Iterator[Workers]:
    """`count` processes of this machine, or the `executor` that is given: one with `submit(function, *arguments)`.

    Raises QuantizationError for both, or for an executor that is none.
    """
    if executor is not None:
        if count != 1:
            raise QuantizationError(f"workers={count} and an executor were given; give one of them")
        if not callable(getattr(executor, "submit", None)):
            raise QuantizationError(
                f"executor of type {type(executor).__name__} has no method `submit`; give a concurrent.futures "
                "executor or a dask.distributed Client"
            )
        yield Workers(executor)
    elif count < 1:
        raise QuantizationError(f"workers={count}: 1 at least")
    elif count == 1:
        yield Workers()
    else:
        with (
            tempfile.TemporaryDirectory(prefix="eightbit-") as folder,
            ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool,
        ):
            yield Workers(pool, count, Path(folder))


def _attempt_from_file(path: Path, recipe: Recipe, step: str) -> Trial:
    return attempt(_job_at(path), recipe, step)


@lru_cache(maxsize=1)
def _job_at(path: Path) -> Job:
    job: Job = pickle.loads(path.read_bytes())
    return job
