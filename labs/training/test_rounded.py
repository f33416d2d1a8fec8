"""The straight-through estimator: its two halves, and digits told apart by weights of two bits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import eightbit as eb
from labs.training.rounded import backward, rounded, train


def test_rounding_is_that_of_the_package():
    weights = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    codes, params = eb.quantize_weights(weights, eb.Weights(bits=4, granularity=eb.PerTensor()))
    values, inside = rounded(weights, params.scale, 4)
    np.testing.assert_array_equal(values, eb.dequantize_weights(codes, params))
    assert inside.all()


def test_codes_saturate_and_the_mask_says_where():
    values, inside = rounded(np.array([-9.0, -1.4, 0.5, 1.49, 1.51]), 1.0, 2)
    np.testing.assert_array_equal(values, [-1, -1, 0, 1, 1])
    np.testing.assert_array_equal(inside, [False, True, True, True, False])


def test_the_gradient_goes_straight_through_but_for_saturated_codes():
    through = backward(np.array([2.0, -3.0, 4.0]), np.array([True, False, True]))
    np.testing.assert_array_equal(through, [2, 0, 4])


@pytest.fixture(scope="module")
def digits():
    """Inputs and labels to learn from, then those to be asked about."""
    data = load_digits()
    x = np.c_[data.data / 16, np.ones(len(data.data))]
    return (x[:1200], data.target[:1200]), (x[1200:], data.target[1200:])


def test_two_bits_that_were_trained_beat_two_bits_that_were_rounded(digits):
    (x, labels), (asked, right) = digits
    weights = np.zeros((10, x.shape[1]))
    for _ in range(300):  # the float classifier
        weights -= 0.5 * slope(x, labels, weights)
    scale = np.abs(weights).max()
    after = share(asked, right, rounded(weights, scale, 2)[0])
    small = np.abs(weights).mean()  # few weights are zero then, and saturated ones are no loss
    learned = train(x, labels, weights, small, 2)
    trained = share(asked, right, rounded(learned, small, 2)[0])
    assert len(np.unique(rounded(learned, small, 2)[0])) <= 3
    assert trained > after + 0.1
    assert trained > 0.85


def slope(x, labels, weights):
    """The gradient of the mean cross-entropy."""
    logits = x @ weights.T
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (odds / odds.sum(axis=1, keepdims=True) - np.eye(10)[labels]).T @ x / len(x)


def share(x, labels, weights):
    """Of the digits, those told right."""
    return np.mean((x @ weights.T).argmax(axis=1) == labels)
