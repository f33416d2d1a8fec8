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

from eightbit.errors import CalibrationError, QuantizationError
from eightbit.graph.feeds import samples, specs
from eightbit.graph.model import constant, input_at, set_constant
from eightbit.graph.run import FloatSession
from eightbit.quant.calibrate import Progress
from eightbit.quant.layout import Layout
from eightbit.quant.moments import FLOOR, PATCHES, Moments
from eightbit.quant.recipe import Recipe
from eightbit.quant.weights import EncodedLayer, encode_layer, steps_of

TAKES_BIAS = {"Conv", "Gemm"}
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

    `data` must bear walking through twice a layer (`replay`). Raises CalibrationError for data that do not fit,
    QuantizationError for a layer that cannot be encoded.
    """
    work = model.clone()
    copies = {str(node.name): node for node in work.graph}
    encoded: dict[str, EncodedLayer] = {}
    for node in model.graph:
        name = str(node.name)
        if name not in layers:
            continue
        weight, bias = constant(node.inputs[1]), constant(input_at(node, 2))
        assert weight is not None
        weight, layout = weight.astype(np.float32), Layout.of(node)
        bias = None if bias is None else bias.astype(np.float32).reshape(-1)
        takes_bias, own = node.op_type in TAKES_BIAS, recipe.for_layer(name)
        seen, cross, mean = _moments(model, work, node, layout, data)
        target = weight
        if takes_bias:
            rows = layout.rows(weight).astype(np.float64)
            moved = rows if seen.count < ENOUGH * rows.shape[2] else _moved(rows, seen.centred, cross)
            target = layout.weight(moved, weight.shape).astype(np.float32)
            shift = np.einsum("gck,gk->gc", rows, mean) - np.einsum("gck,gk->gc", moved, seen.mean)
            bias = ((0.0 if bias is None else bias) + shift.reshape(-1)).astype(np.float32)
        try:
            layer = encode_layer(
                target,
                bias,
                layout,
                input_scale=None,
                recipe=own if takes_bias else replace(own, bias_correction=False),
                moments=seen,
                parts=SCALES,
            )
        except QuantizationError as cause:
            raise QuantizationError(f"node {name!r} ({node.op_type}): {cause}") from cause
        codes = layout.rows(layer.weight)
        values = codes * steps_of(layer.scale, layer.group, codes.shape)
        set_constant(copies[name], 1, layout.weight(values, weight.shape).astype(np.float32))
        if layer.bias is not None:
            set_constant(copies[name], 2, layer.bias, stem=f"{name}.bias")
        encoded[name] = layer
        if progress is not None:
            progress("layers", len(encoded))
    return encoded


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


def _moments(
    exact: ir.Model, work: ir.Model, node: ir.Node, layout: Layout, data: Any
) -> tuple[Moments, NDArray[np.float64], NDArray[np.float64]]:
    """Moments of x', C of equation (1) with the same floor on its diagonal, and the mean (G, K) of x."""
    name = str(node.inputs[0].name)  # type: ignore[union-attr]
    sessions = [FloatSession(graph, [name]) for graph in (exact, work)]
    found: Moments | None = None
    cross: NDArray[np.float64] | float = 0.0
    total: NDArray[np.float64] | float = 0.0
    for sample in samples(data, specs(exact), CalibrationError):
        x, seen = (layout.positions(session.run(sample)[name], thin=PATCHES) for session in sessions)
        turned = seen.transpose(0, 2, 1)
        moments = Moments(
            np.matmul(seen, turned).astype(np.float64), seen.sum(axis=2, dtype=np.float64), seen.shape[2]
        )
        found = moments if found is None else found.add(moments)
        cross = cross + np.matmul(x, turned).astype(np.float64)
        total = total + x.sum(axis=2, dtype=np.float64)
    assert found is not None
    mean = np.asarray(total) / found.count
    inputs = found.hessian.shape[1]
    floor = FLOOR * np.einsum("gkk->g", found.hessian)[:, None, None] / inputs * np.eye(inputs)
    return found, cross - mean[:, :, None] * found.total[:, None, :] + floor, mean
