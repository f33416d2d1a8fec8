"""Calibrators: exact, mergeable, independent of how the stream is cut, and different from one another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eightbit.arith.affine import IntType, QuantParams, params_from_range
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.quant.methods.calibrators import (
    MSE,
    Entropy,
    MinMax,
    MovingAverage,
    Percentile,
    code_error,
    code_errors,
    divergence,
)
from eightbit.quant.methods.observers import HALF, Histogram

UINT8 = IntType(8, signed=False)
# These see values, one by one; a MovingAverage sees samples.
OF_VALUES = [MinMax(), Percentile(99.0), Percentile(99.999), MSE(steps=20), Entropy(steps=20)]
CALIBRATORS = [*OF_VALUES, MovingAverage()]

values = hnp.arrays(
    np.float32, st.integers(1, 60), elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
)


def seen(calibrator, pieces):
    state = calibrator.state()
    for piece in pieces:
        state.update(piece)
    return state


def bins_by_definition(x, exponent):
    """The bins of a histogram, one value at a time in Python integers and fractions."""
    counts = np.zeros(2 * HALF, np.int64)
    for value in x[x != 0].tolist():
        index = int(abs(value) / 2.0**exponent)  # float64: exact for every float32
        counts[HALF + index if value > 0 else HALF - 1 - index] += 1
    return counts


@given(values)
def test_histogram_holds_what_its_definition_says(x):
    state = seen(Percentile(), [x])
    assert state.zeros == np.count_nonzero(x == 0)
    if state.exponent is None:
        assert not x.any()
    else:
        largest = float(np.abs(x).max())
        assert HALF / 2 <= largest / 2.0**state.exponent < HALF
        np.testing.assert_array_equal(state.counts, bins_by_definition(x, state.exponent))


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=str)
@given(x=values, cuts=st.lists(st.integers(0, 60), max_size=5), data=st.data())
def test_any_split_any_order_any_shards_give_the_same_limits(calibrator, x, cuts, data):
    pieces = np.split(x, sorted(c for c in cuts if c <= len(x)))
    shuffled = data.draw(st.permutations(pieces))
    whole = calibrator.limits(seen(calibrator, [x] if calibrator in OF_VALUES else pieces), UINT8, False)
    assert calibrator.limits(seen(calibrator, shuffled), UINT8, False) == whole
    merged = calibrator.state()
    for piece in shuffled:
        merged = merged.merge(seen(calibrator, [piece]))
    assert calibrator.limits(merged, UINT8, False) == whole


@given(values, values)
def test_merging_leaves_both_states_as_they_were(a, b):
    one, two = seen(MSE(), [a]), seen(MSE(), [b])
    before = one.counts.copy(), one.exponent, two.counts.copy(), two.exponent
    one.merge(two)
    np.testing.assert_array_equal(one.counts, before[0])
    np.testing.assert_array_equal(two.counts, before[2])
    assert (one.exponent, two.exponent) == (before[1], before[3])


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=str)
@given(x=values, symmetric=st.booleans())
def test_limits_lie_within_what_was_seen(calibrator, x, symmetric):
    lo, hi = calibrator.limits(seen(calibrator, [x]), UINT8, symmetric)
    assert min(x.min(), 0) <= lo <= hi <= max(x.max(), 0)


def test_memory_does_not_grow_with_the_stream():
    state = Histogram()
    sizes = set()
    for seed in range(20):
        state.update(np.random.default_rng(seed).normal(size=1000).astype(np.float32) * 2**seed)
        sizes.add(state.counts.nbytes)
    assert sizes == {2 * HALF * 8}
    assert state.counts.sum() == 20_000


def test_outliers_part_the_calibrators():
    """A Gaussian with 0.1 % of outliers twenty times as far out: how far each choice follows them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=100_000).astype(np.float32)
    x[:100] *= 20
    rng.shuffle(x)
    samples = np.split(x, 100)
    choices = [MinMax(), MovingAverage(), Percentile(99.9), MSE(), Entropy()]
    limits = {type(c).__name__: c.limits(seen(c, samples), UINT8, False) for c in choices}
    upper = {name: hi for name, (_, hi) in limits.items()}
    assert limits["MinMax"] == (x.min(), x.max())  # follows them to the end
    assert upper["MinMax"] > 30
    assert 2.5 < upper["Percentile"] < 4.0  # 99.9 % of a Gaussian: 3.29 sigma
    # Half of the samples of 1,000 hold an outlier above, some 16 sigma out; the others end at 3.2 sigma.
    assert 5 < upper["MovingAverage"] < 15
    # A clipped outlier costs Entropy its share of the counts, however far out it lies; MSE pays for the distance.
    assert 5 < upper["Entropy"] < 20
    assert upper["Percentile"] < upper["Entropy"] < upper["MSE"] < upper["MinMax"]
    assert len(set(upper.values())) == 5
    ones = np.ones(len(x))
    errors = {n: code_error(x.astype(np.float64), ones, *pair, UINT8, False) for n, pair in limits.items()}
    assert min(errors, key=errors.__getitem__) == "MSE"


@given(
    values,
    st.lists(st.tuples(st.floats(-50, 0.5), st.floats(0.6, 50)), min_size=1, max_size=5),
    st.sampled_from([UINT8, IntType(4, signed=False), IntType(8, signed=True)]),
    st.booleans(),
)
def test_errors_of_many_ranges_are_those_of_each_by_its_definition(x, ranges, itype, symmetric):
    x, weight = x.astype(np.float64), np.arange(1.0, x.size + 1)
    for limits, found in zip(ranges, code_errors(x, weight, ranges, itype, symmetric), strict=True):
        p = params_from_range(*limits, itype, symmetric=symmetric)
        codes = np.clip(np.rint(x / float(p.scale)) + int(p.zero_point), itype.qmin, itype.qmax)
        assert found == weight @ np.square(x - (codes - int(p.zero_point)) * float(p.scale))


def test_a_moving_average_is_the_mean_of_the_samples_extremes():
    state = seen(MovingAverage(), [np.float32([-1, 4]), np.float32([[0, 0], [-5, 1]]), np.float32([2, 3])])
    assert MovingAverage().limits(state, UINT8, False) == (-4 / 3, 8 / 3)
    state.update(np.zeros((0, 3), np.float32))  # no value is no sample
    assert state.samples == 3


def test_a_moving_average_rounds_nothing_on_the_way():
    values = np.float32([3e38, 1e-45, -3e38, 1.0, 2.0**-149])  # a sum in float would keep the largest alone
    state = seen(MovingAverage(), [np.float32([v]) for v in values])
    assert MovingAverage().limits(state, UINT8, False)[1] == (1.0 + 3 * 2.0**-149) / 5


def test_divergence_is_its_definition():
    # Codes 0 to 3 hold two bins each; the last two bins lie outside and are moved to the last bin inside.
    params = QuantParams(np.float32(2), np.int32(0), IntType(2, signed=False))
    centers = np.arange(10) - 0.5
    counts = np.float64([1, 5, 3, 2, 2, 7, 1, 4, 6, 2])
    assert np.rint(centers / 2).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    p = np.float64([1, 5, 3, 2, 2, 7, 1, 4 + 6 + 2])
    q = np.float64([3, 3, 2.5, 2.5, 4.5, 4.5, 2.5, 2.5])  # what lies outside is not in it
    p, q = p / p.sum(), q / q.sum()
    # Ten float64 terms of size one.
    np.testing.assert_allclose(divergence(centers, counts, params), (p * np.log(p / q)).sum(), rtol=1e-12)


SHAPES = {
    "signed": lambda x: x,
    "after a Relu": lambda x: np.maximum(x, 0),
    "after a negated Relu": lambda x: -np.maximum(x, 0),
    "one long tail": lambda x: np.where(x > 0, x, x / 50).astype(np.float32),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_entropy_truly_searches(shape, symmetric, monkeypatch):
    """A histogram with as few bins as codes leaves one candidate, min-max: onnxruntime issue 9597."""
    x = SHAPES[shape](np.random.default_rng(4).standard_t(3, size=50_000).astype(np.float32))
    tried = set()

    def recorded(centers, counts, params):
        tried.add((float(params.scale), int(params.zero_point)))
        return divergence(centers, counts, params)

    monkeypatch.setattr("eightbit.quant.methods.calibrators.divergence", recorded)
    state = seen(Entropy(), [x])
    lo, hi = Entropy().limits(state, UINT8, symmetric)
    assert len(tried) >= 50
    assert max(-lo, hi) < 0.8 * np.abs(x).max()
    monkeypatch.undo()
    keep = state.counts > 0

    def error(lo, hi):
        params = params_from_range(lo, hi, UINT8, symmetric=symmetric)
        return divergence(state.centers[keep], state.counts[keep].astype(float), params)

    assert error(lo, hi) < 0.8 * error(float(x.min()), float(x.max()))


def test_entropy_refuses_more_codes_than_its_bins_can_tell_apart():
    state = seen(Entropy(), [np.float32([1, 2])])
    with pytest.raises(QuantizationError, match=r"4096 bins for the codes of uint16: .* use MSE\(\)"):
        Entropy().limits(state, IntType(16, signed=False), False)


@pytest.mark.parametrize("steps", [40, 100])
def test_mse_is_as_good_as_a_fine_search_over_the_data(steps):
    x = np.random.default_rng(1).laplace(size=20_000).astype(np.float32)
    calibrator = MSE(steps=steps)
    ones = np.ones(len(x))

    def error(limits):
        return code_error(x.astype(np.float64), ones, *limits, UINT8, False)

    found = error(calibrator.limits(seen(calibrator, [x]), UINT8, False))
    fractions = np.linspace(0.2, 1, 60)
    best = min(error((x.min() * a, x.max() * b)) for a in fractions for b in fractions)
    assert found <= 1.05 * best  # the search sees bins, a 16th of a step wide, instead of values


def test_mse_norm_above_two_clips_less():
    x = np.random.default_rng(2).laplace(size=20_000).astype(np.float32)
    state = seen(MSE(), [x])
    widths = [np.ptp(MSE(norm=norm).limits(state, UINT8, False)) for norm in (1.5, 2.0, 4.0)]
    assert widths[0] < widths[1] < widths[2]


def test_row_limits_choose_for_each_row_alone():
    rows = np.random.default_rng(3).standard_t(3, size=(5, 400)).astype(np.float32)
    itype = IntType(4, signed=True, narrow=True)
    for calibrator in (MinMax(), MovingAverage(), Percentile(99.0), MSE(), Entropy()):
        together = calibrator.row_limits(rows, itype)
        alone = [calibrator.row_limits(row[None], itype)[0] for row in rows]
        np.testing.assert_array_equal(together, alone)
        assert (together <= np.abs(rows).max(axis=1)).all()
    np.testing.assert_array_equal(MinMax().row_limits(rows, itype), np.abs(rows).max(axis=1))
    assert (MSE().row_limits(rows, itype) < np.abs(rows).max(axis=1)).all()  # four bits: clipping pays


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("calibrator", [MinMax(), MSE()], ids=str)
def test_values_that_are_not_finite_are_refused_and_change_nothing(calibrator, bad):
    state = seen(calibrator, [np.float32([1, 2])])
    with pytest.raises(CalibrationError, match=r"NaN or Inf in an array of shape \(3,\)"):
        state.update(np.float32([0, bad, 5]))
    assert calibrator.limits(state, UINT8, False)[1] <= 2


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=str)
def test_nothing_seen_is_an_error_not_a_range(calibrator):
    with pytest.raises(CalibrationError, match="at least one calibration sample"):
        calibrator.limits(calibrator.state(), UINT8, False)


def test_settings_out_of_range_are_refused():
    with pytest.raises(QuantizationError, match=r"keep=0\): give a number above 0 and at most 100"):
        Percentile(0)
    with pytest.raises(QuantizationError, match=r"steps=1\): give an integer of at least 2"):
        MSE(steps=1)
