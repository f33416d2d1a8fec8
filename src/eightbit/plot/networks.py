"""What quantization did to a whole network: noise from layer to layer, ranges, answers that changed, saliency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eightbit.errors import QuantizationError
from eightbit.plot.look import BLACK, BLUE, FLOAT_COLOR, INT8_COLOR, ORANGE, SKY, axes_for, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from eightbit.plot.drawable import Leads, Rows, Spread

MOST_NAMES = 32
"""Rows of a heat map that carry their tensor's name; of more, every second or third does."""


def layer_sqnr(comparison: Rows, *, ax: Axes | None = None) -> Axes:
    """SQNR of every tensor of a comparison in the order of the graph; the three noisiest carry their names."""
    axes = axes_for(ax)
    rows = [row for row in comparison.layers if np.isfinite(row.sqnr_db)]
    heights = [row.sqnr_db for row in rows]
    axes.plot(range(len(rows)), heights, "o-", ms=3.5, lw=1.2, color=INT8_COLOR)
    for place in sorted(range(len(rows)), key=heights.__getitem__)[:3]:
        axes.annotate(
            label(rows[place].name),
            (place, heights[place]),
            xytext=(0, -11),
            textcoords="offset points",
            ha="right" if place > len(rows) / 2 else "left",
            fontsize="small",
        )
    axes.margins(y=0.15)
    axes.set(xlabel="tensor, from the input to the output", ylabel="SQNR, dB")
    return axes


def sqnr_by_bits(measured: Mapping[str, Mapping[int, float]], *, ax: Axes | None = None) -> Axes:
    """SQNR in dB against bits, one line for each name of `measured`, with the slope of 6.02 dB a bit for comparison.

    The slope is 20 log10(2): each bit halves the step. Source: Widrow and Kollár, Quantization Noise (2008).
    """
    axes = axes_for(ax)
    for name, by_bits in measured.items():
        bits = sorted(by_bits)
        axes.plot(bits, [by_bits[b] for b in bits], "o-", ms=4, label=label(name))
    if measured:
        first = next(iter(measured.values()))
        every = sorted({b for by_bits in measured.values() for b in by_bits})
        start = min(first)
        ideal = [first[start] + 20 * np.log10(2) * (b - start) for b in every]
        axes.plot(every, ideal, "--", color=BLACK, lw=1, label="6.02 dB a bit")
        axes.set_xticks(every)
        axes.legend()
    axes.set(xlabel="bits", ylabel="SQNR, dB")
    return axes


def layers_by_recipe(reports: Mapping[str, Rows], *, ax: Axes | None = None) -> Axes:
    """Heat map of SQNR in dB: a row for each tensor that any of the `reports` has, a column for each report by name.

    A tensor that a report does not have, because it stayed in float there, is left grey; one without any error has
    the brightest colour.
    """
    if not reports:
        raise QuantizationError("there is no report to draw; give one at least")
    names = list(dict.fromkeys(row.name for report in reports.values() for row in report.layers))
    cells = np.full((len(names), len(reports)), np.nan)
    for column, report in enumerate(reports.values()):
        for row in report.layers:
            cells[names.index(row.name), column] = row.sqnr_db
    axes = _heat_map(cells, names, axes_for(ax))
    axes.set_xticks(range(len(reports)), list(reports))
    return axes


def layers_by_sample(report: Rows, *, ax: Axes | None = None) -> Axes:
    """Heat map of SQNR in dB: a row for each tensor, a column for each sample that `compare` looked into."""
    cells = np.array([row.by_sample for row in report.layers], np.float64)
    if cells.ndim != 2 or not cells.size:
        raise QuantizationError("the report has no tensors of codes to draw")
    axes = _heat_map(cells, [row.name for row in report.layers], axes_for(ax))
    axes.set_xlabel("sample")
    return axes


def ranges(histograms: Sequence[Spread], *, ax: Axes | None = None) -> Axes:
    """What the float values of each tensor span, in codes of its grid, over the 256 codes that there are.

    A bar that leaves the band is clipped; one that is much shorter than the band wastes codes.
    """
    axes = axes_for(ax)
    spans = [np.array(h.float_range) / h.grid.scale + h.grid.zero_point for h in histograms]
    lo, hi = (np.array([span[i] for span in spans]) for i in (0, 1))
    axes.axhspan(-128.5, 127.5, color=ORANGE, alpha=0.2, lw=0, zorder=0, label="the 256 codes")
    axes.bar(np.arange(len(lo)), hi - lo, bottom=lo, width=0.8, color=FLOAT_COLOR, label="float values")
    axes.set_yscale("symlog", linthresh=256)
    most = max(256.0, float(np.abs(np.concatenate([lo, hi])).max(initial=0.0)))
    ticks = [t for t in (-10000, -1000, -128, 0, 127, 1000, 10000) if abs(t) <= 1.2 * most]
    axes.set_yticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_ylim(-1.2 * most, 1.2 * most)
    axes.set(xlabel="tensor, from the input to the output", ylabel="range, in codes")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return axes


def tensor_histogram(histogram: Spread, *, ax: Axes | None = None) -> Axes:
    """A tensor's values in float and after quantization, over the range of its grid; counts on a logarithmic scale.

    The title says how much is clipped. Float values beyond the edges are counted at the ends.
    """
    axes, h = axes_for(ax), histogram
    before = np.array(h.before)
    before[0] += h.below
    before[-1] += h.above
    edges = np.array(h.edges)
    axes.stairs(before, edges, fill=True, color=SKY, label="float")
    axes.stairs(np.array(h.after), edges, color=INT8_COLOR, lw=1.4, label="int8")
    axes.axvspan(*h.grid.limits, color=ORANGE, alpha=0.15, lw=0, zorder=0, label="range of the codes")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="value", ylabel="count", title=f"{label(h.name)}: {h.clipped:.3%} clipped")
    axes.legend(loc="upper right", fontsize="x-small")
    return axes


def leads(answers: Leads, *, ax: Axes | None = None) -> Axes:
    """Each sample's noise against the lead of its float answer; those on or above the diagonal changed their answer."""
    axes = axes_for(ax)
    changed = answers.flipped
    kept = ~changed
    axes.plot(answers.lead[kept], answers.noise[kept], ".", ms=3, color=BLUE, alpha=0.5, label="kept")
    axes.plot(answers.lead[changed], answers.noise[changed], "D", ms=5, color=INT8_COLOR, label="changed")
    top = float(max(answers.noise.max(initial=0.0), answers.lead[changed].max(initial=0.0))) * 1.1 or 1.0
    axes.plot([0, top], [0, top], "--", color=BLACK, lw=1, label="noise = lead")
    axes.set(xlabel="lead of the float answer, logits", ylabel="noise on it, logits")
    axes.legend()
    return axes


def saliency(
    picture: ArrayLike, heat: ArrayLike, *, limit: float | None = None, ax: Axes | None = None
) -> Axes:
    """A map (H, W) laid over its picture (H, W) or (H, W, 3): orange speaks for the answer, blue against it.

    Colours are full at `limit`, default: the map's largest magnitude. Maps to be compared need one limit.
    """
    axes, shown, values = axes_for(ax), np.asarray(picture), np.asarray(heat, np.float64)
    if shown.shape[:2] != values.shape:
        raise QuantizationError(
            f"a map of shape {values.shape} does not fit a picture of shape {shown.shape}"
        )
    full = limit or float(np.abs(values).max()) or 1.0
    axes.imshow(shown if shown.ndim == 2 else shown.mean(axis=2), cmap="gray", alpha=0.55)
    share = np.clip(np.abs(values) / full, 0, 1)
    for sign, colour in ((1, "#E69F00"), (-1, "#0072B2")):
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        layer = np.dstack([np.full((*values.shape, 3), rgb), 0.75 * share * (sign * values > 0)])
        axes.imshow(layer)
    axes.set_axis_off()
    return axes


def _heat_map(cells: NDArray[np.float64], names: Sequence[str], axes: Any) -> Any:
    finite = cells[np.isfinite(cells)]
    # A few tensors that are all but exact would leave one colour for all the others.
    limits = np.quantile(finite, [0.0, 0.95]).tolist() if finite.size else [0.0, 1.0]
    masked = np.ma.masked_array(cells, np.isnan(cells))
    picture = axes.imshow(
        masked, aspect="auto", interpolation="nearest", cmap="cividis", vmin=limits[0], vmax=limits[1]
    )
    axes.set_facecolor("#d9d9d9")
    axes.grid(visible=False)
    step = -(-len(names) // MOST_NAMES)
    axes.set_yticks(range(0, len(names), step), [label(name) for name in names[::step]], fontsize="x-small")
    axes.figure.colorbar(picture, ax=axes, label="SQNR, dB", extend="max")
    return axes
