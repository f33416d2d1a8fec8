"""`fma32` against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightbit.arith.fma import fma32

SMALL = st.floats(-(2.0**30), 2.0**30, width=32, allow_subnormal=False).filter(
    lambda v: v == 0 or abs(v) > 2.0**-30
)


def exact(a: float, b: float, c: float) -> np.float32:
    """a * b + c rounded once: the float32 nearest to the rational, ties to even."""
    value = Fraction(a) * Fraction(b) + Fraction(c)
    near = np.float32(float(value))  # within one step: then look at the neighbours
    candidates = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    return min(candidates, key=lambda v: (abs(Fraction(float(v)) - value), int(v.view(np.uint32)) & 1))


@given(SMALL, SMALL, SMALL)
def test_one_rounding(a: float, b: float, c: float) -> None:
    assert fma32(a, b, c) == exact(a, b, c)


def near_ties() -> list[tuple[float, float, float]]:
    """Products a hair off the middle between two float32, where rounding through float64 goes wrong."""
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(300):
        c = np.float32(rng.integers(2**23, 2**24))
        half = np.float32(0.5)
        wiggle = np.float32(2.0 ** -int(rng.integers(20, 60)))
        cases += [(1.0, float(half + wiggle), float(c)), (float(wiggle), float(wiggle), float(c + half))]
        a, b = np.float32(1 + 2.0**-12), np.float32(2.0**-1 * (1 - 2.0**-12))
        cases.append((float(a), float(b), float(c)))
    return cases


def test_near_ties() -> None:
    cases = near_ties()
    a, b, c = np.array(cases, np.float32).T
    np.testing.assert_array_equal(fma32(a, b, c), [exact(*case) for case in cases])


def test_rounding_through_float64_would_be_wrong() -> None:
    """Half a step of c plus a product too fine for float64 to keep: the tie breaks the other way."""
    cases = [
        (2.0**-24 * (1 + 2.0**-23), sign * (1 - 2.0**-23 + wiggle), 1.0 + steps * 2.0**-23)
        for sign in (1.0, -1.0)
        for wiggle in (0.0, 2.0**-22)
        for steps in range(4)
    ]
    wrong = [
        c for c in cases if np.float32(np.float64(c[0]) * np.float64(c[1]) + np.float64(c[2])) != exact(*c)
    ]
    assert wrong
    for case in wrong:
        assert fma32(*case) == exact(*case)


def test_broadcasts() -> None:
    assert fma32(np.ones((3, 1)), np.ones(4), 1).shape == (3, 4)
    assert fma32(1, 2, 3).dtype == np.float32


@pytest.mark.parametrize("sign", [1, -1])
def test_cancellation_is_exact(sign: int) -> None:
    a = np.float32(1 + 2**-12)
    assert fma32(sign * a, a, -sign * a * a) == sign * (Fraction(float(a)) ** 2 - Fraction(float(a * a)))


def beside_ties() -> list[tuple[int, int, int]]:
    """Integers a, b of 24 bits and c = m * 2**48, with a * b + c less than a float64 step from a tie of float32.

    At the size of c a step of float64 is 2**19, and a tie lies at c + 2**47.
    """
    found = []
    for i in range(1, 4000):
        a = 2**23 + i
        for b in (2**47 // a, 2**47 // a + 1):
            if 0 < abs(a * b - 2**47) < 2**19 and b < 2**24:
                found += [(a, b, m * 2**48) for m in (2**23, 2**23 + 1, 2**24 - 2)]
    return found


def test_a_sum_beside_a_tie_goes_to_the_nearer_neighbour():
    """Rounded to float64 first, such a sum may lie on the tie, on this side of it or on the other."""
    cases = beside_ties()
    sides = {np.sign(a * b - 2**47) for a, b, _ in cases}
    fractions = [abs(a * b - 2**47) / 2**19 for a, b, _ in cases]
    assert sides == {-1, 1}
    assert min(fractions) < 0.5 < max(fractions)
    expected = [c + (2**48 if a * b > 2**47 else 0) for a, b, c in cases]
    a, b, c = (np.array(column, np.float64).astype(np.float32) for column in zip(*cases, strict=True))
    np.testing.assert_array_equal(fma32(a, b, c), np.array(expected, np.float64).astype(np.float32))


def test_ties_go_to_the_even_neighbour():
    m = np.array([2**23, 2**23 + 1, 2**23 + 2, 2**24 - 1], np.float64)
    got = fma32(np.float32(2**23), np.float32(2**24), (m * 2**48).astype(np.float32))
    np.testing.assert_array_equal(got, ((m + m % 2) * 2**48).astype(np.float32))
