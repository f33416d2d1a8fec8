"""The first half of the road, place and observe: what the data say about a graph, before any number of bits is chosen.

One stage serves many recipes: those that differ from its own in bits and overrides only are finished from it without
another look at the data (`eightbit.tuning` tries some hundred).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from eightbit.arith.affine import QuantParams
from eightbit.data.replay import replayable
from eightbit.data.specs import specs
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.graph.pickling import HoldsGraph
from eightbit.graph.rescale.channels import channel_peaks
from eightbit.graph.rescale.equalize import elastic_groups, equalize
from eightbit.graph.rescale.smooth import smooth, smooth_sites
from eightbit.graph.source.conversion import COMMON_OPSET, newest_quantizable
from eightbit.graph.sparse import mark_sparse, sparse_layers
from eightbit.quant.choose.capable import Capable, capable
from eightbit.quant.choose.chosen import chosen, layers_of
from eightbit.quant.choose.masks import around_masks, watched
from eightbit.quant.choose.placement import Placement
from eightbit.quant.choose.recipe import Activations, Recipe
from eightbit.quant.encode.layers import encode_layers, wide_layers
from eightbit.quant.encode.weights import EncodedLayer
from eightbit.quant.methods.observers import State
from eightbit.quant.observe.calibrate import Progress, observe, parameters
from eightbit.quant.observe.gates import Swish, swishes, whole_steps
from eightbit.quant.observe.moments import Moments, layer_moments
from eightbit.quant.observe.ranges import (
    beyond_float32,
    choices,
    constant_ranges,
    drowned,
    fixed_limits,
    outweighed,
    strained_sums,
)
from eightbit.quant.observe.readers import as_read


@dataclass(frozen=True)
class Stage(HoldsGraph):
    """A graph, equalized and smoothed as `recipe` says, and what was seen of it.

    `placement` is where `recipe` puts integers as far as the graph alone can tell; `states` has a filled calibrator for
    each tensor that may become codes, `moments` those of each layer's input but for the widest (`encode.layers.WIDE`);
    they are empty if the recipe looks at none. `swishes` are those that may lie between codes.
    """

    can: Capable
    recipe: Recipe
    placement: Placement
    states: Mapping[str, State]
    moments: Mapping[str, Moments]
    swishes: tuple[Swish, ...] = ()
    found: dict[tuple[str, Activations], QuantParams] = field(default_factory=dict, compare=False, repr=False)
    """Parameters by tensor and choice: a searched range is searched for once."""
    made: dict[tuple[Any, ...], EncodedLayer] = field(default_factory=dict, compare=False, repr=False)
    """Codes of layers by node, recipe and scale of the input: a layer is rounded once. They stay here when pickled."""

    walked: dict[Recipe, dict[str, EncodedLayer]] = field(default_factory=dict, compare=False, repr=False)
    """Codes of layers by recipe, of those recipes that round one layer after another. They stay here, too."""

    @property
    def model(self) -> ir.Model:
        """The graph."""
        return self.can.model

    def _kept(self) -> dict[str, Any]:
        return {**self.__dict__, "made": {}, "walked": {}}


def stage(
    model: ir.Model,
    calibration: Any,
    recipe: Recipe,
    *,
    always_moments: bool = False,
    progress: Progress | None = None,
) -> Stage:
    """Everything of a quantization that looks at data: equalize and smooth `model`, in place; calibrate; take moments.

    With `always_moments` they are taken for a recipe that does not ask for them, too. `calibration` may be None for a
    recipe that looks at no data. Raises CalibrationError for data that do not fit, QuantizationError for a graph with
    nothing to quantize.
    """
    mark_sparse(model, sparse_layers(model))
    can = capable(model)
    layers = layers_of(can, recipe)
    looks = always_moments or (recipe.needs_moments and not recipe.sequential)
    data, changed = _rescaled(model, layers, calibration, recipe, again=looks and recipe.calibrates)
    can = capable(model) if changed else can
    placement = chosen(can, recipe)
    _refuse_opset(model)
    states: Mapping[str, State] = {}
    gated: tuple[Swish, ...] = ()
    if recipe.calibrates:
        calibrators = {name: c.range for name, c in choices(model, placement, recipe).items()}
        unclear = {
            name for node, names in watched(model).items() if node in placement.integer for name in names
        }
        observed = observe(model, placement.observed, data, calibrators, sizes=unclear, progress=progress)
        masks = {name for name, octaves in observed.octaves.items() if octaves.masks or octaves.silent}
        if masks:
            can = can.without(around_masks(model, masks))
            placement = chosen(can, recipe)
        states = as_read(model, observed.sound(placement.observed))
        gated = swishes(model, placement.sources)
    if looks and data is None:
        raise CalibrationError(
            "this recipe looks at data to round weights or correct biases; give calibration data, or choose "
            "Nearest() and bias_correction=False, which need none"
        )
    wide = set() if always_moments else set(wide_layers(model, placement.layers))
    seen = tuple(name for name in placement.layers if name not in wide)
    moments = layer_moments(model, seen, data, progress=progress) if looks else {}
    return Stage(can, recipe, placement, states, moments, gated)


def _refuse_opset(model: ir.Model) -> None:
    """Refuse a graph of an opset that ONNX could not lower, and in which ONNX Runtime has no QuantizeLinear."""
    opset = model.opset_imports.get("", COMMON_OPSET)
    if opset > COMMON_OPSET and opset > newest_quantizable():
        raise QuantizationError(
            f"the model uses opset {opset}, in which ONNX Runtime has no QuantizeLinear, and an operator that ONNX "
            f"cannot convert to {newest_quantizable()}; export it with opset {newest_quantizable()} or older"
        )


def _rescaled(
    model: ir.Model, layers: Iterable[str], calibration: Any, recipe: Recipe, *, again: bool
) -> tuple[Any, bool]:
    """Even out the channels of `model`, in place, as far as `recipe` and the data allow.

    Returns the data, to be read once more or, with `again`, more than once; and whether the graph has new nodes.
    """
    alpha = None if calibration is None else recipe.alpha
    sites = () if alpha is None else smooth_sites(model, layers)
    groups = elastic_groups(model) if recipe.equalizes else ()
    data = replayable(calibration, specs(model)) if sites or groups or again else calibration
    if groups:
        equalize(model, channel_peaks(model, [name for g in groups for name in g.seen], data))
    if alpha is not None and sites:
        peaks = channel_peaks(model, [site.tensor for site in sites], data, axis=-1)
        smooth(model, sites, peaks, alpha)
    return data, bool(sites)


def placed(staged: Stage, recipe: Recipe) -> Placement:
    """Where `recipe` puts integers in the stage's graph, now that its tensors were seen."""
    placement = staged.placement if recipe == staged.recipe else chosen(staged.can, recipe)
    strained = strained_sums(staged.model, placement, staged.states, recipe)
    strained |= drowned(staged.model, placement, staged.states, recipe)
    strained |= outweighed(staged.model, placement, staged.states, recipe)
    strained |= beyond_float32(staged.model, placement, staged.states)
    return chosen(staged.can, recipe, strained) if strained else placement


def fitted(staged: Stage, placement: Placement, recipe: Recipe) -> dict[str, QuantParams]:
    """The parameters that `recipe` gives the tensors of a placement. Raises QuantizationError for one never seen."""
    unseen = [name for name in placement.observed if name not in staged.states]
    if unseen:
        raise QuantizationError(
            f"tensor {unseen[0]!r} was not calibrated in this stage: its overrides move codes to where the stage saw "
            "none; quantize anew with this recipe"
        )
    wanted = choices(staged.model, placement, recipe)
    for name, choice in wanted.items():
        if type(choice.range.state()) is not type(staged.states[name]):
            raise QuantizationError(
                f"tensor {name!r} was calibrated in this stage for another range than {choice.range}; quantize anew "
                "with this recipe"
            )
    new = {name: staged.states[name] for name, choice in wanted.items() if (name, choice) not in staged.found}
    fresh = parameters(new, wanted, fixed=fixed_limits(staged.model, placement))
    staged.found.update({(name, wanted[name]): p for name, p in fresh.items()})
    params = {name: staged.found[name, choice] for name, choice in wanted.items()}
    params |= whole_steps(staged.swishes, placement, params, wanted)
    return params | constant_ranges(staged.model, placement, recipe)


def encoded(
    staged: Stage, placement: Placement, params: Mapping[str, QuantParams], recipe: Recipe
) -> dict[str, EncodedLayer]:
    """The codes that `recipe` gives the weights and biases of each layer of a placement."""
    if recipe in staged.walked:
        return staged.walked[recipe]
    return encode_layers(staged.model, placement, params, recipe, staged.moments, known=staged.made)
