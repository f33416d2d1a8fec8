"""What a report shows, in sections: tables and figures, before anybody decides how they are written down.

In: the values of a report. Out: sections, which `page` writes as HTML. A figure is drawn when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from eightbit import plot
from eightbit.arith.noise import decibels
from eightbit.plot.drawable import Parity, Rows
from eightbit.report.answers import Answers, Flip
from eightbit.report.saliency import Map
from eightbit.report.table import Table
from eightbit.report.tensors import TensorError, TensorHistogram

WORST = 4


@dataclass(frozen=True)
class Figure:
    """`draw` fills an Axes, or as many as there are `panels`; `alt` and `caption` say what it shows."""

    draw: Callable[[Any], Any]
    alt: str
    caption: str
    height: float = 3.6
    panels: int = 1


@dataclass(frozen=True)
class Section:
    """Tables and figures under one title, which may be empty."""

    title: str
    parts: tuple[Table | Figure, ...]


def noise_section(report: Rows, layers: Sequence[TensorError], samples: int) -> Section:
    """The noise of every tensor, and of every tensor in every sample."""
    worst = min(layers, key=lambda row: row.sqnr_db)
    line = Figure(
        lambda ax: plot.layer_sqnr(report, ax=ax),
        f"SQNR of {len(layers)} tensors from the input to the output; {worst.name} has the lowest, "
        f"{decibels(worst.sqnr_db)} dB",
        "All noise since the input is counted; lower is worse.",
    )
    heat = Figure(
        lambda ax: plot.layers_by_sample(report, ax=ax),
        f"Heat map of the SQNR of {len(layers)} tensors for each of {samples} samples",
        "A dark row is a tensor that int8 serves badly; a dark column is a sample.",
        height=7.5,
    )
    return Section("Noise from layer to layer", (line, heat))


def spread_section(histograms: Sequence[TensorHistogram], noise: Mapping[str, float]) -> Section:
    """Ranges of all tensors, and the histograms of those with the lowest SQNR in `noise`."""
    clipped = sum(h.clipped > 0 for h in histograms)
    ranges = Figure(
        lambda ax: plot.ranges(histograms, ax=ax),
        f"Range of the float values of {len(histograms)} tensors against the range of their codes; {clipped} reach "
        "beyond it",
        "Bars that leave the band are clipped; short bars waste codes.",
    )
    noisiest = sorted(histograms, key=lambda h: noise.get(h.name, np.inf))[:WORST]
    return Section("Ranges and histograms, before and after", (ranges, *map(_histogram, noisiest)))


def _histogram(h: TensorHistogram) -> Figure:
    return Figure(
        lambda ax: plot.tensor_histogram(h, ax=ax),
        f"Histogram of tensor {h.name} in float and in int8; {h.clipped:.3%} of its values are clipped",
        f"{h.name}, one of the {WORST} noisiest.",
    )


def answers_section(
    answers: Answers, classes: Sequence[str] | None, pictures: Sequence[Figure] = ()
) -> Section:
    """Which answers changed, and why."""
    changed = int(answers.flipped.sum())
    leads = Figure(
        lambda ax: plot.leads(answers, ax=ax),
        f"Noise against the lead of the float answer for {len(answers)} samples; {changed} lie on or above the "
        "diagonal and changed",
        "An answer changes where noise takes all of its lead.",
    )
    return Section("Answers that changed", (leads, answers.table(classes), *pictures))


def picture_figure(
    flip: Flip,
    picture: Any,
    maps: tuple[Map, Map],
    likeness: float,
    classes: Sequence[str] | None,
) -> Figure:
    """A picture whose answer changed, with the maps of either model; `likeness` is their correlation."""
    first, second = (str(c) if classes is None else classes[c] for c in (flip.float_class, flip.int8_class))
    said = f"Sample {flip.index}: {first} in float, {second} in int8"
    return Figure(
        partial(_draw_picture, picture, maps),
        f"{said}; the picture, and maps of what speaks for the float answer in float and in int8",
        f"{said}. Lead {flip.lead:.2f}, noise {flip.noise:.2f} logits; the two maps correlate {likeness:.2f}. "
        "Orange speaks for the float answer, blue for the other.",
        panels=3,
    )


def _draw_picture(picture: Any, maps: tuple[Map, Map], axes: Any) -> None:
    limit = float(max(np.abs(found).max() for found in maps))
    axes[0].imshow(picture)
    axes[0].set_axis_off()
    for ax, found in zip(axes[1:], maps, strict=True):
        plot.saliency(picture, found, limit=limit, ax=ax)
    for ax, name in zip(axes, ("input", "float", "int8"), strict=True):
        ax.set_title(name)


def parity_section(runs: Sequence[Parity]) -> Section:
    """How far the engines lie from ONNX arithmetic, in all and from layer to layer."""
    bars = Figure(
        lambda ax: plot.parity(runs, ax=ax),
        f"Share of the integers that differ from ONNX arithmetic by one code and more, for {len(runs)} engines",
        "Engines that share an arithmetic have bars of one height. Logarithmic.",
    )
    shown = [run for run in runs if run.every_tensor]
    lines = Figure(
        lambda ax: plot.parity_by_layer(shown, ax=ax),
        f"Share of the integers that differ from ONNX arithmetic, tensor by tensor, for {len(shown)} engines",
        "From the input to the output: differences that are made in one layer go on into the next.",
    )
    return Section("Where the engines differ", (bars, lines))
