"""Weights and biases to codes: one layer's float arrays in, its integers out.

Weights are symmetric (zero point 0), with one scale for all, for each output channel, or for each group of a
channel's inputs; a bias is int32 with the scale of its accumulator, s_x * s_w[c], or stays in float where the
activations do. Chapter 4 derives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import INT32, TINY
from eightbit.errors import QuantizationError
from eightbit.quant.choose.recipe import PerGroup, PerTensor, Recipe, Weights
from eightbit.quant.encode.correct import corrected_bias
from eightbit.quant.methods.pairs import Pairs, pairs_along, steps_needed
from eightbit.quant.methods.rounding import Codes, Nearest, row_errors
from eightbit.quant.observe.layout import Layout
from eightbit.quant.observe.moments import Moments

BIAS_LIMIT = 2**30
"""Largest magnitude of a bias code: half of int32, so that the products have room beside it."""


@dataclass(frozen=True)
class EncodedLayer:
    """A layer's integers and their scales.

    `weight` has the float weight's shape: int8, or int16 for more than 8 bits. `scale` float32 is () for the whole
    tensor, (C,) by output channel, or (C, groups) with `group` inputs in each. `bias` is int32 (C,) with `bias_scale`
    float32 (C,), or float32 (C,) without one, or None.
    """

    weight: NDArray[np.integer]
    scale: NDArray[np.float32]
    bias: NDArray[np.int32] | NDArray[np.float32] | None = None
    bias_scale: NDArray[np.float32] | None = None
    group: int | None = None

    def real_weight(self, layout: Layout) -> NDArray[np.float32]:
        """The numbers that the codes of the weight stand for, float32 in the weight's shape."""
        rows = real_rows(layout.rows(self.weight), self.scale, self.group)
        return np.ascontiguousarray(layout.weight(rows, self.weight.shape))

    @property
    def real_bias(self) -> NDArray[np.float32] | None:
        """The numbers that the bias stands for, float32 (C,)."""
        if self.bias is None or self.bias_scale is None:
            return self.bias  # type: ignore[return-value]  # float32 without a scale
        return (self.bias.astype(np.float64) * self.bias_scale).astype(np.float32)


def encode_layer(
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    layout: Layout,
    *,
    input_scale: np.float32 | None,
    recipe: Recipe,
    moments: Moments | None = None,
    together: Moments | None = None,
    centred: bool = False,
    parts: Sequence[float] = (1.0,),
    zeros: NDArray[np.bool_] | None = None,
) -> EncodedLayer:
    """Quantize a layer whose input has scale `input_scale`, or None where the input stays in float.

    `layout` says where the output channels and groups lie in `weight`; `moments` (of the layer's input) are needed
    by rounding that looks at data and by bias correction; rounding looks at `together` instead, the moments of all
    layers that share the weight, where it is given. With `centred` it looks at them around the mean, for the bias gives
    the mean back. Of the `parts` of its scale each row takes the one with the least error of the output, if there are
    moments. Codes are 0 where `zeros`, in the shape of `weight`, is True. A scale is widened where the bias would not
    fit its int32 code, or the product of scales float32. Raises QuantizationError for a bias of another length than the
    channels.
    """
    channels = weight.shape[layout.axis]
    if bias is not None and bias.shape != (channels,):
        raise QuantizationError(
            f"bias has shape {bias.shape}, while the weight has {channels} output channels"
        )
    choice = recipe.weights
    group = choice.granularity.size if isinstance(choice.granularity, PerGroup) else None
    rows = layout.rows(weight)
    scale = fit_scale(np.moveaxis(weight, layout.axis, 0).reshape(channels, -1), choice)
    pairs = _pairs(recipe, layout, weight.shape)
    if pairs is not None:
        scale = _wide_for(pairs, scale, rows)
    needed = np.maximum(TINY, 0 if input_scale is None else least_scale(scale, bias, input_scale))
    looked_at = moments if together is None else together
    hessian = None if looked_at is None else looked_at.centred if centred else looked_at.hessian
    gone = None if zeros is None else layout.rows(zeros)
    tried = parts if hessian is not None else (1.0,)
    scales = [np.maximum((scale * np.float32(part)).astype(np.float32), needed) for part in tried]
    scale, codes = _rounded(rows, scales, recipe.weights, hessian, gone, pairs)
    if recipe.bias_correction and moments is not None:
        limits = (
            np.inf if input_scale is None else BIAS_LIMIT * np.float64(input_scale) * scale.astype(np.float64)
        )
        bias = corrected_bias(rows, real_rows(codes, scale, group), bias, moments, limits)
    weight_codes = np.ascontiguousarray(layout.weight(codes, weight.shape).astype(choice.itype.dtype))
    return with_bias(EncodedLayer(weight_codes, scale, group=group), bias, input_scale)


def with_bias(
    layer: EncodedLayer, bias: NDArray[np.float32] | None, input_scale: np.float32 | None
) -> EncodedLayer:
    """The layer with another bias (C,): codes, or float where its input has no scale."""
    if bias is None or input_scale is None:
        return replace(layer, bias=bias, bias_scale=None)
    bias_scale = np.broadcast_to(np.float32(input_scale) * layer.scale, bias.shape).astype(np.float32)
    codes = bias_codes(bias.astype(np.float64), bias_scale.astype(np.float64))
    return replace(layer, bias=codes, bias_scale=bias_scale)


def bias_codes(bias: NDArray[np.floating], steps: NDArray[np.floating]) -> NDArray[np.int32]:
    """The codes of biases (C,) in steps of s_x s_w, held within int32; the quotient is taken in the arguments' type."""
    return np.clip(np.rint(bias / steps).astype(np.float64), INT32.qmin, INT32.qmax).astype(np.int32)


def _rounded(
    rows: NDArray[np.float32],
    tried: Sequence[NDArray[np.float32]],
    choice: Weights,
    hessian: NDArray[np.float64] | None,
    zeros: NDArray[np.bool_] | None = None,
    pairs: Pairs | None = None,
) -> tuple[NDArray[np.float32], Codes]:
    """Scales and codes of `rows`, each row with that of the scales `tried` that errs least."""
    rounding = choice.rounding or Nearest()
    group = choice.granularity.size if isinstance(choice.granularity, PerGroup) else None
    scale = tried[0]
    steps = [steps_of(each, group, rows.shape) for each in tried]
    if len(tried) == 1 or hessian is None:
        return tried[0], rounding.codes(rows, steps[0], choice.itype, hessian, zeros, pairs)
    # The rows once for each part, one below the other: rounding looks at the moments only once.
    groups, channels, inputs = rows.shape
    many = np.tile(rows, (1, len(tried), 1))
    width = steps[0].shape[-1] if steps[0].ndim else 1
    below = np.concatenate([np.broadcast_to(each, (groups, channels, width)) for each in steps], axis=1)
    gone = None if zeros is None else np.tile(zeros, (1, len(tried), 1))
    codes = rounding.codes(many, below, choice.itype, hessian, gone, pairs)
    errors = row_errors(many, codes, below, hessian).reshape(groups, len(tried), channels)
    if scale.ndim == 0:
        errors = np.broadcast_to(errors.sum(axis=(0, 2))[:, None], errors.shape)
    best = errors.argmin(axis=1)  # (G, C)
    found = np.take_along_axis(codes.reshape(groups, -1, channels, inputs), best[:, None, :, None], axis=1)[
        :, 0
    ]
    if scale.ndim == 0:
        return tried[int(best[0, 0])], found
    return np.stack(tried)[best.reshape(-1), np.arange(groups * channels)], found


def _pairs(recipe: Recipe, layout: Layout, shape: tuple[int, ...]) -> Pairs | None:
    """The pairs of a row that must not be too large together; None if none can be, or nothing adds them."""
    order = layout.summed(shape) if recipe.holds_pairs and recipe.weights.bits == 8 else None
    return None if order is None else pairs_along(order)


def _wide_for(pairs: Pairs, scale: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """`scale`, of each row as large as its worst pair needs. It is the mean over rows 1.24 times as large on
    EfficientNet-Lite0, where seven bits make it twice as large.
    """
    needed = steps_needed(rows, pairs)
    if scale.ndim == 0:
        return np.maximum(scale, np.float32(needed.max()))
    return np.maximum(scale, needed.reshape(-1, scale.size).max(axis=0).astype(np.float32))


def fit_scale(rows: NDArray[np.float32], choice: Weights) -> NDArray[np.float32]:
    """The scales that `choice` gives the rows (C, K) of a weight, as in `EncodedLayer`: its calibrator's limits.

    A dead channel or group (all zero) takes the median scale of the living, so that its bias keeps its precision.
    """
    if isinstance(choice.granularity, PerTensor):
        return _scale(choice.range.row_limits(rows.reshape(1, -1), choice.itype)[0], choice)
    if isinstance(choice.granularity, PerGroup):
        size = choice.granularity.size
        parts = [rows[:, start : start + size] for start in range(0, rows.shape[1], size)]
        limit = np.stack([choice.range.row_limits(part, choice.itype) for part in parts], axis=1)
    else:
        limit = choice.range.row_limits(rows, choice.itype)
    alive = limit > 0
    return _scale(np.where(alive, limit, np.median(limit[alive]) if alive.any() else 0.0), choice)


def real_rows(
    codes: NDArray[np.integer], scale: NDArray[np.float32], group: int | None
) -> NDArray[np.float32]:
    """The numbers that codes (G, channels of the group, K) stand for, with scales as in `EncodedLayer`."""
    return (codes * steps_of(scale, group, codes.shape)).astype(np.float32)


def steps_of(scale: NDArray[np.float32], group: int | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The scales of a layer so that they broadcast with its rows, whose shape is (G, channels of the group, K)."""
    if scale.ndim == 0:
        return scale
    if group is None:
        return scale.reshape(-1, shape[1], 1)  # a stack of matrices has one scale a column for all
    return np.repeat(scale, group, axis=1)[:, : shape[2]].reshape(shape)


def _scale(limit: NDArray[np.float64], choice: Weights) -> NDArray[np.float32]:
    most = np.nextafter(np.finfo(np.float32).max / np.float32(choice.itype.qmax), np.float32(0))
    scale = np.clip(limit / choice.itype.qmax, TINY, most)  # the largest code stands for a float32 as well
    return np.where(limit > 0, scale, 1.0).astype(np.float32)


def least_scale(
    scale: NDArray[np.float32], bias: NDArray[np.float32] | None, input_scale: np.float32
) -> NDArray[np.float32]:
    """The least scale, shaped as `scale`: float32 holds its product with the input's, int32 the bias's codes in steps
    of that.
    """
    needed = np.full(scale.shape, 2 * float(TINY) / float(input_scale))  # twice: the product is rounded
    if bias is not None:
        steps = np.abs(bias.astype(np.float64)) / (BIAS_LIMIT * float(input_scale))
        needed = np.maximum(needed, steps if scale.ndim else steps.max())
    return needed.astype(np.float32)
