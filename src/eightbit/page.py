"""A report as one HTML page that needs nothing else: no network, no script, figures inside, light and dark.

In: a `Comparison` or an `Explanation`. Out: a file. The same report gives the same bytes.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from eightbit import plot
from eightbit.comparison import Comparison
from eightbit.explanation import Explanation, FlippedPicture
from eightbit.graph.save import write_whole
from eightbit.layers import TensorHistogram
from eightbit.plot.look import pyplot
from eightbit.tables import Table, decibels

STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --paper: #ffffff; --line: #d0d0d0; --soft: #f3f3f3; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --paper: #16181a; --line: #444a50; --soft: #22262a; }
}
body { color: var(--text); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 60rem; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.75rem 0; }
caption { text-align: left; font-weight: 600; padding: 0.25rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.75rem; text-align: left; }
thead th { background: var(--soft); }
figure { margin: 1rem 0; }
figure img { background: #fff; border-radius: 0.4rem; max-width: 100%; height: auto; padding: 0.5rem;
  box-sizing: border-box; }
figcaption, p.note { font-size: 0.9rem; }
"""
WORST = 4


def write_page(report: Comparison | Explanation, path: str | os.PathLike[str]) -> Path:
    """Write `report` as a page; the file appears whole or not at all. Raises ExportError, MissingExtra (`plot`)."""
    return write_whole(page(report).encode(), path)


def page(report: Comparison | Explanation) -> str:
    """The page of `report` as text."""
    explanation = report if isinstance(report, Explanation) else None
    comparison = report.comparison if isinstance(report, Explanation) else report
    title = f"What int8 changed on {comparison.samples:,} samples"
    body = "".join(_sections(comparison, explanation))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>What int8 changed</h1>\n{body}</main></body></html>\n"
    )


def _sections(comparison: Comparison, explanation: Explanation | None) -> Iterator[str]:
    tables = (explanation or comparison).tables()
    yield _table(tables[0])
    if comparison.layers:
        yield "<h2>Noise from layer to layer</h2>"
        worst = min(comparison.layers, key=lambda row: row.sqnr_db)
        yield _figure(
            comparison.plot,
            f"SQNR of {len(comparison.layers)} tensors from the input to the output; {worst.name} has the lowest, "
            f"{decibels(worst.sqnr_db)} dB",
            "All noise since the input is counted; lower is worse.",
        )
        yield _figure(
            lambda ax: plot.layers_by_sample(comparison, ax=ax),
            f"Heat map of the SQNR of {len(comparison.layers)} tensors for each of {comparison.layer_samples} samples",
            "A dark row is a tensor that int8 serves badly; a dark column is a sample.",
            height=7.5,
        )
    if explanation is not None:
        yield from _spreads(explanation)
    if comparison.answers is not None:
        yield from _answers(comparison, explanation)
    yield "<h2>Details</h2>"
    yield from (_table(t) for t in tables[1:] if not t.title.startswith("Changed answers"))
    every = tuple((row.name, row.op, decibels(row.sqnr_db)) for row in comparison.layers)
    if every:
        yield _table(Table("Every tensor", ("tensor", "from", "SQNR dB>"), every))


def _spreads(explanation: Explanation) -> Iterator[str]:
    histograms = explanation.histograms
    if not histograms:
        return
    yield "<h2>Ranges and histograms, before and after</h2>"
    clipped = sum(h.clipped > 0 for h in histograms)
    yield _figure(
        lambda ax: plot.ranges(histograms, ax=ax),
        f"Range of the float values of {len(histograms)} tensors against the range of their codes; {clipped} reach "
        "beyond it",
        "Bars that leave the band are clipped; short bars waste codes.",
    )
    noise = {row.name: row.sqnr_db for row in explanation.comparison.layers}
    for h in sorted(histograms, key=lambda h: noise.get(h.name, np.inf))[:WORST]:
        yield _figure(
            partial(_histogram, h),
            f"Histogram of tensor {h.name} in float and in int8; {h.clipped:.3%} of its values are clipped",
            f"{h.name}, one of the {WORST} noisiest.",
        )


def _histogram(h: TensorHistogram, ax: Any) -> Any:
    return plot.tensor_histogram(h, ax=ax)


def _answers(comparison: Comparison, explanation: Explanation | None) -> Iterator[str]:
    answers = comparison.answers
    assert answers is not None
    yield "<h2>Answers that changed</h2>"
    changed = int(answers.flipped.sum())
    yield _figure(
        lambda ax: plot.leads(answers, ax=ax),
        f"Noise against the lead of the float answer for {len(answers)} samples; {changed} lie on or above the "
        "diagonal and changed",
        "An answer changes where noise takes all of its lead.",
    )
    yield _table(answers.table(explanation.classes if explanation else None))
    if explanation is not None:
        for found in explanation.pictures:
            yield _picture(found, explanation.classes)


def _picture(found: FlippedPicture, classes: tuple[str, ...] | None) -> str:
    flip = found.flip
    first, second = (str(c) if classes is None else classes[c] for c in (flip.float_class, flip.int8_class))
    limit = float(max(np.abs(found.float_map).max(), np.abs(found.int8_map).max()))

    def draw(axes: Any) -> None:
        axes[0].imshow(found.picture)
        axes[0].set_axis_off()
        plot.saliency(found.picture, found.float_map, limit=limit, ax=axes[1])
        plot.saliency(found.picture, found.int8_map, limit=limit, ax=axes[2])
        for ax, name in zip(axes, ("input", "float", "int8"), strict=True):
            ax.set_title(name)

    said = f"Sample {flip.index}: {first} in float, {second} in int8"
    return _figure(
        draw,
        f"{said}; the picture, and maps of what speaks for the float answer in float and in int8",
        f"{said}. Lead {flip.lead:.2f}, noise {flip.noise:.2f} logits; the two maps correlate {found.likeness:.2f}. "
        "Orange speaks for the float answer, blue for the other.",
        panels=3,
    )


def _table(table: Table) -> str:
    return f'<div class="wide">{table.html()}</div>\n'


def _figure(
    draw: Callable[[Any], Any], alt: str, caption: str, *, height: float = 3.6, panels: int = 1
) -> str:
    """A figure that `draw` fills, as an image in the page's own text."""
    plt = pyplot()
    with plot.style(**{"svg.hashsalt": "eightbit"}):
        figure, axes = plt.subplots(1, panels, figsize=(8.0, height))
        try:
            draw(axes)
            target = BytesIO()
            figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
        finally:
            plt.close(figure)
    data = base64.b64encode(target.getvalue()).decode()
    return (
        f'<figure><img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )
