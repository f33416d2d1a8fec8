"""The memory of a network in C: which bytes hold what, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightbit.plot.look import BLACK, BLUE, ORANGE, SKY, axes_for, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from eightbit.plot.drawable import Blocks


def arena(plan: Blocks, *, ax: Axes | None = None) -> Axes:
    """Every block as a rectangle: from the step that writes it to the one that reads it last, over its bytes.

    Where rectangles overlap, an output is written over the part of an input that is done with. The dashed line is the
    most bytes that are alive in one step, what an arena takes whose blocks share none. A block has its name where it
    fits, upright if need be.
    """
    axes, named = axes_for(ax), []
    for i, block in enumerate(sorted(plan.buffers, key=lambda b: b.first)):
        span, begin = block.last - block.first + 1, plan.offsets[block.name]
        (bar,) = axes.bar(
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
        at = (block.first + (span - 1) / 2, begin + block.size / 2)
        name = axes.text(*at, label(block.name), ha="center", va="center", fontsize="x-small")
        named.append((name, bar))
    axes.axhline(plan.most_live, color=BLUE, lw=0.9, ls="--", label="most bytes alive in one step")
    axes.set(xlabel="step", ylabel="bytes")
    axes.legend()
    for name, bar in named:
        room, wide = bar.get_window_extent(), name.get_window_extent()
        if wide.height > room.height or wide.width > room.width:
            name.set(rotation="vertical", x=bar.get_x() + 0.5)  # in the middle of its first step
            name.set_visible(wide.height <= room.width and wide.width <= room.height)
    return axes
