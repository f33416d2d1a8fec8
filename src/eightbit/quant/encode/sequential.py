"""Round layer after layer: each makes up for what the layers before it, rounded already, have done to its input.

With few bits the errors of early layers are so large that later ones no longer see the inputs that their rounding was
chosen for. Here a layer knows both: x in the float network, and x' in the network whose earlier layers are codes. Its
weights W are first moved to where they give W x from x'::

    W' = (W C + a W) (H + a I)⁻¹,    H = sum (x' - m')(x' - m')ᵀ,    C = sum (x - m)(x' - m')ᵀ                  (1)

with m and m' the means, which minimises ``|W x - W' x'|² + a |W' - W|²`` around them. W' is then rounded for x'
(`rounding`), with the scale of every row that leaves the least error out of SCALES, and the bias becomes
b + W m - codes · m'. The pull `a` towards W keeps noise in the data from speaking.
Source: Li et al. 2025, arXiv 2504.02692 (GPTAQ), whose objective (1) is; Frantar et al. 2022 for the order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.errors import QuantizationError
from eightbit.graph.model import constant, input_at, set_constant
from eightbit.graph.sparse import kept_zeros, sparse_layers
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.encode.layers import TAKES_BIAS, as_fits
from eightbit.quant.encode.seen import Seen, seen_inputs
from eightbit.quant.encode.walk import KEPT, Walk
from eightbit.quant.encode.weights import EncodedLayer, encode_layer
from eightbit.quant.methods.rounding import pruned_rows
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
    model: ir.Model, layers: tuple[str, ...], data: Any, recipe: Recipe, *, progress: Progress | None = None
) -> dict[str, EncodedLayer]:
    """The codes of the named layers, in the order of the graph, for activations in float.

    `data` must bear being read more than once (`replay`). Raises CalibrationError for data that do not fit,
    QuantizationError for a layer that cannot be encoded.
    """
    work = model.clone()
    nodes, copies = ({str(node.name): node for node in graph.graph} for graph in (model, work))
    walk = Walk(model, work, layers, data, keep=KEPT)
    encoded: dict[str, EncodedLayer] = {}
    sparse = sparse_layers(model)
    for wave, names in enumerate(walk.waves):
        seen = seen_inputs([nodes[name] for name in names], walk.inputs(wave))
        for name in names:
            try:
                own = recipe.for_layer(name, nodes[name].op_type)
                own = as_fits(own, Layout.of(nodes[name]), static=False)
                encoded[name] = _encoded(nodes[name], seen[name], own, sparse)
            except QuantizationError as cause:
                raise QuantizationError(f"node {name!r} ({nodes[name].op_type}): {cause}") from cause
            _replace(copies[name], encoded[name])
            if progress is not None:
                progress("layers", len(encoded))
    return encoded


def _encoded(node: ir.Node, seen: Seen, recipe: Recipe, sparse: frozenset[str]) -> EncodedLayer:
    """The codes of a layer. Raises QuantizationError."""
    weight, bias = constant(node.inputs[1]), constant(input_at(node, 2))
    assert weight is not None
    target, layout = weight.astype(np.float32), Layout.of(node)
    bias = None if bias is None else bias.astype(np.float32).reshape(-1)
    takes_bias, zeros = node.op_type in TAKES_BIAS, kept_zeros(weight, node, sparse)
    if takes_bias:
        rows = layout.rows(target).astype(np.float64)
        enough = seen.moments.count >= ENOUGH * rows.shape[2]
        moved = _moved(rows, seen.moments.centred, seen.centred) if enough else rows
        if enough and zeros is not None:
            moved = pruned_rows(moved, layout.rows(zeros), seen.moments.centred)
        target = layout.weight(moved, weight.shape).astype(np.float32)
        shift = np.einsum("gck,gk->gc", rows, seen.mean) - np.einsum("gck,gk->gc", moved, seen.moments.mean)
        bias = ((0.0 if bias is None else bias) + shift.reshape(-1)).astype(np.float32)
    return encode_layer(
        target,
        bias,
        layout,
        input_scale=None,
        recipe=recipe if takes_bias else replace(recipe, bias_correction=False),
        moments=seen.moments,
        parts=(1.0,) if layout.stack else SCALES,
        zeros=zeros,
    )


def _replace(node: ir.Node, layer: EncodedLayer) -> None:
    """Put what the codes of a layer stand for in the place of its weights."""
    set_constant(node, 1, layer.real_weight(Layout.of(node)))
    if layer.bias is not None:
        set_constant(node, 2, layer.bias, stem=f"{node.name}.bias")


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
