"""Rounding of weights: each method against its definition, and against what it is meant to beat."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightbit.arith.affine import IntType
from eightbit.errors import QuantizationError
from eightbit.quant.methods.rounding import GPTQ, AdaRound, Nearest, _upper_inverse, output_error

INT4 = IntType(4, signed=True, narrow=True)


def problem(groups=1, channels=6, inputs=24, seed=0, correlated=True):
    """Weights, scales and the moments of correlated inputs."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(groups, channels, inputs)).astype(np.float32)
    mix = rng.normal(size=(groups, inputs, inputs)) if correlated else np.eye(inputs)[None].repeat(groups, 0)
    x = mix @ rng.normal(size=(groups, inputs, 200))
    scale = (np.abs(rows).max(axis=2, keepdims=True) / INT4.qmax).astype(np.float32)
    return rows, scale, x @ x.transpose(0, 2, 1)


def gptq_by_definition(row, scale, hessian, damping):
    """Optimal brain quantization of one row in a fixed order, by explicit inverses (Frantar 2022, equation 2)."""
    order = np.argsort(-np.diag(hessian), kind="stable")
    h = hessian[np.ix_(order, order)].copy()
    h += damping * np.diag(h).mean() * np.eye(len(h))
    left, codes = row[order].astype(np.float64), np.zeros(len(row), int)
    for k in range(len(row)):
        inverse = np.linalg.inv(h[k:, k:])
        codes[k] = np.clip(np.rint(left[k] / scale), INT4.qmin, INT4.qmax)
        error = (left[k] - codes[k] * scale) / inverse[0, 0]
        left[k:] -= error * inverse[0]
    result = np.zeros(len(row), int)
    result[order] = codes
    return result


@pytest.mark.parametrize("block", [1, 7, 128])
def test_gptq_is_optimal_brain_quantization_in_order(block):
    rows, scale, hessian = problem(groups=2, channels=3, inputs=12)
    found = GPTQ(block=block).codes(rows, scale, INT4, hessian)
    for g in range(2):
        for c in range(3):
            wanted = gptq_by_definition(rows[g, c], float(scale[g, c, 0]), hessian[g], 0.01)
            np.testing.assert_array_equal(found[g, c], wanted)


@pytest.mark.parametrize("rounding", [GPTQ(), AdaRound()], ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("groups", [1, 4])
def test_rounding_that_looks_at_data_beats_nearest_on_the_output(rounding, groups):
    rows, scale, hessian = problem(groups=groups)
    nearest = Nearest().codes(rows, scale, INT4)
    better = rounding.codes(rows, scale, INT4, hessian)
    assert output_error(rows, better, scale, hessian) < 0.6 * output_error(rows, nearest, scale, hessian)


@pytest.mark.parametrize("size", [1, 64, 65, 200])
def test_triangular_matrices_are_inverted_by_halves(size):
    upper = np.triu(np.random.default_rng(size).standard_normal((2, size, size))) + 10 * np.eye(size)
    inverse = _upper_inverse(upper)
    assert not np.tril(inverse, -1).any()
    np.testing.assert_allclose(upper @ inverse, np.broadcast_to(np.eye(size), upper.shape), atol=1e-12)


def test_gptq_is_nearest_when_inputs_are_independent_and_damping_heavy():
    rows, scale, _ = problem()
    hessian = np.eye(24)[None] * 5.0
    np.testing.assert_array_equal(
        GPTQ().codes(rows, scale, INT4, hessian), Nearest().codes(rows, scale, INT4)
    )


def test_adaround_moves_every_weight_to_one_of_its_two_neighbours():
    rows, scale, hessian = problem(seed=3)
    units = rows / scale
    codes = AdaRound(iterations=200).codes(rows, scale, INT4, hessian)
    assert ((codes == np.floor(units)) | (codes == np.ceil(units))).all()


@given(bits=st.integers(2, 8), seed=st.integers(0, 50))
def test_codes_stay_in_their_type(bits, seed):
    itype = IntType(bits, signed=True, narrow=True)
    rows, _, hessian = problem(channels=2, inputs=6, seed=seed)
    scale = np.full((1, 2, 1), 0.05, np.float32)  # far too small: saturation in most places
    for rounding in (Nearest(), GPTQ(), AdaRound(iterations=10)):
        codes = rounding.codes(rows, scale, itype, hessian)
        assert codes.min() >= itype.qmin
        assert codes.max() <= itype.qmax


def test_inputs_that_are_always_zero_do_no_harm():
    rows, scale, hessian = problem()
    hessian[:, 5, :] = hessian[:, :, 5] = 0
    codes = GPTQ().codes(rows, scale, INT4, hessian)
    np.testing.assert_array_equal(codes[..., 5], Nearest().codes(rows, scale, INT4)[..., 5])
    all_dead = GPTQ().codes(rows, scale, INT4, np.zeros_like(hessian))
    np.testing.assert_array_equal(all_dead, Nearest().codes(rows, scale, INT4))


@pytest.mark.parametrize("fine", [False, True], ids=["a scale a row", "a scale an input"])
def test_leaving_out_inputs_that_are_always_zero_changes_no_code(fine):
    rows, scale, hessian = problem(groups=2, channels=3, inputs=15)
    zero = [0, 3, 4, 11]  # as under padding: the same ones in every group
    hessian[:, zero] = hessian[:, :, zero] = 0
    hessian[0, 7] = hessian[0, :, 7] = 0  # and one that only the first group never sees
    found = GPTQ().codes(rows, np.tile(scale, 15) if fine else scale, INT4, hessian)
    for g in range(2):
        for c in range(3):
            wanted = gptq_by_definition(rows[g, c], float(scale[g, c, 0]), hessian[g], 0.01)
            np.testing.assert_array_equal(found[g, c], wanted)


def test_missing_moments_and_bad_settings_are_named():
    rows, scale, _ = problem()
    with pytest.raises(QuantizationError, match="looks at data; give the layer's moments"):
        GPTQ().codes(rows, scale, INT4)
    with pytest.raises(QuantizationError, match=r"damping=0\): give a number above 0"):
        GPTQ(damping=0)
    with pytest.raises(QuantizationError, match=r"iterations=1\): give an integer of at least 10"):
        AdaRound(iterations=1)
