"""The fixed-point exponential and reciprocal stay near the real ones, over all that Softmax asks of them."""

from __future__ import annotations

import numpy as np
import pytest

from eightbit.arith.exponential import LONGEST_SUM, exp_of_negatives, reciprocal


def test_the_exponential() -> None:
    """The series leaves out x^5 / 120, at most 2.5e-7; for quarters, their bits and all between: [-31, 0]."""
    raw = -np.concatenate([np.arange(0, 3 * 2**24, 4099), np.arange(0, 31 * 2**26, 1_000_003), [31 << 26]])
    found = exp_of_negatives(raw) / 2**31
    np.testing.assert_allclose(found, np.exp(raw / 2**26), rtol=0, atol=2.6e-7)
    assert found.max() == (2**31 - 1) / 2**31 and (exp_of_negatives(raw) >= 0).all()


@pytest.mark.parametrize("total", [1 << 19, (1 << 19) + 1, 3 << 18, (1 << 20) - 1, LONGEST_SUM << 19])
def test_the_reciprocal(total: int) -> None:
    significand, power = reciprocal(total)
    assert 2**30 <= significand <= 2**31 - 1
    np.testing.assert_allclose(significand / 2**31 / 2.0**power, 2**19 / total, rtol=2.0**-27)
