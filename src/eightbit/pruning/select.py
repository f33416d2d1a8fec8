"""Which units go: the least important for the multiplications that they cost, until a budget is met.

Each step removes the units of one group that lose the least importance for each multiplication saved; what a group
saves depends on what is left around it, so it is counted anew at each step.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from eightbit.errors import QuantizationError
from eightbit.pruning.channels import Channels, Group, Keep, reasons


def select(
    channels: Channels,
    scores: NDArray[np.float64],
    macs: float,
    *,
    whole: float | None = None,
    multiple: int = 1,
    floor: float = 0.0,
) -> Keep:
    """The units that stay, (units,), so that at most the share `macs` of `whole`, or all, multiplications is left.

    `scores` (units,) say what is lost with each unit. A group keeps at least one unit and the share `floor` of its own,
    and, where it loses any, a number of channels that `multiple` divides. Raises QuantizationError for a budget that
    cannot be met so.
    """
    groups = channels.groups
    ranked = [group.units[np.argsort(scores[group.units], kind="stable")] for group in groups]
    alive = np.array([len(group.units) for group in groups])
    takes = np.stack([channels.counts[:, group.units[0]] for group in groups], axis=1)  # (axes, groups)
    width = max(len(cost.axes) for cost in channels.costs)
    none = len(channels.stays)  # an axis of length 1, for layers with fewer labelled ones
    axes = np.array([[*cost.axes, *[none] * (width - len(cost.axes))] for cost in channels.costs])
    each = np.array([cost.each for cost in channels.costs], np.float64)

    def total(left: NDArray[np.int64]) -> NDArray[np.float64]:
        """The multiplications for numbers of units (groups, variants), (variants,)."""
        lengths = takes @ left + channels.stays[:, None]
        lengths = np.vstack([lengths, np.ones((1, lengths.shape[1]), np.int64)])
        return np.asarray(each @ lengths[axes].astype(np.float64).prod(axis=1))

    now = float(total(alive[:, None])[0])
    budget = macs * (whole or now)
    while now > budget:
        fewer = np.array([_fewer(g, int(n), multiple, floor) for g, n in zip(groups, alive, strict=True)])
        lost = np.array(
            [
                scores[units[len(units) - n : len(units) - m]].sum()
                for units, n, m in zip(ranked, alive, fewer, strict=True)
            ]
        )
        able = np.flatnonzero((fewer < alive) & np.isfinite(lost))
        if not len(able):
            raise QuantizationError(
                f"macs={macs:g} cannot be met: {macs * now / budget:.3f} of the multiplications are left where every "
                f"group has as few channels as multiple={multiple} and floor={floor:g} allow; "
                f"these layers keep all of theirs: {reasons(channels.found)}"
            )
        variants = np.repeat(alive[:, None], len(able), axis=1)
        variants[able, np.arange(len(able))] = fewer[able]
        left = total(variants)
        best = int(np.argmin(lost[able] / np.maximum(now - left, 1e-9)))
        alive[able[best]], now = fewer[able[best]], float(left[best])
    keep = np.ones(channels.size, bool)
    for units, n in zip(ranked, alive, strict=True):
        keep[units[: len(units) - n]] = False
    return keep


def _fewer(group: Group, alive: int, multiple: int, floor: float) -> int:
    """The next smaller number of units that a group may have; `alive` where there is none."""
    step = multiple // math.gcd(multiple, group.width)
    least = max(1, math.ceil(floor * len(group.units)))
    found = (alive - 1) // step * step
    return found if found >= least else alive
