"""The codes of all layers of a placement: each by its own choice of the recipe, from the moments of its input.

Layers that share a weight are rounded as one, for all their inputs together, so that they share its codes as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.arith.affine import QuantParams
from eightbit.errors import QuantizationError
from eightbit.graph.model import constant, fixed_shape, input_at
from eightbit.graph.sharing import tied
from eightbit.graph.sparse import kept_zeros, sparse_layers
from eightbit.quant.choose.placement import Placement
from eightbit.quant.choose.recipe import PerTensor, Recipe
from eightbit.quant.encode.weights import EncodedLayer, encode_layer
from eightbit.quant.methods.rounding import Nearest
from eightbit.quant.observe.layout import Layout
from eightbit.quant.observe.moments import Moments

TAKES_BIAS = {"Conv", "Gemm"}
WIDE = 5_120
"""Inputs of a layer above which weights go to the nearest code: K inputs have K² moments (here 210 MB, and three times
that while GPTQ factors them, in K³ operations), for weights of which there may be a few thousand."""


def encode_layers(
    model: ir.Model,
    placement: Placement,
    params: Mapping[str, QuantParams],
    recipe: Recipe,
    moments: Mapping[str, Moments],
    *,
    known: dict[tuple[Any, ...], EncodedLayer] | None = None,
) -> dict[str, EncodedLayer]:
    """The codes of each layer; `known` holds those made before, and is given the new ones."""
    encoded = {}
    known = {} if known is None else known
    wanted, sparse = set(placement.layers), sparse_layers(model)
    nodes = [node for node in model.graph if node.name in wanted]
    ties = layers_alike(nodes, recipe)
    for node in nodes:
        name = str(node.name)
        weight = constant(node.inputs[1])
        bias = constant(input_at(node, 2))
        assert weight is not None
        layout = Layout.of(node)
        own, input_scale = as_placed(node, placement, params, recipe)
        if name not in moments and layout.inputs(weight.shape) > WIDE:
            own = replace(own, weights=replace(own.weights, rounding=Nearest()))
        correct = bool(own.bias_correction) and bias_is_free(node)
        # Around the mean gains 0.6 dB on EfficientNet-Lite0 with weights alone in 8 bits (28.8 to 29.4). With codes for
        # activations it loses 0.1 to 0.3: their noise moves the mean as well, and moments around zero resist that.
        centred = recipe.weights_only and correct
        key = (
            name,
            own.weights,
            correct,
            recipe.weights_only,
            recipe.holds_pairs,
            None if input_scale is None else float(input_scale),
            ties[name],
        )
        try:
            if key not in known:
                known[key] = encode_layer(
                    weight.astype(np.float32),
                    None if bias is None else bias.astype(np.float32).reshape(-1),
                    layout,
                    input_scale=input_scale,
                    recipe=replace(own, bias_correction=correct),
                    moments=moments.get(name),
                    together=_together([moments[other] for other in ties[name] if other in moments]),
                    centred=centred,
                    zeros=kept_zeros(weight, node, sparse),
                )
        except QuantizationError as cause:
            raise QuantizationError(f"node {name!r} ({node.op_type}): {cause}") from cause
        encoded[name] = known[key]
    return encoded


def as_placed(
    node: ir.Node, placement: Placement, params: Mapping[str, QuantParams], recipe: Recipe
) -> tuple[Recipe, np.float32 | None]:
    """A layer's own recipe as far as its weight can take it, and the scale of its input's codes, None in float.

    A vector makes one channel. A stack of matrices that multiplies codes gets one scale in all: ONNX has none for a
    column of each, and ONNX Runtime no kernel for one a column.
    """
    source = placement.sources.get(str(node.inputs[0].name))  # type: ignore[union-attr]
    own, layout = recipe.for_layer(str(node.name), node.op_type), Layout.of(node)
    if layout.vector or (layout.stack and source is not None):
        own = replace(own, weights=replace(own.weights, granularity=PerTensor()))
    return own, None if source is None else np.float32(params[source].scale)


def bias_is_free(node: ir.Node) -> bool:
    """Whether a layer's bias can be changed for nothing, where one is.

    A Gemm's first bias costs ONNX Runtime a pass over all accumulators; a convolution's costs nothing.
    """
    return node.op_type == "Conv" or (node.op_type == "Gemm" and constant(input_at(node, 2)) is not None)


def layers_alike(nodes: Sequence[ir.Node], recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Of each layer, the names of those that have the same float weight and choice: they get one set of codes."""
    shared = tied(nodes)
    found: dict[Any, list[str]] = {}
    for node in nodes:
        name = str(node.name)
        own = recipe.for_layer(name, node.op_type)
        key = shared.get(name, name), Layout.of(node), own.weights, own.bias_correction
        found.setdefault(key, []).append(name)
    return {name: tuple(names) for names in found.values() for name in names}


def wide_layers(model: ir.Model, layers: Sequence[str]) -> dict[str, int]:
    """Those of the named layers with more than WIDE inputs, and how many."""
    nodes = {str(node.name): node for node in model.graph}
    shapes = {name: fixed_shape(nodes[name].inputs[1]) for name in layers}
    counts = {
        name: Layout.of(nodes[name]).inputs(shape) for name, shape in shapes.items() if shape is not None
    }
    return {name: count for name, count in counts.items() if count > WIDE}


def _together(moments: Sequence[Moments]) -> Moments | None:
    """The sum; None of nothing."""
    return reduce(add, moments) if moments else None
