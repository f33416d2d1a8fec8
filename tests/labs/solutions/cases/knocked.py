"""Bins of magnitude, one percent wide each, hold any range in one pass; what lies far outside is left out."""

import numpy as np

import eightbit as eb

STEP = 1.01
LEAST = 1e-6
BINS = 4096


def codes_used(values, low, high):
    """Distinct codes of the affine map."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero_point = np.clip(np.rint(-128 - low / scale), -128, 127)
    return len(np.unique(np.clip(np.rint(np.asarray(values) / scale) + zero_point, -128, 127)))


def limits(batches, share):
    """A histogram over the logarithm of the magnitude, for each sign."""
    below, above = np.zeros(BINS), np.zeros(BINS)
    for batch in batches:
        below += binned(-batch[batch < 0])
        above += binned(batch[batch > 0])
    return -limit(below, share), limit(above, share)


def binned(magnitudes):
    """Counts by bin."""
    place = np.log(np.maximum(magnitudes, LEAST) / LEAST) / np.log(STEP)
    return np.bincount(np.minimum(place.astype(int), BINS - 1), minlength=BINS)


def limit(counts, share):
    """The middle of the bin that `share` of the numbers reach."""
    if not counts.any():
        return 0.0
    return LEAST * STEP ** (np.searchsorted(counts.cumsum(), share * counts.sum()) + 0.5)


def mended(model, calibration):
    """Samples of ordinary loudness alone: a clipped range would leave the knocks in the moments."""
    low, high = limits(iter(calibration), 0.99)
    ordinary = np.abs(calibration).max(axis=1) < 5 * max(-low, high)
    return eb.quantize(model, calibration[ordinary])
