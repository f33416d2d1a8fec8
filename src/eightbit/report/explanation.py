"""A closer look at what quantization changed: where values are spread, which pictures changed their answer, and why.

In: both models, the data and the `Comparison` of them. Out: a frozen `Explanation` that prints, writes itself as one
HTML page and as logs for TensorBoard. Chapter 10.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.data.labelled import replayed
from eightbit.data.samples import Samples
from eightbit.data.specs import TensorSpec
from eightbit.errors import EngineError
from eightbit.graph.samples import samples
from eightbit.model import Model, QuantizedModel, with_data
from eightbit.quant.observe.calibrate import Progress
from eightbit.report.answers import Flip
from eightbit.report.comparison import LAYER_SAMPLES, Comparison, compare, int8_form, ticking
from eightbit.report.page import write_page
from eightbit.report.saliency import Map, correlation, occlusion
from eightbit.report.section import (
    Figure,
    Section,
    answers_section,
    noise_section,
    picture_figure,
    spread_section,
)
from eightbit.report.table import Table
from eightbit.report.tensorboard import write_logs
from eightbit.report.tensors import TensorHistogram, TensorPairs, layer_histograms
from eightbit.values.fields import check

PICTURES = 6
SQUARES = 7
"""Squares along a picture's side that occlusion hides; with those half-way between them 13 by 13."""


@dataclass(frozen=True, eq=False)
class FlippedPicture:
    """A picture whose answer changed, uint8 (H, W, 3), and what speaks in it for the float answer over the int8 one.

    `float_map` and `int8_map` (H, W) are occlusion maps of the lead in logits, of either model.
    """

    flip: Flip
    picture: NDArray[np.uint8]
    float_map: Map
    int8_map: Map

    @property
    def likeness(self) -> float:
        """Correlation of the two maps."""
        return correlation(self.float_map, self.int8_map)

    def figure(self, classes: Sequence[str] | None = None) -> Figure:
        """The picture between its maps; `classes` names the answers."""
        return picture_figure(
            self.flip, self.picture, (self.float_map, self.int8_map), self.likeness, classes
        )


@dataclass(frozen=True, eq=False)
class Explanation:
    """What `explain` found, beside the comparison: spreads of tensors, pictures that changed their answer.

    `classes` names the classes of the first output, or is None.
    """

    comparison: Comparison
    histograms: tuple[TensorHistogram, ...]
    pictures: tuple[FlippedPicture, ...]
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check(self, EngineError)

    def tables(self) -> tuple[Table, ...]:
        """The comparison's tables, the changed answers, and the ranges of the tensors that are clipped most."""
        found = list(self.comparison.tables())
        if self.comparison.answers is not None:
            found.append(self.comparison.answers.table(self.classes))
        clipped = sorted((h for h in self.histograms if h.clipped), key=lambda h: -h.clipped)[:10]
        if clipped:
            rows = tuple(
                (h.name, h.op, _span(h.float_range), _span(h.grid.limits), f"{h.clipped:.3%}")
                for h in clipped
            )
            columns = ("tensor", "from", "float values", "codes reach", "clipped>")
            found.append(Table("Tensors clipped most", columns, rows))
        return tuple(found)

    def __str__(self) -> str:
        return "\n\n".join(str(t) for t in self.tables())

    def _repr_html_(self) -> str:
        return "".join(t.html() for t in self.tables())

    def html(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML page with every table and figure in it. Raises ExportError, MissingExtra (`plot`)."""
        return write_page(self.comparison.title, self.sections(), path)

    def sections(self) -> tuple[Section, ...]:
        """Everything that the page shows: the comparison's, with spreads and pictures among them."""
        report, tables = self.comparison, self.tables()
        found = [Section("", tables[:1])]
        if report.layers:
            found.append(noise_section(report, report.layers, report.layer_samples))
        if self.histograms:
            found.append(spread_section(self.histograms, {row.name: row.sqnr_db for row in report.layers}))
        if report.answers is not None:
            found.append(
                answers_section(report.answers, self.classes, [p.figure(self.classes) for p in self.pictures])
            )
        return (*found, report.details(t for t in tables[1:] if not t.title.startswith("Changed answers")))

    def tensorboard(self, folder: str | os.PathLike[str]) -> Path:
        """Write logs for TensorBoard below `folder`. Raises ExportError, MissingExtra (`tensorboard`)."""
        report, accuracy = self.comparison, self.comparison.accuracy
        return write_logs(
            folder,
            self.histograms,
            sqnr_db={row.name: row.sqnr_db for row in report.layers},
            accuracy=None if accuracy is None else (accuracy.float_accuracy, accuracy.int8_accuracy),
            agreement=None if report.agreement is None else report.agreement.value,
            text=str(self),
        )


def explain(
    model: Any,
    q: QuantizedModel | str | os.PathLike[str],
    data: Any,
    comparison: Comparison | None = None,
    *,
    labels: Any = None,
    classes: Sequence[str] | None = None,
    pictures: int = PICTURES,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Look closer at what `comparison` found on the same `data` (default: `compare` them now, with `labels` if given).

    Spreads are those of the samples that the comparison took its layers from. Of the changed answers, the `pictures`
    with the largest lead get saliency maps, by occlusion in both models, if the model's one input has the shape of
    pictures with 1 or 3 channels. Models and data are what `compare` takes; data that can be read only once are kept in
    a temporary file. Raises as `compare`, and EngineError for labels beside a comparison, which has its own.
    """
    if comparison is not None and labels is not None:
        raise EngineError(
            "labels were given beside a comparison, which is made already; give them to compare"
        )
    float_model, data = with_data(model, data)
    int8_model = int8_form(float_model, q)
    specs = float_model.inputs
    data, labels = replayed(data, labels, specs)
    report = comparison or compare(
        float_model, int8_model, data, labels=labels, threads=threads, progress=progress
    )

    def stream() -> Samples:
        return samples(float_model.ir, data, EngineError)

    head = islice(stream(), LAYER_SAMPLES)
    spreads = layer_histograms(
        TensorPairs(float_model.ir, int8_model.ir, threads=threads), ticking(head, "histograms", progress)
    )
    flips = () if report.answers is None else report.answers.flips()
    wanted = {f.index: f for f in sorted(flips, key=lambda f: -f.lead)[:pictures]}
    channels = _channels(specs)
    found: list[FlippedPicture] = []
    if channels is not None and wanted:
        for index, sample in enumerate(islice(stream(), max(wanted) + 1)):
            if index in wanted:
                found.append(
                    _flipped(float_model, int8_model, next(iter(sample.values()))[0], wanted[index], channels)
                )
                if progress is not None:
                    progress("pictures", len(found))
    found.sort(key=lambda p: -p.flip.lead)
    return Explanation(report, spreads, tuple(found), None if classes is None else tuple(classes))


def _channels(specs: tuple[TensorSpec, ...]) -> int | None:
    """The axis of a picture's channels, without the batch: 0 or 2, or None for inputs that are no pictures."""
    if len(specs) != 1 or len(specs[0].shape) != 4 or specs[0].shape[0] not in (1, None):
        return None
    shape = specs[0].shape[1:]
    sides = {0: (shape[1], shape[2]), 2: (shape[0], shape[1])}
    for axis in (0, 2):
        if shape[axis] in (1, 3) and all(side is None or side >= SQUARES for side in sides[axis]):
            return axis
    return None


def _flipped(model: Model, q: QuantizedModel, x: NDArray[Any], flip: Flip, channels: int) -> FlippedPicture:
    last = channels == 2
    side = min(x.shape[:2] if last else x.shape[1:])
    pair_of_classes = (flip.float_class, flip.int8_class)
    patch = max(1, round(side / SQUARES))
    maps = [
        occlusion(_one_by_one(m), x, pair_of_classes, patch=patch, channels_last=last) for m in (model, q)
    ]
    return FlippedPicture(flip, as_picture(x, channels_last=last), *maps)


def _one_by_one(model: Model | QuantizedModel) -> Any:
    """The model on a batch, also where its graph takes one sample at a time."""
    if model.inputs[0].shape[0] is None:
        return model

    def run(x: NDArray[np.float32]) -> NDArray[Any]:
        results = [model(one[None]) for one in x]
        return np.concatenate([r[0] if isinstance(r, tuple) else r for r in results])

    return run


def as_picture(x: NDArray[Any], *, channels_last: bool = False) -> NDArray[np.uint8]:
    """A preprocessed input (C, H, W) or (H, W, C) with 1 or 3 channels as something to look at: uint8 (H, W, 3).

    The smallest value becomes black and the largest white.
    """
    plane = np.asarray(x, np.float64) if channels_last else np.moveaxis(np.asarray(x, np.float64), 0, -1)
    lo, hi = plane.min(), plane.max()
    grey = np.round(255 * (plane - lo) / (hi - lo or 1.0)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3)))


def _span(limits: tuple[float, float]) -> str:
    return f"{limits[0]:.3g} .. {limits[1]:.3g}"
