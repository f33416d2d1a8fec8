"""Train a linear classifier whose weights have two bits. NumPy alone; chapter 11.

Rounding has a derivative of zero almost everywhere, so nothing would be learned.
The straight-through estimator takes it as one where the codes do not saturate.
"""


def rounded(weights, scale, bits):
    """What codes of `bits` say instead of weights, and where they do not saturate.

    Returns the rounded weights, float, and a mask of the same shape: true where the
    nearest code lies among those of -(2**(bits - 1) - 1) to 2**(bits - 1) - 1.
    """
    raise NotImplementedError


def backward(gradient, inside):
    """The gradient with respect to the weights, from that to the rounded ones."""
    raise NotImplementedError


def train(x, labels, weights, scale, bits, steps=300, rate=0.5):
    """The float weights (classes, inputs) after `steps` of gradient descent.

    The loss is the mean cross-entropy of softmax(x @ rounded.T): only the rounded
    weights are seen by the data, and only the float ones are moved.
    """
    return weights
