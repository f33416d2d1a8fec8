"""Which weights become codes where the activations stay in float."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from eightbit.errors import QuantizationError
from eightbit.graph.model import constant
from eightbit.quant.choose.placement import Island, Placement, place
from eightbit.quant.choose.recipe import FLOAT, Activations, Layer, PerChannel, PerGroup, Recipe, Weights


def place_weights(
    model: ir.Model, recipe: Recipe, *, reason: str = "the recipe keeps activations in float"
) -> Placement:
    """A placement of the layers alone: the same that `place` finds, and every other node an island, for `reason`.

    Raises QuantizationError for an override that matches no node, for a graph without layers, and for groups in a
    MatMul whose weight is no matrix.
    """
    floats = {
        pattern: FLOAT if choice is FLOAT or choice.weights is FLOAT else Layer(Weights())
        for pattern, choice in recipe.overrides.items()
    }
    bare = replace(
        recipe,
        activations=Activations(),
        weights=replace(recipe.weights, granularity=PerChannel()),
        overrides=floats,
    )
    whole = place(model, bare)
    layers = set(whole.layers)
    reasons = {island.node: island.reason for island in whole.islands}
    if not layers:
        found = "; ".join(f"{i.node} ({i.op}): {i.reason}" for i in whole.islands[:5])
        raise QuantizationError(f"this graph has no layer whose weight could be quantized: {found}")
    islands = []
    for node in model.graph:
        name = str(node.name)
        if name not in layers and name not in whole.tables:
            islands.append(Island(name, node.op_type, reasons.get(name, reason)))
        elif (
            name in layers
            and isinstance(recipe.for_layer(name).weights.granularity, PerGroup)
            and node.op_type == "MatMul"
        ):
            weight = constant(node.inputs[1])
            if weight is not None and weight.ndim != 2:
                raise QuantizationError(
                    f"node {name!r} (MatMul): its weight has shape {weight.shape}, and groups need a matrix; "
                    f"use PerChannel(), or overrides={{{name!r}: FLOAT}}"
                )
    return Placement(whole.layers, (), (), {}, {}, tuple(islands), whole.tables)
