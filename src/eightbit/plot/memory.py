"""The memory of a network in C: which bytes hold what, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightbit.plot.look import BLACK, BLUE, ORANGE, SKY, axes_for, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from eightbit.plot.drawable import Blocks

NAMED = 0.12
"""Share of the arena from which on a block is tall enough for its name."""


def arena(plan: Blocks, *, ax: Axes | None = None) -> Axes:
    """Every block as a rectangle: from the step that writes it to the one that reads it last, over its bytes.

    Where rectangles overlap, an output is written over the part of an input that is done with. The dashed line is the
    most bytes that are alive in one step, what an arena takes whose blocks share none.
    """
    axes = axes_for(ax)
    for i, block in enumerate(sorted(plan.buffers, key=lambda b: b.first)):
        span, begin = block.last - block.first + 1, plan.offsets[block.name]
        axes.bar(
            block.first - 0.5,
            block.size,
            span,
            begin,
            align="edge",
            color=(SKY, ORANGE)[i % 2],
            edgecolor=BLACK,
            lw=0.6,
            alpha=0.6,
        )
        if block.size >= NAMED * plan.size:
            at = (block.first + (span - 1) / 2, begin + block.size / 2)
            axes.text(*at, label(block.name), ha="center", va="center", fontsize="x-small")
    axes.axhline(plan.most_live, color=BLUE, lw=0.9, ls="--", label="most bytes alive in one step")
    axes.set(xlabel="step", ylabel="bytes")
    axes.legend()
    return axes
