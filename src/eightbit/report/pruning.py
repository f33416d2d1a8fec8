"""What pruning took from a float model: each layer before and after, with its channels, multiplications and bytes.

In: the model and the pruned one, whose layers have the same names. Out: a frozen `PrunedModel` that prints, shows
itself in a notebook and turns into JSON. One sample is run through each, for the shapes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eightbit.graph.model import constant
from eightbit.model import Model
from eightbit.pruning.macs import LayerCost, layer_costs, sample_shapes
from eightbit.report.table import Table


@dataclass(frozen=True)
class PrunedLayer:
    """A layer, or a product of activations, before and after; `zeros` is the share of its weights that is zero now.

    One that is gone with its branch has no channels.
    """

    name: str
    before: LayerCost
    after: LayerCost
    zeros: float


@dataclass(frozen=True)
class PrunedModel:
    """All layers, in the order of the graph."""

    layers: tuple[PrunedLayer, ...]

    @property
    def macs(self) -> float:
        """The share of the multiplications that is left."""
        return _share([(layer.before.macs, layer.after.macs) for layer in self.layers])

    def table(self) -> Table:
        """A row for each layer, and one for all."""
        columns = ("layer", "op", "channels>", "", "MACs>", "", "bytes>", "", "zeros>")
        rows: list[tuple[str, ...]] = [
            (
                layer.name,
                layer.before.op,
                *(f"{layer.before.channels:,}", f"{layer.after.channels:,}"),
                *(f"{layer.before.macs:,}", f"{layer.after.macs:,}"),
                *(f"{layer.before.bytes:,}", f"{layer.after.bytes:,}"),
                f"{layer.zeros:.0%}",
            )
            for layer in self.layers
        ]
        sums = [
            f"{sum(getattr(cost, of) for cost in costs):,}"
            for of in ("macs", "bytes")
            for costs in ([x.before for x in self.layers], [x.after for x in self.layers])
        ]
        rows.append(("all", "", "", "", *sums, ""))
        note = f"For one sample, before and after; {self.macs:.1%} of the multiplications are left."
        return Table("Layers:", columns, tuple(rows), note)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists, dicts and numbers, for JSON."""
        return asdict(self) | {"macs": self.macs}

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


def pruned_layers(before: Model, after: Model, data: Any = None) -> PrunedModel:
    """The layers of a model and of what `prune` made of it; `data` are inputs, of which one sample is looked at.

    Raises CalibrationError where a shape is free beside the batch and there are no data.
    """
    costs = [layer_costs(model.ir, sample_shapes(model.ir, data)) for model in (before, after)]
    zeros = {
        str(node.name): _zeros(constant(node.inputs[1])) for node in after.ir.graph if node.name in costs[1]
    }
    return PrunedModel(
        tuple(
            PrunedLayer(name, cost, costs[1].get(name, LayerCost(cost.op, 0, 0, 0)), zeros.get(name, 0.0))
            for name, cost in costs[0].items()
        )
    )


def _zeros(weight: np.ndarray | None) -> float:
    return 0.0 if weight is None else float(np.mean(weight == 0))


def _share(pairs: list[tuple[int, int]]) -> float:
    return sum(after for _, after in pairs) / (sum(before for before, _ in pairs) or 1)
