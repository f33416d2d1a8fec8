"""What a quantizer owes: chapters 2 to 4, a test for each function, and all together against the package."""

import numpy as np
import pytest

from eightbit.arith import affine
from labs.foundations import quantizer

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("low", "high"), [(5.0, 10.0), (-9.0, -3.0)])
def test_zero_has_a_code_whatever_the_range(low, high):
    scale, zero_point = quantizer.parameters(low, high)
    right = affine.params_from_range(low, high, affine.INT8)
    assert (np.float32(scale), zero_point) == (right.scale, right.zero_point)


def test_ties_go_to_the_even_code():
    codes = quantizer.quantize(np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 300]), 1.0, 0)
    np.testing.assert_array_equal(codes, [-2, -2, 0, 0, 2, 2, 127])


def test_each_filter_has_a_scale_of_its_own():
    weights = RNG.standard_normal((6, 6, 3, 3))
    weights[2] *= 100
    scales = quantizer.weight_scales(weights)
    np.testing.assert_allclose(scales, [np.abs(kernel).max() / 127 for kernel in weights])


def test_the_bias_counts_in_the_steps_of_the_sums():
    bias, x_scale, weight_scale = np.array([1.0, -2.0]), 0.25, np.array([0.5, 0.125])
    np.testing.assert_array_equal(quantizer.bias_codes(bias, x_scale, weight_scale), [8, -64])


def test_sums_are_wide_enough():
    x, weights = np.full((1, 512), 127, np.int8), np.full((2, 512), 127, np.int8)
    sums = quantizer.accumulate(x, -128, weights, np.array([1, -1], np.int32))
    np.testing.assert_array_equal(sums, [[255 * 127 * 512 + 1, 255 * 127 * 512 - 1]])


def test_a_whole_layer_is_right_to_a_part_in_a_hundred():
    x = RNG.uniform(1, 4, (32, 64)).astype(np.float32)  # no zero among them
    weights = RNG.standard_normal((10, 64)).astype(np.float32)
    bias = RNG.standard_normal(10).astype(np.float32)
    scale, zero_point = quantizer.parameters(x.min(), x.max())
    codes = quantizer.quantize(x, scale, zero_point)
    scales = quantizer.weight_scales(weights[:, :, None, None])
    rows = quantizer.quantize(weights, scales[:, None], 0) if len(scales) == len(weights) else None
    assert rows is not None, "a scale for each of ten outputs"
    sums = quantizer.accumulate(codes, zero_point, rows, quantizer.bias_codes(bias, scale, scales))
    right = x @ weights.T + bias
    assert np.sqrt(np.mean((sums * scale * scales - right) ** 2)) < 0.01 * right.std()
