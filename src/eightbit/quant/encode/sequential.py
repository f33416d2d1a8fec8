"""Round layer after layer: each makes up for what the layers before it, rounded already, have done to its input.

With few bits the errors of early layers and of activations are so large that later layers no longer see the inputs that
their rounding was chosen for. Here a layer knows both: x in the float network, and x' in the network whose earlier
layers are codes, and whose activations are, if the recipe says so. Its weights W are first moved to where they give W x
from x'::

    W' = (W C + a W) (H + a I)⁻¹,    H = sum (x' - m')(x' - m')ᵀ,    C = sum (x - m)(x' - m')ᵀ                  (1)

with m and m' the means, which minimises ``|W x - W' x'|² + a |W' - W|²`` around them. W' is then rounded for x'
(`rounding`), with the scale of every row that leaves the least error out of SCALES, and the bias becomes
b + W m - codes · m'. The pull `a` towards W keeps noise in the data from speaking.
Source: Li et al. 2025, arXiv 2504.02692 (GPTAQ), whose objective (1) is; Frantar et al. 2022 for the order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.arith.affine import QuantParams
from eightbit.errors import QuantizationError
from eightbit.graph.model import constant, input_at, set_constant
from eightbit.graph.sparse import kept_zeros, sparse_layers
from eightbit.quant.choose.placement import Placement
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.encode.layers import TAKES_BIAS, as_placed, bias_is_free, layers_alike, wide_layers
from eightbit.quant.encode.rounded import round_activations
from eightbit.quant.encode.seen import Seen, seen_inputs
from eightbit.quant.encode.walk import KEPT, Walk
from eightbit.quant.encode.weights import EncodedLayer, encode_layer, least_scale, with_bias
from eightbit.quant.methods.rounding import Nearest, pruned_rows
from eightbit.quant.observe.calibrate import Progress
from eightbit.quant.observe.layout import Layout

PULL = 1.0
"""a, as a multiple of the mean diagonal of H. EfficientNet-Lite0, weights in 4 bits, 36 crops: 7.7 dB with 1 and
SCALES, 6.4 with 3 and whole scales; rounded to the nearest -2.5."""
SCALES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Parts of a row's own scale. With seven levels to a side, cutting off a row's largest weights can serve the others."""
ENOUGH = 2
"""Positions for each input from which weights are moved: fewer can be matched by weights that fit nothing else."""


def sequential_layers(
    model: ir.Model,
    placement: Placement,
    params: Mapping[str, QuantParams],
    data: Any,
    recipe: Recipe,
    *,
    progress: Progress | None = None,
) -> dict[str, EncodedLayer]:
    """The codes of a placement's layers, in the order of the graph. `params` are those of the activations that become
    codes: a layer then makes up for their rounding as well.

    `data` must bear being read more than once (`replay`). Layers that share a weight share its codes, which are those
    of the first, not moved; layers that are too wide (`WIDE`) go to the nearest codes. Raises CalibrationError for data
    that do not fit, QuantizationError for a layer that cannot be encoded.
    """
    work = model.clone()
    nodes = {str(node.name): node for node in model.graph if node.name in placement.layers}
    copies = {str(node.name): node for node in work.graph}
    rounding = _OneByOne(
        placement, params, recipe, layers_alike([*nodes.values()], recipe), sparse_layers(model)
    )
    wide = wide_layers(model, placement.layers)
    for name in wide:
        _replace(copies[name], rounding.encode(nodes[name], None))
    inputs = round_activations(work, placement, params)
    narrow = [name for name in placement.layers if name not in wide]
    walk = Walk(model, work, narrow, data, keep=KEPT, rounded=inputs)
    for wave, names in enumerate(walk.waves):
        seen = seen_inputs([nodes[name] for name in names], walk.inputs(wave))
        for name in names:
            _replace(copies[name], rounding.encode(nodes[name], seen[name]))
            if progress is not None:
                progress("layers", len(rounding.encoded))
    return {name: rounding.encoded[name] for name in nodes}


@dataclass
class _OneByOne:
    """Encodes layers in the order of the graph; `encoded` are those that it has seen."""

    placement: Placement
    params: Mapping[str, QuantParams]
    recipe: Recipe
    alike: Mapping[str, tuple[str, ...]]
    sparse: frozenset[str]
    encoded: dict[str, EncodedLayer] = field(default_factory=dict)

    def encode(self, node: ir.Node, seen: Seen | None) -> EncodedLayer:
        """The codes of a layer; to the nearest if nothing was `seen` of its input. Raises QuantizationError."""
        name = str(node.name)
        own, scale = as_placed(node, self.placement, self.params, self.recipe)
        known = next((self.encoded[other] for other in self.alike[name] if other in self.encoded), None)
        try:
            if seen is None:
                found = _nearest(node, own, scale)
            else:
                alone = len(self.alike[name]) == 1
                again = None if known is None else _as_before(node, seen, known, scale)
                found = again or _encoded(node, seen, own, scale, self.sparse, move=alone)
        except QuantizationError as cause:
            raise QuantizationError(f"node {name!r} ({node.op_type}): {cause}") from cause
        self.encoded[name] = found
        return found


def _nearest(node: ir.Node, recipe: Recipe, input_scale: np.float32 | None) -> EncodedLayer:
    """The codes of a layer of whose input nothing is known."""
    weight, bias = _constants(node)
    own = replace(recipe, weights=replace(recipe.weights, rounding=Nearest()))
    return encode_layer(weight, bias, Layout.of(node), input_scale=input_scale, recipe=own)


def _as_before(
    node: ir.Node, seen: Seen, known: EncodedLayer, input_scale: np.float32 | None
) -> EncodedLayer | None:
    """The codes `known` of a layer with the same weight, and a bias of its own; None if that has no codes beside."""
    weight, bias = _constants(node)
    layout = Layout.of(node)
    if _corrects(node, input_scale):
        rows, real = (layout.rows(w).astype(np.float64) for w in (weight, known.real_weight(layout)))
        bias = _balanced(bias, rows, real, seen)
    fits = input_scale is None or np.all(least_scale(known.scale, bias, input_scale) <= known.scale)
    return with_bias(known, bias, input_scale) if fits else None


def _encoded(
    node: ir.Node,
    seen: Seen,
    recipe: Recipe,
    input_scale: np.float32 | None,
    sparse: frozenset[str],
    *,
    move: bool,
) -> EncodedLayer:
    """The codes of a layer, its weights moved first if `move`. Raises QuantizationError."""
    weight, bias = _constants(node)
    target, layout = weight, Layout.of(node)
    corrects, zeros = _corrects(node, input_scale), kept_zeros(weight, node, sparse)
    if corrects:
        rows = layout.rows(target).astype(np.float64)
        enough = move and seen.moments.count >= ENOUGH * rows.shape[2]
        moved = _moved(rows, seen.moments.centred, seen.centred) if enough else rows
        if enough and zeros is not None:
            moved = pruned_rows(moved, layout.rows(zeros), seen.moments.centred)
        target = layout.weight(moved, weight.shape).astype(np.float32)
        bias = _balanced(bias, rows, moved, seen)
    return encode_layer(
        target,
        bias,
        layout,
        input_scale=input_scale,
        recipe=recipe if corrects else replace(recipe, bias_correction=False),
        moments=seen.moments,
        centred=corrects,
        parts=(1.0,) if layout.stack else SCALES,
        zeros=zeros,
    )


def _balanced(
    bias: NDArray[np.float32] | None, rows: NDArray[np.float64], now: NDArray[np.float64], seen: Seen
) -> NDArray[np.float32]:
    """The bias (C,) with which the rows `now` (G, C, K) have the mean output from x' that `rows` have from x."""
    shift = np.einsum("gck,gk->gc", rows, seen.mean) - np.einsum("gck,gk->gc", now, seen.moments.mean)
    return ((0.0 if bias is None else bias) + shift.reshape(-1)).astype(np.float32)


def _constants(node: ir.Node) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """A layer's weight, and its bias (C,)."""
    weight, bias = constant(node.inputs[1]), constant(input_at(node, 2))
    assert weight is not None
    return weight.astype(np.float32), None if bias is None else bias.astype(np.float32).reshape(-1)


def _corrects(node: ir.Node, input_scale: np.float32 | None) -> bool:
    """Whether the bias can take up what becomes of the mean: of float accumulators it can always, if there is one."""
    return node.op_type in TAKES_BIAS if input_scale is None else bias_is_free(node)


def _replace(node: ir.Node, layer: EncodedLayer) -> None:
    """Put what the codes of a layer stand for in the place of its weights."""
    set_constant(node, 1, layer.real_weight(Layout.of(node)))
    if layer.real_bias is not None:
        set_constant(node, 2, layer.real_bias, stem=f"{node.name}.bias")


def _moved(
    rows: NDArray[np.float64], hessian: NDArray[np.float64], cross: NDArray[np.float64]
) -> NDArray[np.float64]:
    """W' of equation (1), (G, C, K), for the moments `hessian` and `cross` (G, K, K)."""
    inputs = rows.shape[2]
    pull = PULL * np.einsum("gkk->g", hessian)[:, None, None] / inputs * np.eye(inputs)
    dead = np.einsum("gkk->g", hessian) == 0  # the group's input is always zero: nothing to make up with
    safe = hessian + pull + dead[:, None, None] * np.eye(inputs)
    moved = np.linalg.solve(safe, (rows @ (cross + pull)).transpose(0, 2, 1)).transpose(0, 2, 1)
    return np.where(dead[:, None, None], rows, moved)
