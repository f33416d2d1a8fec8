"""Where weights become codes and activations do not, or do so in every run: the layers alone."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from eightbit.errors import QuantizationError
from eightbit.graph.forms import Form
from eightbit.graph.model import constant
from eightbit.quant.choose.capable import Capable
from eightbit.quant.choose.placement import Island, Placement
from eightbit.quant.choose.recipe import PerGroup, Recipe

ELSEWHERE = (
    "dynamic mode quantizes what layers read, Gemm and MatMul with a constant matrix; the rest stays in float"
)


def weights_alone(can: Capable, recipe: Recipe) -> Placement:
    """A placement of the layers and tables; every other node is an island.

    Raises QuantizationError for a graph without layers, and for groups in a MatMul whose weight is no matrix.
    """
    placement = _layers(can, recipe, "the recipe keeps activations in float", {})
    nodes = {str(node.name): node for node in can.model.graph}
    for name in placement.layers:
        weight = constant(nodes[name].inputs[1])
        grouped = isinstance(recipe.for_layer(name, nodes[name].op_type).weights.granularity, PerGroup)
        if grouped and nodes[name].op_type == "MatMul" and weight is not None and weight.ndim != 2:
            raise QuantizationError(
                f"node {name!r} (MatMul): its weight has shape {weight.shape}, and groups need a matrix; "
                f"use PerChannel(), or overrides={{{name!r}: FLOAT}}"
            )
    return placement


def dynamic_layers(can: Capable, recipe: Recipe) -> Placement:
    """A placement of the Gemms and MatMuls with constant matrices, and of the tables.

    Raises QuantizationError for a graph without such layers.
    """
    nodes = {str(node.name): node for node in can.model.graph}
    refused = {
        name: reason
        for name in can.named(Form.LAYER)
        if not recipe.keeps_float(name, nodes[name].op_type) and (reason := _refusal(nodes[name])) is not None
    }
    placement = _layers(can, recipe, ELSEWHERE, refused)
    if not placement.layers:
        found = "; ".join(f"{name} ({nodes[name].op_type}): {why}" for name, why in list(refused.items())[:5])
        raise QuantizationError(
            f"this graph has no Gemm or MatMul to quantize dynamically: {found}; calibrate it, with static activations"
        )
    return placement


def _layers(can: Capable, recipe: Recipe, elsewhere: str, refused: Mapping[str, str]) -> Placement:
    """The layers that are not `refused`, and the tables; the other nodes that could be integer are left `elsewhere`."""
    floats = {str(n.name) for n in can.model.graph if recipe.keeps_float(str(n.name), n.op_type)}
    kept = {name for name in can.named(Form.LAYER, Form.TABLE) if name not in floats}
    layers = tuple(name for name in can.named(Form.LAYER) if name in kept and name not in refused)
    tables = tuple(name for name in can.named(Form.TABLE) if name in kept)

    def reason(name: str) -> str:
        if name in can.refusals:
            return can.refusals[name]
        return "the recipe keeps it in float" if name in floats else refused.get(name, elsewhere)

    islands = tuple(
        Island(str(node.name), node.op_type, reason(str(node.name)))
        for node in can.model.graph
        if node.name not in kept or node.name in refused
    )
    if not layers and not refused:
        found = "; ".join(f"{i.node} ({i.op}): {i.reason}" for i in islands[:5])
        raise QuantizationError(f"this graph has no layer whose weight could be quantized: {found}")
    return Placement(layers, (), (), {}, {}, islands, tables)


def _refusal(node: ir.Node) -> str | None:
    """Why a layer has no dynamic form that pays."""
    if node.op_type == "Conv":
        return "a convolution: ONNX Runtime has no fused kernel for a dynamic one"
    weight = constant(node.inputs[1])
    assert weight is not None
    return None if weight.ndim == 2 else f"its weight has {weight.ndim} axes; a matrix has a dynamic form"
