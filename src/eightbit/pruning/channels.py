"""What of a graph can be removed: units of channels, in groups of like ones, and what each costs in multiplications.

In: a prepared graph and the concrete shapes of its tensors. Out: `Channels`, which says for any choice of units that
stay how many multiplications are left; `cut` removes the others from the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.errors import QuantizationError
from eightbit.graph.model import constant, is_op
from eightbit.pruning.follow import Follow, follow
from eightbit.pruning.macs import LAYERS, layer_costs
from eightbit.pruning.shape_rules import RULES
from eightbit.pruning.units import Labels

Keep = NDArray[np.bool_]
"""For each unit whether it stays, (units,)."""


@dataclass(frozen=True, eq=False)
class Group:
    """Units (n,) that lie on the same axes of the same tensors: the channels of a layer, or of a residual stage.

    `width` is how many channels of a layer one of them is at least: 64 for a head of that many. `name` is the first of
    the layers that make them.
    """

    name: str
    units: NDArray[np.int64]
    width: int


@dataclass(frozen=True)
class Cost:
    """The multiplications of a layer: `each` times the lengths of `axes`, which are numbers of `Channels.lengths`."""

    node: str
    op: str
    each: int
    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Channels:
    """The units of a graph.

    `counts[a, u]` is how many positions on axis a unit u takes, `stays[a]` how many of them are fixed.
    """

    model: ir.Model
    found: Follow
    numbers: Mapping[int, int]
    groups: tuple[Group, ...]
    costs: tuple[Cost, ...]
    counts: NDArray[np.int64]
    stays: NDArray[np.int64]

    @property
    def size(self) -> int:
        """How many units there are."""
        return self.counts.shape[1]

    def units(self, labels: Labels) -> NDArray[np.int64]:
        """The unit of each label, (n,); -1 for those that stay."""
        return np.array([self.numbers.get(root, -1) for root in self.found.units.roots(labels)], np.int64)

    def kept(self, labels: Labels, keep: Keep) -> NDArray[np.bool_]:
        """For each position on an axis whether it stays, (n,)."""
        return np.append(keep, True)[self.units(labels)]

    def macs(self, keep: Keep | None = None) -> dict[str, int]:
        """The multiplications of each layer for one sample, all units kept or those of `keep`."""
        alive = np.ones(self.size, bool) if keep is None else keep
        lengths = self.counts @ alive + self.stays
        return {c.node: c.each * math.prod(int(lengths[a]) for a in c.axes) for c in self.costs}


def channels(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> Channels:
    """The units of a prepared graph; `shapes` has those of all tensors for one sample (`macs.sample_shapes`).

    Raises QuantizationError for a graph of which nothing can be removed, with the reasons.
    """
    found = follow(model, RULES)
    roots = dict.fromkeys(
        int(root)
        for use in found.uses
        if use.made is not None
        for root in found.units.roots(use.axes[use.made])
        if root >= 0
    )
    if not roots:
        raise QuantizationError(f"no channel of this model can be removed: {reasons(found)}")
    numbers = {root: number for number, root in enumerate(roots)}
    axes = [labels for use in found.uses for labels in use.axes.values()]
    costs = _costs(model, found, axes, shapes)
    counts, stays = np.zeros((len(axes), len(numbers)), np.int64), np.zeros(len(axes), np.int64)
    for row, labels in enumerate(axes):
        for root in found.units.roots(labels):
            if int(root) in numbers:
                counts[row, numbers[int(root)]] += 1
            else:
                stays[row] += 1
    return Channels(model, found, numbers, _groups(found, numbers, counts), tuple(costs), counts, stays)


def reasons(found: Follow, most: int = 3) -> str:
    """Why channels stay: each layer whose own are fixed, with the first reason."""
    said = []
    for use in found.uses:
        if use.made is not None and is_op(use.node, *LAYERS):
            why = found.units.reason(int(use.axes[use.made][0]))
            if why is not None:
                said.append(f"{use.node.name!r} ({use.node.op_type}): {why}")
    shown = "; ".join(said[:most])
    return (shown if len(said) <= most else f"{shown}; and {len(said) - most} more") or "it has no layer"


def _groups(found: Follow, numbers: Mapping[int, int], counts: NDArray[np.int64]) -> tuple[Group, ...]:
    """Units whose columns of `counts` are equal."""
    makers: dict[int, str] = {}
    widths: dict[int, int] = {}
    for use in found.uses:
        if use.made is None:
            continue
        for root, width in zip(
            *np.unique(found.units.roots(use.axes[use.made]), return_counts=True), strict=True
        ):
            unit = numbers.get(int(root))
            if unit is not None:
                makers.setdefault(unit, str(use.node.name))
                widths[unit] = min(int(width), widths.get(unit, int(width)))
    like: dict[bytes, list[int]] = {}
    for unit in range(counts.shape[1]):
        like.setdefault(counts[:, unit].tobytes(), []).append(unit)
    return tuple(Group(makers[units[0]], np.array(units), widths[units[0]]) for units in like.values())


def _costs(
    model: ir.Model, found: Follow, axes: list[Labels], shapes: Mapping[str, tuple[int, ...]]
) -> list[Cost]:
    """The multiplications of every layer and product; axes of products' results are appended to `axes`."""
    weights = {use.node: use for use in found.uses if use.index == 1}
    row = {id(labels): number for number, labels in enumerate(axes)}
    full = layer_costs(model, shapes)
    costs = []
    for node in model.graph:
        if str(node.name) not in full:
            continue
        product = constant(node.inputs[1]) is None
        known = found.of(node.outputs[0]) if product else weights[node].axes if node in weights else {}
        labelled = list(known.values())
        for labels in labelled:
            if id(labels) not in row:
                row[id(labels)] = len(axes)
                axes.append(labels)
        each = full[str(node.name)].macs // math.prod(len(labels) for labels in labelled)
        costs.append(Cost(str(node.name), node.op_type, each, tuple(row[id(labels)] for labels in labelled)))
    return costs
