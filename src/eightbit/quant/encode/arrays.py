"""Single arrays to codes and back, without a graph: `quantize_weights` and `dequantize_weights`.

For looking at a kernel of a layer in any framework. A network is quantized by `eightbit.quantize`: that needs the
graph, because a weight's codes mean nothing without the scales of the activations that they meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import QuantParams, dequantize, quantize
from eightbit.errors import QuantizationError
from eightbit.quant.choose.recipe import PerGroup, PerTensor, Weights
from eightbit.quant.encode.weights import fit_scale
from eightbit.values.fields import argument


def quantize_weights(
    weights: Any, choice: Weights | None = None, *, axis: int = -1
) -> tuple[NDArray[np.integer], QuantParams]:
    """The codes of one float array, same shape, with the scales that give them meaning.

    `weights` is an array, a tf.Variable or a torch tensor; `choice` gives bits, granularity and range (default:
    8 bits, a scale for each channel, min-max), and rounds to the nearest. `axis` is that of the output channels:
    the last in Keras (HWIO kernels, matrices (in, out)), 0 in torch. w = scale * code: zero points are 0 (chapter 4).
    Raises QuantizationError for numbers that are not finite, an axis that is not there, or a choice that needs the
    network: groups, and rounding that looks at data.
    """
    choice = argument("choice", choice, Weights | None) or Weights()
    array = np.asarray(weights.detach().cpu() if hasattr(weights, "detach") else weights)
    if array.dtype.kind != "f" or not array.size or not np.isfinite(array).all():
        raise QuantizationError(
            f"weights have dtype {array.dtype} and shape {array.shape}; give finite floating-point numbers"
        )
    if isinstance(choice.granularity, PerGroup) or (
        choice.rounding is not None and choice.rounding.needs_data
    ):
        raise QuantizationError(f"{choice} needs the layer and its data; use eightbit.quantize")
    if not -array.ndim <= axis < array.ndim:
        raise QuantizationError(f"axis {axis} is not among those of weights with shape {array.shape}")
    rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1).astype(np.float32)
    scale = fit_scale(rows, choice)
    channel_axis = None if isinstance(choice.granularity, PerTensor) else axis % array.ndim
    params = QuantParams(scale, np.zeros(scale.shape, np.int32), choice.itype, channel_axis)
    return quantize(array.astype(np.float32), params), params


def dequantize_weights(codes: NDArray[np.integer], params: QuantParams) -> NDArray[np.float32]:
    """The numbers that the codes of `quantize_weights` stand for: scale * code, float32, same shape."""
    return dequantize(codes, params)
