"""What quantization did to a whole network: noise from layer to layer, ranges, answers that changed, saliency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from eightbit.plot.look import BLACK, INT8_COLOR, axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from eightbit.comparison import Comparison


def layer_sqnr(comparison: Comparison, *, ax: Axes | None = None) -> Axes:
    """SQNR of every tensor of a comparison in the order of the graph; the three noisiest carry their names."""
    axes = axes_for(ax)
    rows = [row for row in comparison.layers if np.isfinite(row.sqnr_db)]
    heights = [row.sqnr_db for row in rows]
    axes.plot(range(len(rows)), heights, "o-", ms=3.5, lw=1.2, color=INT8_COLOR)
    for place in sorted(range(len(rows)), key=heights.__getitem__)[:3]:
        axes.annotate(
            rows[place].name,
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
        axes.plot(bits, [by_bits[b] for b in bits], "o-", ms=4, label=name)
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
