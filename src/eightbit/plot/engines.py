"""Engines beside one another: how many integers differ, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from eightbit.plot.look import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from eightbit.plot.drawable import Parity

COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
LEAST = 1e-6
"""Where the logarithmic axis of shares begins."""


def parity(runs: Sequence[Parity], *, ax: Axes | None = None) -> Axes:
    """Bars of the share of all integers that differ from ONNX arithmetic by 1, 2, 3 codes and more, by engine."""
    axes, places = axes_for(ax), np.arange(len(runs))
    every = [run.shares()[1:] for run in runs]
    for i, color in enumerate((SKY, ORANGE, VERMILION)):
        said = "1 code" if i == 0 else f"{i + 1} codes" + (" and more" if i == 2 else "")
        axes.bar(places + 0.27 * (i - 1), [shares[i] for shares in every], 0.25, color=color, label=said)
    axes.set_yscale("symlog", linthresh=LEAST)
    axes.set_ylim(0, 1)
    axes.set_xticks(places, [run.title for run in runs], rotation=30, ha="right")
    axes.set(ylabel="share of integers")
    axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1))  # above: bars may reach the top
    return axes


def parity_by_layer(runs: Sequence[Parity], *, ax: Axes | None = None) -> Axes:
    """The share of a tensor's integers that differ from ONNX arithmetic, a line an engine; lines of 0 are left out."""
    axes = axes_for(ax)
    for i, run in enumerate(runs):
        shares = [row.differing / max(1, row.integers) for row in run.onnx]
        if any(shares):
            axes.plot(shares, "o-", ms=3, lw=1, color=COLORS[i % len(COLORS)], label=run.title)
    axes.set(xlabel="tensor, from the input to the output", ylabel="share of integers that differ")
    axes.set_ylim(bottom=0)
    axes.legend()
    return axes
