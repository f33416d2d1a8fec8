"""Single arrays to codes and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, from_dtype

from eightbit import AdaRound, PerGroup, PerTensor, QuantizationError, Weights
from eightbit.quant.encode.arrays import dequantize_weights, quantize_weights

floats = from_dtype(np.dtype(np.float32), min_value=-100, max_value=100, allow_subnormal=False)


@given(arrays(np.float32, (3, 2, 4), elements=floats), st.integers(2, 8), st.sampled_from([-1, 0, 1]))
def test_each_number_comes_back_within_half_a_step_of_its_channel(weights, bits, axis):
    codes, params = quantize_weights(weights, Weights(bits=bits), axis=axis)
    assert codes.shape == weights.shape and np.abs(codes).max(initial=0) <= 2 ** (bits - 1) - 1
    assert params.scale.shape == (weights.shape[axis],) and not params.zero_point.any()
    error = np.abs(dequantize_weights(codes, params) - weights)
    steps, _ = params.along(weights.shape)
    assert (error <= 0.5 * steps * (1 + 1e-5)).all()  # the products are rounded to float32


def test_frameworks_agree():
    torch = pytest.importorskip("torch")
    weights = np.random.default_rng(0).standard_normal((3, 3, 4, 5), np.float32)  # HWIO
    codes, params = quantize_weights(weights)
    of_torch, torch_params = quantize_weights(
        torch.nn.Parameter(torch.from_numpy(weights).permute(3, 2, 0, 1)), axis=0
    )
    np.testing.assert_array_equal(codes.transpose(3, 2, 0, 1), of_torch)
    np.testing.assert_array_equal(params.scale, torch_params.scale)
    assert quantize_weights(weights, Weights(granularity=PerTensor()))[1].axis is None


def test_what_cannot_be_done_to_a_single_array_is_refused():
    ones = np.ones((2, 2), np.float32)
    for wrong, complaint in (
        (lambda: quantize_weights(ones, Weights(granularity=PerGroup(2))), "needs the layer and its data"),
        (lambda: quantize_weights(ones, Weights(rounding=AdaRound())), "needs the layer and its data"),
        (lambda: quantize_weights(ones, axis=2), "axis 2 is not among those of weights with shape"),
        (lambda: quantize_weights(ones * np.nan), "give finite floating-point numbers"),
        (lambda: quantize_weights(ones.astype(np.int8)), "dtype int8"),
    ):
        with pytest.raises(QuantizationError, match=complaint):
            wrong()
