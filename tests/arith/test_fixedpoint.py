"""Fixed-point arithmetic against definitions in Python integers, and the cases where the four families part."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightbit.arith.affine import INT4, INT8, INT8_NARROW, INT16, UINT8, IntType
from eightbit.arith.fixedpoint import (
    Arithmetic,
    accumulator_bound,
    quantize_multiplier,
    rdpot,
    requantize_a,
    requantize_b,
    requantize_c,
    requantize_d,
    round_half_away,
    round_half_even,
    round_half_up,
    srdhm,
)
from eightbit.errors import QuantizationError

LOW, HIGH = -(2**31), 2**31 - 1
EXTREMES = [LOW, LOW + 1, -(2**24) - 1, -3, -1, 0, 1, 3, 585, 2**24 + 1, 2**30, HIGH - 1, HIGH]
INT32S = st.one_of(st.integers(LOW, HIGH), st.sampled_from(EXTREMES), st.integers(-(2**16), 2**16))
EXPONENTS = st.integers(-36, 29)
REALS = st.builds(math.ldexp, st.floats(0.5, 1, exclude_max=True), EXPONENTS)
TYPES = st.sampled_from([INT4, INT8, INT8_NARROW, UINT8, INT16])


def clamp(value: int, itype: IntType) -> int:
    return min(itype.qmax, max(itype.qmin, value))


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def half_away(x: Fraction) -> int:
    return half_up(abs(x)) * (1 if x >= 0 else -1)


def split(real: float) -> tuple[int, int]:
    """TFLite's QuantizeMultiplier, in exact arithmetic."""
    significand, shift = math.frexp(real)
    m = half_away(Fraction(significand) * 2**31)
    if m == 2**31:
        m, shift = m // 2, shift + 1
    return (0, 0) if shift < -31 else (m, shift)


def srdhm_int(a: int, b: int) -> int:
    """gemmlowp's SaturatingRoundingDoublingHighMul as it is written: a nudge by sign, a division towards zero."""
    if a == b == LOW:
        return HIGH
    nudged = a * b + (1 << 30 if a * b >= 0 else 1 - (1 << 30))
    return abs(nudged) // 2**31 * (1 if nudged >= 0 else -1)


def rdpot_int(x: int, exponent: int) -> int:
    return half_away(Fraction(x, 2**exponent))


def c_int(acc: int, m: int, shift: int) -> int:
    shifted = min(HIGH, max(LOW, acc << max(shift, 0)))
    return rdpot_int(srdhm_int(shifted, m), max(-shift, 0))


def d_int(acc: int, m: int, shift: int) -> int:
    return half_up(Fraction(acc * m) * Fraction(2) ** (shift - 31))


def test_arithmetics() -> None:
    assert [(a.name, a.value) for a in Arithmetic] == [
        ("ONNX", "onnx"),
        ("TFLITE", "tflite"),
        ("SINGLE", "single"),
    ]


class TestRounding:
    """The named roundings."""

    NAMED = pytest.mark.parametrize(
        ("rounding", "exact"),
        [(round_half_even, round), (round_half_away, half_away), (round_half_up, half_up)],
    )

    @NAMED
    @given(
        st.one_of(
            st.floats(-(2.0**62), 2.0**62),
            st.integers(-(2**50), 2**50).map(lambda n: n / 2),
            st.sampled_from(
                [0.49999999999999994, -0.49999999999999994, -0.0, 2.0**52 + 1, -(2.0**63) + 1024]
            ),
        )
    )
    def test_definition(
        self, rounding: Callable[[float], np.ndarray], exact: Callable[[Fraction], int], x: float
    ) -> None:
        found = rounding(x)
        assert found.dtype == np.int64
        assert int(found) == exact(Fraction(x))

    @NAMED
    @pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf, 2.0**63])
    def test_refused(self, rounding: Callable[..., np.ndarray], exact: object, x: float) -> None:
        with pytest.raises(QuantizationError, match=re.escape(f"{x} cannot be rounded to an int64")):
            rounding([1.0, x])


class TestMultiplier:
    """A real multiplier as 31 bits and a shift."""

    @pytest.mark.parametrize(
        ("real", "m", "shift"),
        [
            (0.0, 0, 0),
            (0.5, 2**30, 0),
            (0.5 + 2.0**-32, 2**30 + 1, 0),  # a tie of the significand goes away from zero
            (0.75, 3 * 2**29, 0),
            (1.0, 2**30, 1),
            (1.5, 3 * 2**29, 1),
            (1000.0, 1000 * 2**21, 10),
            (1 - 2.0**-31, 2**31 - 1, 0),
            (1 - 2.0**-32, 2**30, 1),  # the significand rounds up to 2**31
            (1 - 2.0**-33, 2**30, 1),
            (2.0**-31, 2**30, -30),
            (2.0**-32, 2**30, -31),  # the last one that is kept
            (2.0**-32 * (1 - 2.0**-33), 2**30, -31),  # kept: the carry comes first
            (2.0**-32 * (1 - 2.0**-30), 0, 0),
            (2.0**-40, 0, 0),
            (5e-324, 0, 0),
            (2.0**30 - 1, 2**31 - 2, 30),
        ],
    )
    def test_vectors(self, real: float, m: int, shift: int) -> None:
        assert tuple(int(v) for v in quantize_multiplier(real)) == (m, shift) == split(real)

    @given(REALS)
    def test_definition(self, real: float) -> None:
        m, shift = (int(v) for v in quantize_multiplier(real))
        assert (m, shift) == split(real)
        if m:
            assert 2**30 <= m < 2**31
            error = abs(Fraction(real) - Fraction(m) * Fraction(2) ** (shift - 31))
            assert error <= Fraction(2) ** (shift - 32)  # half of the last of 31 bits

    def test_arrays(self) -> None:
        real = np.array([[0.75, 2.0**-40], [1 - 2.0**-33, 3.0]])
        m, shift = quantize_multiplier(real)
        assert m.dtype == shift.dtype == np.int32
        np.testing.assert_array_equal(m, [[3 * 2**29, 0], [2**30, 3 * 2**29]])
        np.testing.assert_array_equal(shift, [[0, 0], [1, 2]])

    @pytest.mark.parametrize("real", [-0.5, np.nan, np.inf, [0.5, -1e-9]])
    def test_refused(self, real: object) -> None:
        with pytest.raises(QuantizationError, match="multipliers must be finite and not negative"):
            quantize_multiplier(real)  # type: ignore[arg-type]

    def test_too_large(self) -> None:
        with pytest.raises(QuantizationError, match=r"multiplier 1073741824\.0 is too large"):
            quantize_multiplier(2.0**30)


class TestGemmlowp:
    """The two steps of family C."""

    @given(INT32S, INT32S)
    def test_srdhm(self, a: int, b: int) -> None:
        found = srdhm(a, b)
        assert found.dtype == np.int32 and int(found) == srdhm_int(a, b)

    def test_srdhm_saturates_once(self) -> None:
        np.testing.assert_array_equal(srdhm([LOW, LOW, HIGH], [LOW, HIGH, HIGH]), [HIGH, -HIGH, HIGH - 1])

    @given(INT32S, st.integers(0, 31))
    def test_rdpot(self, x: int, exponent: int) -> None:
        found = rdpot(x, exponent)
        assert found.dtype == np.int32 and int(found) == rdpot_int(x, exponent)


class TestFamilies:
    """From accumulator to code."""

    @given(st.lists(INT32S, min_size=1), REALS, TYPES, st.data())
    def test_c(self, accs: list[int], real: float, itype: IntType, data: st.DataObject) -> None:
        z = data.draw(st.integers(itype.qmin, itype.qmax))
        m, shift = quantize_multiplier(real)
        found = requantize_c(np.array(accs, np.int32), m, shift, z, itype)
        assert found.dtype == itype.dtype
        np.testing.assert_array_equal(found, [clamp(c_int(a, *split(real)) + z, itype) for a in accs])

    @given(st.lists(INT32S, min_size=1), REALS, TYPES, st.data())
    def test_d(self, accs: list[int], real: float, itype: IntType, data: st.DataObject) -> None:
        z = data.draw(st.integers(itype.qmin, itype.qmax))
        m, shift = quantize_multiplier(real)
        found = requantize_d(np.array(accs, np.int32), m, shift, z, itype)
        assert found.dtype == itype.dtype
        np.testing.assert_array_equal(found, [clamp(d_int(a, *split(real)) + z, itype) for a in accs])

    @given(st.lists(INT32S, min_size=1), REALS, TYPES, st.data())
    def test_a(self, accs: list[int], real: float, itype: IntType, data: st.DataObject) -> None:
        z = data.draw(st.integers(itype.qmin, itype.qmax))
        found = requantize_a(np.array(accs, np.int32), real, z, itype)
        assert found.dtype == itype.dtype
        # Python rounds half to even; float(np.float32 * np.float32) is the exact value of the float32 product.
        products = [Fraction(float(np.float32(a) * np.float32(real))) for a in accs]
        np.testing.assert_array_equal(found, [clamp(round(p) + z, itype) for p in products])

    @given(st.lists(st.integers(-2000, 2000), min_size=1), TYPES, st.data())
    def test_b(self, quarters: list[int], itype: IntType, data: st.DataObject) -> None:
        z = data.draw(st.integers(itype.qmin, itype.qmax))
        found = requantize_b(np.array(quarters, np.float32) / 4, z, itype)
        assert found.dtype == itype.dtype
        np.testing.assert_array_equal(found, [clamp(round(Fraction(q, 4) + z), itype) for q in quarters])

    def test_c_and_d_with_a_multiplier_a_channel(self) -> None:
        rng = np.random.default_rng(0)
        acc = rng.integers(-(2**20), 2**20, (4, 50), dtype=np.int32)
        real = np.array([[1e-6], [3e-4], [0.9], [1.7]])
        m, shift = quantize_multiplier(real)
        for fixed, exact in ((requantize_c, c_int), (requantize_d, d_int)):
            expected = [
                [clamp(exact(int(a), *split(r)) + 3, INT8) for a in row]
                for row, r in zip(acc, real.ravel(), strict=True)
            ]
            np.testing.assert_array_equal(fixed(acc, m, shift, 3, INT8), expected)

    def test_a_with_a_multiplier_a_channel(self) -> None:
        rng = np.random.default_rng(0)
        acc = rng.integers(-(2**20), 2**20, (4, 5, 6), dtype=np.int32)
        real = np.array([1e-6, 3e-4, 0.9, 1.7], np.float32)
        found = requantize_a(acc, real.reshape(-1, 1, 1), -5, INT8)
        for c in range(4):
            np.testing.assert_array_equal(found[c], requantize_a(acc[c], real[c], -5, INT8))

    @pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
    def test_a_on_integers_in_any_type(self, dtype: type[np.generic]) -> None:
        """A matrix product through BLAS leaves its integers in floats."""
        acc = np.arange(-700, 700, 3).astype(dtype)
        before = acc.copy()
        np.testing.assert_array_equal(
            requantize_a(acc, 0.25, 7, INT8), requantize_a(acc.astype(np.int32), 0.25, 7, INT8)
        )
        np.testing.assert_array_equal(acc, before)

    def test_a_into_an_array(self) -> None:
        acc = np.array([[-3, 1000], [3, 5]], np.int32)
        whole = np.zeros((2, 4), np.int8)
        out = whole[:, 1:3]
        assert requantize_a(acc, 0.5, 1, INT8, out=out) is out
        np.testing.assert_array_equal(whole, [[0, -1, 127, 0], [0, 3, 3, 0]])

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_in_place(self, dtype: type[np.floating]) -> None:
        acc = np.arange(-700, 700, 3).astype(dtype)
        expected = requantize_a(acc, 0.3, 7, INT8)
        scratch = acc if dtype is np.float32 else np.empty(acc.shape, np.float32)
        np.testing.assert_array_equal(requantize_a(acc, 0.3, 7, INT8, scratch=scratch), expected)
        np.testing.assert_array_equal(scratch, expected)

    @pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
    def test_any_shape(self, shape: tuple[int, ...]) -> None:
        acc = np.ones(shape, np.int32)
        m, shift = quantize_multiplier(1.0)
        results = [
            requantize_a(acc, 1, 0, INT8),
            requantize_b(acc, 0, INT8),
            requantize_c(acc, m, shift, 0, INT8),
            requantize_d(acc, m, shift, 0, INT8),
        ]
        for codes in results:
            assert codes.shape == shape and codes.dtype == np.int8
            np.testing.assert_array_equal(codes, np.ones(shape))


class TestEdges:
    """Where the families give different codes, and where none may go wrong."""

    TIES = np.array([-5, -3, -1, 1, 3, 5], np.int32)  # in halves

    @pytest.mark.parametrize("z", [-2, -1, 0, 1, 2])
    def test_ties(self, z: int) -> None:
        half = quantize_multiplier(0.5)
        np.testing.assert_array_equal(
            requantize_a(self.TIES, 0.5, z, INT8), np.array([-2, -2, 0, 0, 2, 2]) + z
        )
        even = [-2, -2, 0, 0, 2, 2] if z % 2 == 0 else [-3, -1, -1, 1, 1, 3]  # x + z is even
        np.testing.assert_array_equal(requantize_b(self.TIES / 2, z, INT8), np.array(even) + z)
        up = np.array([-2, -1, 0, 1, 2, 3]) + z
        np.testing.assert_array_equal(requantize_c(self.TIES, *half, z, INT8), up)
        np.testing.assert_array_equal(requantize_d(self.TIES, *half, z, INT8), up)

    def test_c_rounds_ties_away_where_the_second_step_meets_them(self) -> None:
        """-2.5 as -10 / 4: the high product is -5 exactly, and halving it rounds away from zero."""
        quarter = quantize_multiplier(0.25)
        assert requantize_c(-10, *quarter, 0, INT8) == -3
        assert requantize_d(-10, *quarter, 0, INT8) == -2

    def test_minus_three_halves(self) -> None:
        half = quantize_multiplier(0.5)
        assert requantize_a(np.array(-3), 0.5, 0, INT8) == requantize_b(-1.5, 0, INT8) == -2
        assert requantize_c(-3, *half, 0, INT8) == requantize_d(-3, *half, 0, INT8) == -1

    def test_float32_and_double_multipliers(self) -> None:
        """585 s_x s_w / s_y is 6.5 in float32, where ties go to even, and 6.50000047 in double."""
        s_x, s_w, s_y = np.array([0.05296124517917633, 0.024093778803944588, 0.11484327912330627], np.float32)
        single = (s_x * s_w) / s_y
        double = quantize_multiplier(float(s_x) * float(s_w) / float(s_y))
        assert single.dtype == np.float32
        assert requantize_a(np.array(585), single, -126, INT8) == -120
        assert requantize_c(585, *double, -126, INT8) == requantize_d(585, *double, -126, INT8) == -119

    @pytest.mark.parametrize("sign", [1, -1])
    def test_accumulators_beyond_the_24_bits_of_float32(self, sign: int) -> None:
        """2**24 + 1 becomes 2**24: half a step exactly, to the even 0; in integers it is more than half, to 1."""
        acc, real = np.array(sign * (2**24 + 1), np.int32), 2.0**-25
        assert requantize_a(acc, real, 0, INT8) == 0
        assert requantize_d(acc, *quantize_multiplier(real), 0, INT8) == sign

    @pytest.mark.parametrize(
        "itype", [INT8, UINT8, INT8_NARROW, INT16], ids=["int8", "uint8", "narrow", "int16"]
    )
    @pytest.mark.parametrize("real", [1.0, 1.5, 1000.0, 2.0**29])
    def test_large_multipliers_saturate(self, itype: IntType, real: float) -> None:
        """M >= 1 at the ends of int32: a shift to the left must not wrap."""
        acc = np.array([LOW, LOW + 1, -(2**20), 2**20, HIGH - 1, HIGH], np.int32)
        expected = [itype.qmin] * 3 + [itype.qmax] * 3
        m, shift = quantize_multiplier(real)
        for z in (itype.qmin, itype.qmax):
            np.testing.assert_array_equal(requantize_a(acc, real, z, itype), expected)
            np.testing.assert_array_equal(requantize_c(acc, m, shift, z, itype), expected)
            np.testing.assert_array_equal(requantize_d(acc, m, shift, z, itype), expected)

    @pytest.mark.parametrize(
        ("real", "c", "d"),
        [
            (2.0**-31, [-1, 1], [-1, 1]),
            (2.0**-32, [-1, 1], [0, 0]),  # C rounds the half twice: up to 2**30, then away from zero
            (2.0**-33, [0, 0], [0, 0]),
        ],
    )
    def test_the_smallest_multipliers(self, real: float, c: list[int], d: list[int]) -> None:
        acc = np.array([LOW, HIGH], np.int32)
        m, shift = quantize_multiplier(real)
        np.testing.assert_array_equal(requantize_c(acc, m, shift, 0, INT8), c)
        np.testing.assert_array_equal(requantize_d(acc, m, shift, 0, INT8), d)
        zero = requantize_d(acc, 0, 0, -128, INT8)  # a flushed multiplier leaves the zero point
        np.testing.assert_array_equal(zero, [-128, -128])

    def test_c_and_d_differ_seldom_and_by_one(self) -> None:
        rng = np.random.default_rng(0)
        acc = rng.integers(-(2**16), 2**16, 100_000, dtype=np.int32)
        m, shift = quantize_multiplier(np.exp2(rng.uniform(-12, -9, 100_000)))
        c = requantize_c(acc, m, shift, 0, INT8).astype(int)
        d = requantize_d(acc, m, shift, 0, INT8).astype(int)
        assert set(np.unique(c - d)) <= {-1, 0, 1}
        assert 0 < (c != d).mean() < 0.02


class TestBound:
    """How large an accumulator can become."""

    def test_longest_sum_of_extremes(self) -> None:
        for k, fits in ((66_311, True), (66_312, False)):
            weight = np.full((1, k), 127, np.int8)
            bound = int(accumulator_bound(weight, INT8)[0])
            assert bound == 127 * 255 * k
            assert (bound <= HIGH) is fits
            x, z = np.full(k, 127, np.int64), -128
            assert int(weight[0].astype(np.int64) @ (x - z)) == bound

    def test_most_negative_weight(self) -> None:
        assert accumulator_bound(np.array([[-128]], np.int8), UINT8).tolist() == [128 * 255]

    def test_channels_along_an_axis(self) -> None:
        weight = np.array([[[1, -2], [3, 0]], [[0, 0], [-5, 6]]], np.int8)
        assert accumulator_bound(weight, INT4).tolist() == [6 * 15, 11 * 15]
        assert accumulator_bound(weight, INT4, axis=1).tolist() == [3 * 15, 14 * 15]
        assert accumulator_bound(weight, INT4, axis=-1).tolist() == [9 * 15, 8 * 15]

    @given(st.lists(st.integers(-128, 127), min_size=1, max_size=6), st.sampled_from([INT4, INT8, UINT8]))
    def test_holds_and_is_reached(self, weights: list[int], itype: IntType) -> None:
        """Over all codes at the ends of the type: never passed, and reached by weights of one sign."""
        ends = (itype.qmin, itype.qmax)
        reached = max(
            abs(sum(w * (x - z) for w, x in zip(weights, xs, strict=True)))
            for z in ends
            for xs in itertools.product(ends, repeat=len(weights))
        )
        bound = int(accumulator_bound(np.array([weights], np.int8), itype)[0])
        assert reached <= bound
        if min(weights) >= 0 or max(weights) <= 0:
            assert reached == bound
