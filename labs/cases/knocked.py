"""A sensor on a machine was knocked while the calibration data were taken.

A few samples are a thousand times too large. With the smallest and largest value as
range, nearly all others share a handful of codes. Nobody knows which samples those
are, and the stream is too long to keep. Chapters 5 and 21.
"""


def codes_used(values, low, high):
    """How many of the 256 int8 codes for the range (low, high) `values` take.

    `low` and `high` are finite and `low < high`; the range is widened to hold zero.
    """
    raise NotImplementedError


def limits(batches, share):
    """The range that holds `share` of the numbers of each side, and zero.

    batches: an iterator of arrays, which can be gone through once; at most one of
             them and a few thousand numbers beside it are kept
    share:   such as 0.99: one in a hundred positive numbers may lie above the upper
             limit, one in a hundred negative ones below the lower; to within 2 %
    """
    low, high = 0.0, 0.0
    for batch in batches:
        low, high = min(low, batch.min()), max(high, batch.max())
    return low, high


def mended(model, calibration):
    """An int8 model of `model` that hears an ordinary sample: 30 dB, all in int8.

    `calibration` are the samples (n, inputs) among which some were knocked. Ranges
    are not all that is learned from them: rounding and biases look at moments.
    """
    import eightbit as eb

    recipe = eb.Recipe(activations=eb.Activations(range=eb.MinMax()))
    return eb.quantize(model, calibration, recipe)
