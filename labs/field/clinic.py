"""Somebody's int8 network has lost its answers. Which of three ailments is it?

You have the float network, the int8 one, what it was calibrated on and what it is
used for. The clinic's order holds: is the input itself damaged, then the weights,
then where does the noise jump? Chapters 5, 10 and 24.
"""


def spread(weight):
    """How many times as wide as the median channel the widest one is.

    weight: (out, in); a channel is a row, and its width its largest magnitude.
    """
    raise NotImplementedError


def jump(decibels):
    """Where the noise jumps: the tensor whose SQNR falls most below the one before.

    decibels: SQNR of the tensors from the input to the output, in dB, two or more;
              infinite where a tensor has no error at all, and such a tensor is as
              good as one of 200 dB
    """
    raise NotImplementedError


def diagnose(model, q, data):
    """The ailment of the int8 model `q`, as (what, which tensor).

    model: the float model, fully connected layers w1, w2, ..., with a Relu between
    data:  samples (n, inputs) of what the network is used for

    ("healthy", None)   25 dB or more at the output
    ("range", "x")      the input's codes do not fit the data: too wide, too narrow
    ("scale", "w2")     one scale for the tensor, and channels too different for it
    ("bits", "w2")      too few bits for these weights
    """
    raise NotImplementedError
