"""Weights and biases to codes: one layer's float arrays in, its integers out.

Weights are symmetric (zero point 0), one scale for each output channel or one for all; a bias is int32 with the scale
of its accumulator, s_x * s_w[c]. Chapter 4 derives both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import INT32, QuantParams
from eightbit.errors import QuantizationError
from eightbit.quant.correct import corrected_bias
from eightbit.quant.layout import Layout
from eightbit.quant.moments import Moments
from eightbit.quant.recipe import PerTensor, Recipe, Weights

BIAS_LIMIT = 2**30
"""Largest magnitude of a bias code: half of int32, so that the products have room beside it."""


@dataclass(frozen=True)
class EncodedLayer:
    """A layer's integers: `weight` int8 of the float weight's shape, `bias` int32 (C,) or None, and their scales."""

    weight: NDArray[np.int8]
    params: QuantParams
    bias: NDArray[np.int32] | None
    bias_scale: NDArray[np.float32] | None


def encode_layer(
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    layout: Layout,
    *,
    input_scale: np.float32,
    recipe: Recipe,
    moments: Moments | None = None,
) -> EncodedLayer:
    """Quantize a layer whose input has scale `input_scale`.

    `layout` says where the output channels and groups lie in `weight`; `moments` (of the layer's input) are needed
    by rounding that looks at data and by bias correction. A scale is widened where the bias would not fit its int32
    code. Raises QuantizationError for a bias of another length than the channels.
    """
    channels = weight.shape[layout.axis]
    if bias is not None and bias.shape != (channels,):
        raise QuantizationError(
            f"bias has shape {bias.shape}, while the weight has {channels} output channels"
        )
    choice = recipe.weights
    params = fit_scale(weight, layout.axis, choice)
    if bias is not None:
        params = _widen_for_bias(params, bias, input_scale)
    rows = layout.rows(weight)
    steps = params.scale if params.axis is None else params.scale.reshape(*rows.shape[:2], 1)
    codes = choice.rounding.codes(rows, steps, choice.itype, None if moments is None else moments.hessian)
    if recipe.bias_correction and moments is not None:
        bias = corrected_bias(rows, (codes * steps).astype(np.float32), bias, moments)
    weight_codes = np.ascontiguousarray(layout.weight(codes, weight.shape).astype(np.int8))
    if bias is None:
        return EncodedLayer(weight_codes, params, None, None)
    bias_scale = np.broadcast_to(np.float32(input_scale) * params.scale, (channels,)).astype(np.float32)
    bias_codes = np.rint(bias.astype(np.float64) / bias_scale.astype(np.float64))
    limited = np.clip(bias_codes, INT32.qmin, INT32.qmax).astype(np.int32)
    return EncodedLayer(weight_codes, params, limited, bias_scale)


def fit_scale(weight: NDArray[np.float32], axis: int, choice: Weights) -> QuantParams:
    """The scale (C,) or () that `choice` gives a weight: its calibrator's limits, made symmetric.

    A dead channel (all zero) takes the median scale of the living, so that its bias keeps its precision.
    """
    if isinstance(choice.granularity, PerTensor):
        limit = choice.range.row_limits(weight.reshape(1, -1), choice.itype)[0]
        return QuantParams(_scale(limit, choice), np.zeros((), np.int32), choice.itype, None)
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    limit = choice.range.row_limits(rows, choice.itype)
    alive = limit > 0
    limit = np.where(alive, limit, np.median(limit[alive]) if alive.any() else 0.0)
    return QuantParams(_scale(limit, choice), np.zeros(len(limit), np.int32), choice.itype, axis)


def _scale(limit: NDArray[np.float64], choice: Weights) -> NDArray[np.float32]:
    smallest = float(np.finfo(np.float32).tiny)
    scale = np.maximum(limit / choice.itype.qmax, smallest)
    return np.where(limit > 0, scale, 1.0).astype(np.float32)


def _widen_for_bias(params: QuantParams, bias: NDArray[np.float32], input_scale: np.float32) -> QuantParams:
    needed = np.abs(bias.astype(np.float64)) / (BIAS_LIMIT * float(input_scale))
    if params.axis is None:
        needed = needed.max()
    return replace(params, scale=np.maximum(params.scale, needed.astype(np.float32)))
