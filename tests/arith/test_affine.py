"""The affine map: vectors, properties, agreement with ONNX Runtime, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

import numpy as np
import onnx
import onnx.helper as oh
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightbit.arith.affine import (
    INT4,
    INT8,
    INT8_NARROW,
    INT16,
    INT32,
    TINY,
    UINT8,
    IntType,
    QuantParams,
    dequantize,
    fake_quantize,
    params_from_range,
    quantize,
    sqnr_db,
)
from eightbit.errors import QuantizationError

SHORT_TYPES = [INT4, INT8, INT8_NARROW, UINT8]
LIMIT = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
RANGE = st.tuples(LIMIT, LIMIT).map(sorted)
UNIT = st.floats(0, 1)
ANY_TYPE = st.sampled_from([*SHORT_TYPES, INT16])


def pair(scale: float, zero_point: int, itype: IntType = INT8) -> QuantParams:
    return QuantParams(np.float32(scale), np.int32(zero_point), itype)


def by_definition(x: np.float32, scale: np.float32, z: int, itype: IntType) -> int:
    """QuantizeLinear of one finite number in exact arithmetic, but for the float32 quotient that defines it."""
    return min(itype.qmax, max(itype.qmin, round(Fraction(float(x / scale))) + z))


@pytest.mark.parametrize(
    ("itype", "low", "high", "dtype", "name"),
    [
        (INT4, -8, 7, "int8", "int4"),
        (INT8, -128, 127, "int8", "int8"),
        (INT8_NARROW, -127, 127, "int8", "int8"),
        (UINT8, 0, 255, "uint8", "uint8"),
        (INT16, -32768, 32767, "int16", "int16"),
        (INT32, -(2**31), 2**31 - 1, "int32", "int32"),
        (IntType(7, signed=True, narrow=True), -63, 63, "int8", "int7"),
        (IntType(12, signed=False), 0, 4095, "uint16", "uint12"),
    ],
)
def test_integer_types(itype: IntType, low: int, high: int, dtype: str, name: str) -> None:
    assert (itype.qmin, itype.qmax, itype.dtype, itype.name) == (low, high, np.dtype(dtype), name)


@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "message"),
    [
        (1, True, False, "int1 is not supported; choose 2 to 32 bits"),
        (33, True, False, "int33 is not supported; choose 2 to 32 bits"),
        (32, False, False, "uint32 is not supported; choose 2 to 31 bits"),
        (8, False, True, "narrow drops the most negative code, and uint8 has none"),
    ],
)
def test_integer_types_refused(bits: int, signed: bool, narrow: bool, message: str) -> None:
    with pytest.raises(QuantizationError, match=message):
        IntType(bits, signed, narrow)


class TestRange:
    """From a range to parameters."""

    @pytest.mark.parametrize(
        ("lo", "hi", "itype", "symmetric", "scale", "zero_point"),
        [
            (-1, 3, UINT8, False, 4 / 255, 64),
            (-1, 3, INT8, False, 4 / 255, -64),
            (5, 10, UINT8, False, 10 / 255, 0),  # widened to 0: [5, 10] alone would leave 0 without a code
            (-10, -5, UINT8, False, 10 / 255, 255),
            (-10, -5, INT8, False, 10 / 255, 127),
            (0, 0, INT8, False, 1, -128),
            (0, 0, INT8, True, 1, 0),
            (-1, 3, INT8, True, 3 / 127, 0),
            (-3, 1, INT8_NARROW, True, 3 / 127, 0),
            (-1, 3, UINT8, True, 3 / 127, 128),
            (-7, 1, INT4, True, 1, 0),
            (0, 1e-45, UINT8, False, float(TINY), 0),  # the quotient would be subnormal
        ],
    )
    def test_vectors(
        self, lo: float, hi: float, itype: IntType, symmetric: bool, scale: float, zero_point: int
    ) -> None:
        params = params_from_range(lo, hi, itype, symmetric=symmetric)
        assert params == pair(scale, zero_point, itype)
        assert (params.scale.dtype, params.zero_point.dtype) == (np.float32, np.int32)

    @pytest.mark.parametrize("below", [100, 101])
    @pytest.mark.parametrize(("step", "up"), [(0.2, 0), (1.4, 1)])  # float32 is above 0.2, and below 1.4
    def test_zero_point_follows_the_rounded_scale(self, below: int, step: float, up: int) -> None:
        """-lo / s is a tie while the scale is not rounded, and on one side of it afterwards."""
        lo = -(below + 0.5) * step
        params = params_from_range(lo, lo + 255 * step, UINT8)
        assert params == pair(step, below + up, UINT8)

    def test_one_pair_a_channel(self) -> None:
        lo, hi = np.array([-1.0, 0.0, -1e-3, -1e3]), np.array([1.0, 0.0, 2e-3, 5.0])
        both = params_from_range(lo, hi, INT8, axis=2)
        single = [params_from_range(a, b, INT8) for a, b in zip(lo, hi, strict=True)]
        assert both.axis == 2
        np.testing.assert_array_equal(both.scale, [p.scale for p in single])
        np.testing.assert_array_equal(both.zero_point, [p.zero_point for p in single])

    @pytest.mark.parametrize(
        ("lo", "hi"), [(1, 0), (np.nan, 1), (0, np.nan), (0, np.inf), (-np.inf, 0), ([0, 2], [1, 1])]
    )
    def test_refused(self, lo: object, hi: object) -> None:
        with pytest.raises(QuantizationError, match="limits must be finite, the lower one first"):
            params_from_range(lo, hi, INT8, axis=0 if isinstance(lo, list) else None)  # type: ignore[arg-type]

    def test_too_wide_for_float32(self) -> None:
        with pytest.raises(QuantizationError, match="scale inf is not a positive normal float32"):
            params_from_range(0, 1e300, INT8)


class TestParams:
    """Parameters validate themselves and are values."""

    @pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf, 1e39, 1e-39])
    def test_scale_refused(self, scale: float) -> None:
        with pytest.raises(QuantizationError, match=r"scale .* is not a positive normal float32; widen"):
            QuantParams(np.asarray(scale), np.int32(0), INT8)

    @pytest.mark.parametrize(
        ("itype", "z"), [(INT8, -129), (INT8, 128), (INT8_NARROW, -128), (UINT8, -1), (UINT8, 2**40)]
    )
    def test_zero_point_is_a_code(self, itype: IntType, z: int) -> None:
        message = rf"zero point {z} lies outside the codes {itype.qmin} to {itype.qmax}"
        with pytest.raises(QuantizationError, match=message):
            QuantParams(np.float32(1), np.int64(z), itype)  # type: ignore[arg-type]

    def test_zero_point_is_an_integer(self) -> None:
        with pytest.raises(QuantizationError, match=r"zero point 0\.5 is float64; give an integer"):
            QuantParams(np.float32(1), np.float64(0.5), INT8)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("scale", "zero_point", "axis", "message"),
        [
            ((2,), (2,), None, r"scale \(2,\) and zero point \(2,\) must both be scalars"),
            ((), (), 0, r"must both be vectors along axis 0"),
            ((2,), (3,), 0, r"scale \(2,\) and zero point \(3,\)"),
            ((2, 1), (2, 1), 0, r"must both be vectors"),
        ],
    )
    def test_shapes(
        self, scale: tuple[int, ...], zero_point: tuple[int, ...], axis: int | None, message: str
    ) -> None:
        with pytest.raises(QuantizationError, match=message):
            QuantParams(np.ones(scale, np.float32), np.zeros(zero_point, np.int32), INT8, axis)

    def test_the_bad_channel_is_named(self) -> None:
        with pytest.raises(QuantizationError, match="scale -3"):
            QuantParams(np.array([1, -3, 2], np.float32), np.zeros(3, np.int32), INT8, 0)

    def test_are_values(self) -> None:
        scale, zero_point = np.ones(3, np.float32), np.zeros(3, np.int32)
        params = QuantParams(scale, zero_point, INT8, 0)
        same = QuantParams(np.ones(3, np.float32), np.zeros(3, np.int32), INT8, 0)
        assert params == same and hash(params) == hash(same)
        scale[0], zero_point[0] = 7, 7
        assert params == same
        for array in (params.scale, params.zero_point):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 7
        others = [
            QuantParams(scale, same.zero_point, INT8, 0),
            QuantParams(same.scale, zero_point, INT8, 0),
            QuantParams(same.scale, same.zero_point, INT8_NARROW, 0),
            QuantParams(same.scale, same.zero_point, INT8, 1),
        ]
        assert len({params, *others}) == 5


class TestQuantize:
    """Real numbers to codes and back."""

    @pytest.mark.parametrize("z", [-2, -1, 0, 1, 2])
    def test_ties_go_to_even_before_the_zero_point(self, z: int) -> None:
        ties = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
        np.testing.assert_array_equal(quantize(ties, pair(1, z)), np.array([-2, -2, 0, 0, 2, 2]) + z)

    def test_divides_rather_than_multiplies_by_the_reciprocal(self) -> None:
        x, scale = np.float32(0.273939937), np.float32(0.00214854861)
        assert np.rint(x * (np.float32(1) / scale)) == 128
        assert quantize(x, pair(scale, 0, UINT8)) == 127

    @pytest.mark.parametrize(
        ("itype", "z"), [(INT8, -128), (INT8, 127), (UINT8, 0), (UINT8, 255), (INT8_NARROW, -127), (INT4, 7)]
    )
    def test_zero_point_at_an_end(self, itype: IntType, z: int) -> None:
        steps = np.array([-300, -1, 0, 1, 300], np.float32)
        expected = np.clip([z - 300, z - 1, z, z + 1, z + 300], itype.qmin, itype.qmax)
        codes = quantize(steps * np.float32(0.25), pair(0.25, z, itype))
        np.testing.assert_array_equal(codes, expected)
        assert codes.dtype == itype.dtype
        np.testing.assert_array_equal(
            dequantize(codes, pair(0.25, z, itype)), (expected - z).astype(np.float32) * np.float32(0.25)
        )

    @pytest.mark.parametrize("itype", [*SHORT_TYPES, INT16, INT32])
    @pytest.mark.parametrize("z", [-1, 0, 1])
    def test_what_is_not_finite(self, itype: IntType, z: int) -> None:
        z = max(z, itype.qmin)
        x = [
            np.nan,
            -np.inf,
            np.inf,
            -3e38,
            3e38,
            -1e300,
            1e300,
        ]  # with the last four, x / s leaves int64 or float32
        expected = [itype.qmin, itype.qmin, itype.qmax, itype.qmin, itype.qmax, itype.qmin, itype.qmax]
        for scale in (TINY, 1.0):
            np.testing.assert_array_equal(quantize(x, pair(scale, z, itype)), expected)

    def test_int32_codes_are_exact(self) -> None:
        """Biases: codes beyond 2**24, which float32 arithmetic on the code would round."""
        x = np.array([2**24 + 2, -(2**30) - 128, 2**31 - 128], np.float32)
        np.testing.assert_array_equal(quantize(x, pair(1, 0, INT32)), x.astype(np.int64))
        np.testing.assert_array_equal(quantize(x[:1], pair(1, 1, INT32)), [2**24 + 3])
        ends = np.array([-(2**31), 2**31 - 1], np.int32)
        np.testing.assert_array_equal(  # the differences leave int32
            dequantize(ends, pair(1, 2**31 - 1, INT32)), np.array([-(2.0**32), 0], np.float32)
        )

    @pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)])
    def test_any_shape(self, shape: tuple[int, ...]) -> None:
        codes = quantize(np.ones(shape), pair(0.5, 1))
        assert isinstance(codes, np.ndarray) and codes.shape == shape
        np.testing.assert_array_equal(codes, np.full(shape, 3))
        back = dequantize(codes, pair(0.5, 1))
        assert isinstance(back, np.ndarray) and back.dtype == np.float32
        np.testing.assert_array_equal(back, np.ones(shape))

    def test_input_is_left_alone(self) -> None:
        x = np.array([1.25, np.nan], np.float32)
        fake_quantize(x, pair(1, 0))
        np.testing.assert_array_equal(x, np.array([1.25, np.nan], np.float32))

    @pytest.mark.parametrize("axis", [0, 1, 2, -1])
    def test_each_channel_by_its_own_pair(self, axis: int) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(3, 3, 3)).astype(np.float32)
        scale = np.array([1e-3, 0.1, 1e3], np.float32)  # spanning 10**6
        zero_point = np.array([-128, 0, 127], np.int32)
        codes = quantize(x, QuantParams(scale, zero_point, INT8, axis))
        back = dequantize(codes, QuantParams(scale, zero_point, INT8, axis))
        for c in range(3):
            one = pair(scale[c], int(zero_point[c]))
            part = np.take(x, c, axis)
            np.testing.assert_array_equal(np.take(codes, c, axis), quantize(part, one))
            np.testing.assert_array_equal(np.take(back, c, axis), fake_quantize(part, one))

    @pytest.mark.parametrize("shape", [(1, 5), (4, 5), (3,), ()])
    def test_wrong_number_of_channels(self, shape: tuple[int, ...]) -> None:
        """(1, 5) would broadcast with three channels into an array of another shape."""
        params = QuantParams(np.ones(3, np.float32), np.zeros(3, np.int32), INT8, 0 if len(shape) == 2 else 1)
        for call in (
            lambda: quantize(np.ones(shape), params),
            lambda: dequantize(np.ones(shape, int), params),
        ):
            with pytest.raises(QuantizationError, match="does not have 3 channels along axis"):
                call()

    def test_codes_are_integers(self) -> None:
        with pytest.raises(QuantizationError, match="codes are integers; found float32"):
            dequantize(np.ones(2, np.float32), pair(1, 0))

    @given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), RANGE, ANY_TYPE)
    def test_definition(self, xs: list[float], limits: list[float], itype: IntType) -> None:
        params = params_from_range(*limits, itype)
        with np.errstate(over="ignore"):
            near = [x for x in xs if np.isfinite(np.float32(x) / params.scale)]
        expected = [
            by_definition(np.float32(x), params.scale[()], int(params.zero_point), itype) for x in near
        ]
        np.testing.assert_array_equal(quantize(near, params), expected)

    @given(RANGE, ANY_TYPE, st.booleans())
    def test_zero_is_exact(self, limits: list[float], itype: IntType, symmetric: bool) -> None:
        params = params_from_range(*limits, itype, symmetric=symmetric)
        assert quantize(0.0, params) == params.zero_point
        assert dequantize(params.zero_point, params) == 0
        if symmetric and itype.signed:
            assert params.zero_point == 0

    @given(RANGE, UNIT, ANY_TYPE, st.booleans())
    def test_round_trip_within_half_a_step(
        self, limits: list[float], t: float, itype: IntType, symmetric: bool
    ) -> None:
        lo, hi = min(limits[0], 0.0), max(limits[1], 0.0)
        x = np.clip(np.float32(lo + t * (hi - lo)), np.float32(lo), np.float32(hi))
        params = params_from_range(lo, hi, itype, symmetric=symmetric)
        scale = float(params.scale)
        back = scale * (int(quantize(x, params)) - int(params.zero_point))  # exact: 24 + 17 bits
        # The quotient and the scale are each rounded to float32: 2**-24 of at most qmax - qmin steps.
        assert abs(back - float(x)) <= scale * (0.5 + 2 * (itype.qmax - itype.qmin) * 2.0**-24)

    @given(st.lists(st.floats(width=32, allow_nan=False)), RANGE, ANY_TYPE)
    def test_monotone(self, xs: list[float], limits: list[float], itype: IntType) -> None:
        codes = quantize(sorted(xs), params_from_range(*limits, itype)).astype(np.int64)
        assert (np.diff(codes) >= 0).all()

    @given(RANGE, ANY_TYPE)
    def test_every_code_survives_the_trip(self, limits: list[float], itype: IntType) -> None:
        params = params_from_range(*limits, itype)
        codes = np.linspace(itype.qmin, itype.qmax, 256).astype(itype.dtype)
        np.testing.assert_array_equal(quantize(dequantize(codes, params), params), codes)


class TestOnnxRuntime:
    """The same codes as the runtime's own kernels, on x86."""

    EDGES = (np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31), 2.0**33, -0.0, 1e-45)
    TYPES: ClassVar = {
        INT8: onnx.TensorProto.INT8,
        UINT8: onnx.TensorProto.UINT8,
        INT16: onnx.TensorProto.INT16,
    }

    @staticmethod
    def run(op: str, x: np.ndarray, params: QuantParams, code: int) -> np.ndarray:
        """One QuantizeLinear or DequantizeLinear, with the parameters as inputs."""
        source, target = (
            (onnx.TensorProto.FLOAT, code) if op == "QuantizeLinear" else (code, onnx.TensorProto.FLOAT)
        )
        inputs = [
            oh.make_tensor_value_info("x", source, [None] * x.ndim),
            oh.make_tensor_value_info("s", onnx.TensorProto.FLOAT, params.scale.shape),
            oh.make_tensor_value_info("z", code, params.scale.shape),
        ]
        output = oh.make_tensor_value_info("y", target, [None] * x.ndim)
        attributes = {} if params.axis is None else {"axis": params.axis}
        node = oh.make_node(op, ["x", "s", "z"], ["y"], **attributes)
        graph = oh.make_graph([node], "one", inputs, [output])
        proto = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21)], ir_version=10)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        dtype = params.itype.dtype
        feeds = {"x": x, "s": np.array(params.scale), "z": params.zero_point.astype(dtype)}
        return np.asarray(session.run(None, feeds)[0])

    @pytest.mark.parametrize("itype", TYPES, ids=lambda t: t.name)
    @pytest.mark.parametrize("scale", [0.00214854861, 1.0, 3.7e-20])
    def test_per_tensor(self, itype: IntType, scale: float) -> None:
        rng = np.random.default_rng(0)
        halves = rng.integers(-3 * 2 ** (itype.bits - 1), 3 * 2 ** (itype.bits - 1), 4000) * 0.5
        x = np.concatenate([self.EDGES, np.float32(scale) * halves.astype(np.float32)]).astype(np.float32)
        for z in (itype.qmin, itype.qmin + 1, 3, 4, itype.qmax):
            params = pair(scale, z, itype)
            codes = self.run("QuantizeLinear", x, params, self.TYPES[itype])
            np.testing.assert_array_equal(quantize(x, params), codes)
            back = self.run("DequantizeLinear", codes, params, self.TYPES[itype])
            np.testing.assert_array_equal(dequantize(codes, params), back)

    def test_per_channel(self) -> None:
        x = np.random.default_rng(1).normal(size=(2, 5, 33)).astype(np.float32)
        limit = np.abs(x).max((0, 2)) * np.array([0.5, 1, 2, 1e3, 1e-3])
        params = params_from_range(-limit, limit / 2, INT8, axis=1)
        codes = self.run("QuantizeLinear", x, params, self.TYPES[INT8])
        np.testing.assert_array_equal(quantize(x, params), codes)
        np.testing.assert_array_equal(
            fake_quantize(x, params), self.run("DequantizeLinear", codes, params, self.TYPES[INT8])
        )

    def test_biases(self) -> None:
        rng = np.random.default_rng(2)
        codes = rng.integers(-(2**31), 2**31, 1000, dtype=np.int32)
        params = pair(0.0123, 0, INT32)
        back = self.run("DequantizeLinear", codes, params, onnx.TensorProto.INT32)
        np.testing.assert_array_equal(dequantize(codes, params), back)


class TestSqnr:
    """Signal to quantization noise."""

    def test_vectors(self) -> None:
        assert sqnr_db([3.0, 4.0], [3.0, 4.5]) == pytest.approx(
            20.0, rel=1e-12
        )  # 25 / 0.25, a few float64 roundings
        assert sqnr_db([3.0, 4.0], [0.0, 0.0]) == 0
        assert sqnr_db([1.0, 2.0], [1.0, 2.0]) == np.inf
        assert sqnr_db([0.0, 0.0], [0.0, 1.0]) == -np.inf
        assert sqnr_db(np.array([200], np.uint8), np.array([180], np.uint8)) == pytest.approx(20.0, rel=1e-12)

    @pytest.mark.parametrize("bits", [4, 6, 8, 10])
    def test_six_decibels_a_bit(self, bits: int) -> None:
        """A uniform signal over 2**bits steps against noise of step² / 12: 20 log10(2**bits)."""
        x = np.random.default_rng(bits).uniform(-1, 1, 200_000).astype(np.float32)
        found = sqnr_db(x, fake_quantize(x, params_from_range(-1, 1, IntType(bits, signed=True))))
        # 2**bits - 1 steps span the range rather than 2**bits: up to 0.56 dB at 4 bits; sampling adds < 0.05 dB.
        assert found == pytest.approx(20 * np.log10(2**bits - 1), abs=0.05)

    @pytest.mark.parametrize(
        ("reference", "actual", "message"),
        [
            ([1.0], [[1.0]], r"cannot compare shapes \(1,\) and \(1, 1\)"),
            ([], [], "signal to noise needs values, all finite"),
            ([1.0], [np.nan], "signal to noise needs values, all finite"),
            ([np.inf], [1.0], "signal to noise needs values, all finite"),
        ],
    )
    def test_refused(self, reference: list[float], actual: list[float], message: str) -> None:
        with pytest.raises(QuantizationError, match=message):
            sqnr_db(reference, actual)
