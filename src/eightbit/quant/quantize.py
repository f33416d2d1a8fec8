"""The stages of post-training quantization in order: place, calibrate, encode, write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from eightbit.arith.affine import QuantParams, params_from_range
from eightbit.data.feeds import specs
from eightbit.data.replay import replayable
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.graph.model import constant
from eightbit.graph.rescale.channels import channel_peaks
from eightbit.graph.rescale.equalize import elastic_groups, equalize
from eightbit.graph.rescale.smooth import smooth, smooth_sites
from eightbit.graph.run import to_bytes
from eightbit.quant.choose.capable import capable
from eightbit.quant.choose.chosen import chosen
from eightbit.quant.choose.placement import Placement
from eightbit.quant.choose.recipe import Activations, Recipe
from eightbit.quant.encode.sequential import TAKES_BIAS, sequential_layers
from eightbit.quant.encode.weights import EncodedLayer, encode_layer
from eightbit.quant.methods.calibrators import predicted_sqnr_db
from eightbit.quant.methods.observers import Histogram, State
from eightbit.quant.observe.calibrate import Progress, calibrate, parameters
from eightbit.quant.observe.layout import Layout
from eightbit.quant.observe.moments import Moments, layer_moments
from eightbit.quant.write.dynamic import insert_dynamic
from eightbit.quant.write.embeddings import encode_tables, insert_tables
from eightbit.quant.write.qdq import insert_qdq

FIXED_LIMITS = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0)}
"""Outputs whose limits are known without data."""
RESIDUAL_FLOOR_DB = 28
"""In MiniLM, sums below it cost 0.5 to 4 points of cosine each when they were quantized; those above 31 cost none."""


def quantize_graph(
    model: ir.Model, calibration: Any, recipe: Recipe, *, progress: Progress | None = None
) -> tuple[ir.Model, Placement, dict[str, QuantParams]]:
    """A QDQ graph from a prepared float graph, with what was decided on the way.

    Raises CalibrationError for data that do not fit, QuantizationError for a graph with nothing to quantize.
    """
    recipe = recipe.settled(calibration is not None)
    if recipe.weights_only:
        graph, placement = _quantize_weights(model, calibration, recipe, progress)
        return graph, placement, {}
    if recipe.dynamic:
        graph, placement = _quantize_dynamically(model, calibration, recipe, progress)
        return graph, placement, {}
    return finish(stage(model, calibration, recipe, progress=progress), recipe)


@dataclass(frozen=True)
class Stage:
    """What the data said about a graph, before any number of bits is chosen: many recipes can be finished from it.

    `model` is the float graph, equalized and smoothed as `recipe` says; `states` has a filled calibrator for each
    tensor that may become codes, `moments` those of each layer's input (empty if the recipe looks at none). A stage is
    pickled with its graph as ONNX.
    """

    model: ir.Model
    recipe: Recipe
    states: Mapping[str, State]
    moments: Mapping[str, Moments]
    found: dict[tuple[str, Activations], QuantParams] = field(default_factory=dict, compare=False, repr=False)
    """Parameters by tensor and choice: a searched range is searched for once."""
    made: dict[tuple[Any, ...], EncodedLayer] = field(default_factory=dict, compare=False, repr=False)
    """Codes of layers by node, recipe and scale of the input: a layer is rounded once. They stay here when pickled."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "model": to_bytes(self.model), "made": {}}

    def __setstate__(self, held: dict[str, Any]) -> None:
        self.__dict__.update(held, model=ir.from_proto(onnx.load_from_string(held["model"])))


def stage(
    model: ir.Model,
    calibration: Any,
    recipe: Recipe,
    *,
    always_moments: bool = False,
    progress: Progress | None = None,
) -> Stage:
    """Everything of static quantization that looks at data: equalize, smooth, calibrate, take moments.

    With `always_moments` they are taken for a recipe that does not ask for them, too. Raises CalibrationError for data
    that do not fit, QuantizationError for a graph with nothing to quantize.
    """
    recipe = recipe.settled(True)
    can = capable(model)
    placement = chosen(can, recipe)
    sites = () if recipe.alpha is None else smooth_sites(model, placement.layers)
    groups = elastic_groups(model) if recipe.equalizes else ()
    often = always_moments or recipe.needs_moments or sites or groups
    data = replayable(calibration, specs(model)) if often else calibration
    if groups:
        model, _ = equalize(model, channel_peaks(model, [name for g in groups for name in g.seen], data))
    if sites and recipe.alpha is not None:
        peaks = channel_peaks(model, [site.tensor for site in sites], data, axis=-1)
        model = smooth(model, sites, peaks, recipe.alpha)
        can = capable(model)
        placement = chosen(can, recipe)
    calibrators = {name: choice.range for name, choice in choices(model, placement, recipe).items()}
    states = calibrate(model, placement.observed, data, calibrators, progress=progress)
    looks = always_moments or recipe.needs_moments
    moments = layer_moments(model, placement.layers, data, progress=progress) if looks else {}
    return Stage(model, recipe, states, moments)


def finish(staged: Stage, recipe: Recipe) -> tuple[ir.Model, Placement, dict[str, QuantParams]]:
    """The QDQ graph of `recipe`, which differs from `staged.recipe` in bits and overrides only.

    Raises QuantizationError for a recipe that needs what the stage has not looked at.
    """
    recipe, model = recipe.settled(True), staged.model
    placement = placed(staged, recipe)
    params = fitted(staged, placement, recipe)
    layers = encoded(staged, placement, params, recipe)
    return _written(model, placement, params, layers, recipe), placement, params


def encoded(
    staged: Stage, placement: Placement, params: Mapping[str, QuantParams], recipe: Recipe
) -> dict[str, EncodedLayer]:
    """The codes that `recipe` gives the weights and biases of each layer of a placement."""
    return _layers(staged.model, placement, params, recipe, staged.moments, staged.made)


def placed(staged: Stage, recipe: Recipe) -> Placement:
    """Where `recipe` puts integers in the stage's graph."""
    can = capable(staged.model)
    placement = chosen(can, recipe)
    strained = _strained(staged.model, placement, staged.states, recipe)
    return chosen(can, recipe, strained) if strained else placement


def fitted(staged: Stage, placement: Placement, recipe: Recipe) -> dict[str, QuantParams]:
    """The parameters that `recipe` gives the tensors of a placement. Raises QuantizationError for one never seen."""
    unseen = [name for name in placement.observed if name not in staged.states]
    if unseen:
        raise QuantizationError(
            f"tensor {unseen[0]!r} was not calibrated in this stage: its overrides move codes to where the stage saw "
            "none; quantize anew with this recipe"
        )
    chosen = choices(staged.model, placement, recipe)
    for name, choice in chosen.items():
        if type(choice.range.state()) is not type(staged.states[name]):
            raise QuantizationError(
                f"tensor {name!r} was calibrated in this stage for another range than {choice.range}; quantize anew "
                "with this recipe"
            )
    new = {name: staged.states[name] for name, choice in chosen.items() if (name, choice) not in staged.found}
    fresh = parameters(new, chosen, fixed=_fixed(staged.model, placement))
    staged.found.update({(name, chosen[name]): p for name, p in fresh.items()})
    params = {name: staged.found[name, choice] for name, choice in chosen.items()}
    return params | _constants(staged.model, placement, recipe)


def choices(model: ir.Model, placement: Placement, recipe: Recipe) -> dict[str, Activations]:
    """The choice for each observed tensor: that of the node which writes it, or of one that it saturates for."""
    writers = {str(out.name): str(node.name) for node in model.graph for out in node.outputs}
    found = {}
    for name in placement.observed:
        writer = writers.get(name, name)  # an input of the graph is its own writer
        own = recipe.codes_of(writer)
        if own == recipe.codes and writer in placement.absorbed:
            own = recipe.codes_of(placement.absorbed[writer])
        found[name] = own
    return found


def _strained(
    model: ir.Model, placement: Placement, states: Mapping[str, State], recipe: Recipe
) -> dict[str, str]:
    """Additions that only float ops read and whose sum does not fit eight bits, with the reason.

    The residual stream of a transformer holds a few values a hundred times larger than the rest. Where the next op is
    a LayerNorm in float, codes for the sum save nothing, and cost what the histogram says.
    """
    found = {}
    inside = {*placement.layers, *placement.integer, *placement.moves, *placement.absorbed}
    for node in model.graph:
        value = node.outputs[0]
        if node.op_type != "Add" or node.name not in placement.integer or value.is_graph_output():
            continue
        state = states.get(str(value.name))
        if any(use.node.name in inside for use in value.uses()) or not isinstance(state, Histogram):
            continue
        own = recipe.codes_of(str(node.name))
        kept = predicted_sqnr_db(own.range, state, own.itype, own.symmetric)
        if kept < RESIDUAL_FLOOR_DB:
            found[str(node.name)] = (
                f"outliers: codes would keep {kept:.0f} dB of its sum, less than {RESIDUAL_FLOOR_DB}"
            )
    return found


def _quantize_weights(
    model: ir.Model, calibration: Any, recipe: Recipe, progress: Progress | None
) -> tuple[ir.Model, Placement]:
    """The weights only; `calibration` is looked at (and may be None otherwise) if the recipe's rounding needs data."""
    placement = chosen(capable(model), recipe)
    if recipe.sequential:
        data = replayable(calibration, specs(model))
        layers = sequential_layers(model, placement.layers, data, recipe, progress=progress)
        return _written(model, placement, {}, layers, recipe), placement
    moments = {}
    if recipe.needs_moments:
        moments = layer_moments(model, placement.layers, calibration, progress=progress)
    layers = _layers(model, placement, {}, recipe, moments)
    return _written(model, placement, {}, layers, recipe), placement


def _quantize_dynamically(
    model: ir.Model, calibration: Any, recipe: Recipe, progress: Progress | None
) -> tuple[ir.Model, Placement]:
    """Dynamic layers; `calibration` may be None unless rounding or bias correction looks at data.

    SmoothQuant takes the largest input of each channel from the data, and is left out without them.
    """
    placement = chosen(capable(model), recipe)
    data = None if calibration is None else replayable(calibration, specs(model))
    sites = () if recipe.alpha is None or data is None else smooth_sites(model, placement.layers)
    if sites and recipe.alpha is not None:
        peaks = channel_peaks(model, [site.tensor for site in sites], data, axis=-1)
        model = smooth(model, sites, peaks, recipe.alpha)
        placement = chosen(capable(model), recipe)
    moments = {}
    if recipe.needs_moments:
        if calibration is None:
            raise CalibrationError(
                "this recipe looks at data to round weights or correct biases; give calibration data, or choose "
                "Nearest() and bias_correction=False, which need none"
            )
        moments = layer_moments(model, placement.layers, data, progress=progress)
    layers = _layers(model, placement, {}, recipe, moments)
    qdq = insert_dynamic(model, placement, layers)
    return insert_tables(qdq, encode_tables(qdq, placement.tables, recipe)), placement


def _written(
    model: ir.Model,
    placement: Placement,
    params: Mapping[str, QuantParams],
    layers: Mapping[str, EncodedLayer],
    recipe: Recipe,
) -> ir.Model:
    """The QDQ graph: layers and activations, then the tables."""
    qdq = insert_qdq(model, placement, params=params, layers=layers)
    return insert_tables(qdq, encode_tables(qdq, placement.tables, recipe))


def _fixed(model: ir.Model, placement: Placement) -> dict[str, tuple[float, float]]:
    nodes = (node for node in model.graph if node.op_type in FIXED_LIMITS and node.name in placement.integer)
    return {str(node.outputs[0].name): FIXED_LIMITS[node.op_type] for node in nodes}


def _constants(model: ir.Model, placement: Placement, recipe: Recipe) -> dict[str, QuantParams]:
    """Parameters of the constant operands of integer ops, from the values themselves."""
    found = {}
    for node in model.graph:
        if node.name not in placement.integer or node.op_type == "Clip":
            continue
        for value in node.inputs:
            array = constant(value)
            if value is not None and array is not None:
                choice = recipe.codes_of(str(node.name))  # as fine as what the node writes
                lo, hi = float(array.min()), float(array.max())
                found[str(value.name)] = params_from_range(lo, hi, choice.itype, symmetric=choice.symmetric)
    return found


def _layers(
    model: ir.Model,
    placement: Placement,
    params: Mapping[str, QuantParams],
    recipe: Recipe,
    moments: Mapping[str, Moments],
    known: dict[tuple[Any, ...], EncodedLayer] | None = None,
) -> dict[str, EncodedLayer]:
    """The codes of each layer; `known` holds those made before, and is given the new ones."""
    encoded = {}
    known = {} if known is None else known
    wanted = set(placement.layers)
    for node in model.graph:
        name = str(node.name)
        if name not in wanted:
            continue
        source = placement.sources.get(str(node.inputs[0].name))  # type: ignore[union-attr]
        weight = constant(node.inputs[1])
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        assert weight is not None
        own = recipe.for_layer(name)
        input_scale = None if source is None else np.float32(params[source].scale)
        # A Gemm's first bias costs ONNX Runtime a pass over all accumulators; a convolution's costs nothing.
        free = bias is not None or node.op_type == "Conv"
        correct = bool(own.bias_correction) and node.op_type in TAKES_BIAS and free
        key = (
            name,
            own.weights,
            correct,
            recipe.weights_only,
            None if source is None else float(params[source].scale),
        )
        try:
            if key not in known:
                known[key] = encode_layer(
                    weight.astype(np.float32),
                    None if bias is None else bias.astype(np.float32).reshape(-1),
                    Layout.of(node),
                    input_scale=input_scale,
                    recipe=replace(own, bias_correction=correct),
                    moments=moments.get(name),
                )
        except QuantizationError as cause:
            raise QuantizationError(f"node {name!r} ({node.op_type}): {cause}") from cause
        encoded[name] = known[key]
    return encoded
