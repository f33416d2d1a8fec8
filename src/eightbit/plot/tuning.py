"""What tuning saw: the front of size and quality, and the noise of every source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightbit.plot.look import BLACK, BLUE, INT8_COLOR, ORANGE, SKY, axes_for, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from eightbit.plot.drawable import Sources, Trial, Trials


def front(tuned: Trials, *, ax: Axes | None = None) -> Axes:
    """Every trial by size and quality, the front as a line, the chosen one ringed, the budget as dashed lines.

    Quality is the drop of accuracy in points where it was measured (less is better, so the axis points down), else
    agreement with the float model.
    """
    axes, target = axes_for(ax), tuned.target
    by_drop = tuned.chosen.drop is not None

    def quality(trial: Trial) -> float:
        return 100 * (trial.agreement if trial.drop is None else trial.drop)

    trials, line = tuned.trials, tuned.front
    axes.plot([t.size for t in trials], [quality(t) for t in trials], "o", color=SKY, label="trials")
    axes.plot([t.size for t in line], [quality(t) for t in line], "o-", color=INT8_COLOR, label="front")
    chosen = tuned.chosen
    axes.plot([chosen.size], [quality(chosen)], "o", ms=14, mfc="none", mec=BLACK, label="chosen")
    limit = target.drop if by_drop else target.agreement
    if limit is not None:
        axes.axhline(100 * limit, color=BLACK, lw=0.8, ls="--", label="budget")
    if target.size is not None:
        axes.axvline(target.size, color=BLACK, lw=0.8, ls="--", label=None if limit is not None else "budget")
    if by_drop:
        axes.invert_yaxis()
    axes.set(xlabel="size / float", ylabel="accuracy lost, points" if by_drop else "agreement with float, %")
    axes.legend()
    return axes


def sensitivity(found: Sources, *, weights: int = 8, activations: int = 8, ax: Axes | None = None) -> Axes:
    """SQNR of the outputs with one source quantized alone, weights and activations in the order of the graph.

    The three noisiest of all carry the names of their nodes.
    """
    axes = axes_for(ax)
    place = {id(s): i for i, s in enumerate(found.sources)}
    for rows, bits, color, said in (
        (found.weights, weights, BLUE, f"weights, {weights} bits"),
        (found.activations, activations, ORANGE, f"activations, {activations} bits"),
    ):
        shown = [s for s in rows if s.noise[bits] > 0]
        axes.plot(
            [place[id(s)] for s in shown],
            [s.sqnr_db(bits) for s in shown],
            "o",
            ms=4,
            color=color,
            label=said,
        )
    ranked = found.ordered(weights=weights, activations=activations)[:3]
    for s in ranked:
        bits = weights if s in found.weights else activations
        at = (place[id(s)], s.sqnr_db(bits))
        side = "right" if at[0] > len(place) / 2 else "left"
        axes.annotate(
            label(s.node), at, xytext=(0, -11), textcoords="offset points", ha=side, fontsize="small"
        )
    axes.margins(y=0.15)
    axes.set(xlabel="source, from the input to the output", ylabel="SQNR of the outputs, dB")
    axes.legend()
    return axes
