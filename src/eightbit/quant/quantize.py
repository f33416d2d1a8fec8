"""The road of post-training quantization: place, observe, encode, write.

1. *place*: what of the graph can be integer (`choose.capable`), and what of that the recipe wants (`choose.chosen`);
2. *observe*: data through the float graph, for ranges and for the moments of layers' inputs (`stage`, `observe`);
3. *encode*: ranges to scales, weights and biases to codes (`encode`);
4. *write*: the codes into the graph (`write`).

Weight-only and dynamic recipes go the same way: their placements hold layers alone, so there is less to observe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from eightbit.arith.affine import QuantParams
from eightbit.data.replay import replayable
from eightbit.data.specs import specs
from eightbit.errors import QuantizationError
from eightbit.graph.prepare.upsampling import transposed_to_conv
from eightbit.graph.processor import METADATA
from eightbit.quant.choose.placement import Placement
from eightbit.quant.choose.recipe import PerToken, Recipe
from eightbit.quant.encode.sequential import sequential_layers
from eightbit.quant.encode.weights import EncodedLayer
from eightbit.quant.observe.calibrate import Progress
from eightbit.quant.stage import Stage, encoded, fitted, placed, stage
from eightbit.quant.write.dynamic import insert_dynamic
from eightbit.quant.write.embeddings import encode_tables, insert_tables
from eightbit.quant.write.gates import write_gates
from eightbit.quant.write.qdq import insert_qdq
from eightbit.quant.write.tokens import insert_per_token

Quantized = tuple[ir.Model, Placement, dict[str, QuantParams]]
"""A QDQ graph, and what was decided on the way."""


def quantize_graph(
    model: ir.Model, calibration: Any, recipe: Recipe, *, progress: Progress | None = None
) -> Quantized:
    """A QDQ graph from a prepared float graph, which is left as it is, with what was decided on the way.

    Raises CalibrationError for data that do not fit, QuantizationError for a graph with nothing to quantize.
    """
    recipe = recipe.settled(calibration is not None)
    data = replayable(calibration, specs(model)) if recipe.sequential else calibration
    return finish(begin(model, data, recipe, progress=progress), recipe, data, progress=progress)


def begin(model: ir.Model, data: Any, recipe: Recipe, *, progress: Progress | None = None) -> Stage:
    """The stage of a settled recipe and a prepared float graph, which is left as it is; raises as `quantize_graph`.

    Transposed convolutions become convolutions where activations are static codes: no runtime has the former in int8.
    """
    copy = model.clone()
    if not (recipe.dynamic or recipe.weights_only):
        transposed_to_conv(copy, lambda node: recipe.keeps_float(str(node.name), node.op_type))
    return stage(copy, data, recipe, progress=progress)


def finish(staged: Stage, recipe: Recipe, data: Any = None, *, progress: Progress | None = None) -> Quantized:
    """The QDQ graph of `recipe`, which differs from `staged.recipe` in bits and overrides only.

    `data` are for a recipe that looks at them layer after layer. Raises QuantizationError for a recipe that needs what
    the stage has not looked at.
    """
    recipe = recipe.settled(True)
    placement = placed(staged, recipe)
    params = fitted(staged, placement, recipe)
    copy = staged.model.clone()
    if recipe.sequential:
        if data is None:
            raise QuantizationError(
                "this recipe rounds layer after layer, and looks at the data for each; give them as `data`"
            )
        if recipe not in staged.walked:  # it takes a run of the data for each wave of layers
            found = sequential_layers(copy, placement, params, data, recipe, progress=progress)
            staged.walked[recipe] = found
    _write(copy, placement, params, encoded(staged, placement, params, recipe), recipe)
    gated = write_gates(copy, staged.swishes, placement, params)
    return copy, placement.in_integers(gated), params


def _write(
    model: ir.Model,
    placement: Placement,
    params: Mapping[str, QuantParams],
    layers: Mapping[str, EncodedLayer],
    recipe: Recipe,
) -> None:
    """Put the codes of layers, activations and tables into `model`."""
    if recipe.dynamic:
        insert = insert_per_token if recipe.codes.granularity == PerToken() else insert_dynamic
        insert(model, placement, layers)
    else:
        insert_qdq(model, placement, params=params, layers=layers)
    if recipe.holds_pairs:
        model.metadata_props[METADATA] = str(recipe.processor)
    insert_tables(model, encode_tables(model, placement.tables, recipe))
