"""When sums over a layer's input are taken in float64, and that the quick way to tell never says otherwise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightbit.quant.observe import moments


@pytest.mark.parametrize(
    ("level", "spread", "wide"),
    [
        (0, 1, False),
        (1, 1, False),
        (1, 0.1, False),
        (1, 1e-3, True),
        (1, 0, True),
        (0, 1e-16, True),
        (0, 1e16, True),
    ],
)
def test_sums_are_wide_for_inputs_that_are_nearly_constant_or_far_from_one(level, spread, wide):
    rows = np.random.default_rng(0).standard_normal((2, 3, 400))
    x = np.float32(level + spread * rows)
    assert (moments.summable(x).dtype == np.float64) == wide


@given(
    st.integers(0, 2**32 - 1),
    st.integers(-18, 18),
    st.floats(-6, 3),
    st.sampled_from([1, 2, 7, 300]),
    st.booleans(),
)
def test_the_quick_way_leaves_in_float32_only_what_the_whole_test_leaves(seed, power, level, positions, dead):
    """One row in three has a level of its own, up to a thousand times its spread; one may be zero."""
    x = np.random.default_rng(seed).standard_normal((1, 3, positions))
    x[0, 0] += 10.0**level
    x[0, 1] *= not dead
    x = np.float32(x * 10.0**power)
    if moments._plain(x):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moments, "_plain", lambda x: False)
            assert moments.summable(x) is x


def test_a_value_that_is_no_number_is_not_plain():
    x = np.ones((1, 2, 5), np.float32)
    x[0, 1, 3] = np.nan
    assert not moments._plain(x)
