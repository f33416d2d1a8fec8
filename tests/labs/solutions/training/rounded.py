"""The straight-through estimator on a linear classifier."""

import numpy as np


def rounded(weights, scale, bits):
    """The rounded weights, and where the nearest code needs no saturation."""
    most = 2 ** (bits - 1) - 1
    steps = np.rint(weights / scale)
    return np.clip(steps, -most, most) * scale, np.abs(steps) <= most


def backward(gradient, inside):
    """One where codes do not saturate, zero elsewhere."""
    return gradient * inside


def train(x, labels, weights, scale, bits, steps=300, rate=0.5):
    """Descent on the float weights by the gradient at the rounded ones."""
    right = np.eye(len(weights))[labels]
    for _ in range(steps):
        values, inside = rounded(weights, scale, bits)
        logits = x @ values.T
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = odds / odds.sum(axis=1, keepdims=True) - right
        weights = weights - rate * backward(error.T @ x / len(x), inside)
    return weights
