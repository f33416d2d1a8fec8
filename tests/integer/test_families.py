"""TFLite and single-rounding arithmetic, against definitions written out in Python integers, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.integer import program as p
from eightbit.integer.engine import KERNELS

FIXED = [Arithmetic.TFLITE, Arithmetic.SINGLE]


def split(real: float) -> tuple[int, int]:
    """QuantizeMultiplier: 31 bits and a shift."""
    significand, shift = math.frexp(real)
    m = int(Fraction(significand) * 2**31 + Fraction(1, 2))
    return (m // 2, shift + 1) if m == 2**31 else (m, shift)


def scaled(acc: int, real: float, arithmetic: Arithmetic) -> int:
    """MultiplyByQuantizedMultiplier, with two roundings or one."""
    m, shift = split(real)
    return by_multiplier(acc, m, shift, arithmetic)


def by_multiplier(acc: int, m: int, shift: int, arithmetic: Arithmetic) -> int:
    if arithmetic is Arithmetic.SINGLE:
        total = 31 - shift
        return (acc * m + (1 << (total - 1))) >> total
    doubled = acc * (1 << max(shift, 0)) * m
    nudge = 1 << 30 if doubled >= 0 else 1 - (1 << 30)
    high = abs(doubled + nudge) // 2**31 * (1 if doubled + nudge >= 0 else -1)  # C divides towards zero
    right = max(-shift, 0)
    mask = (1 << right) - 1
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))


def code(value: int) -> int:
    return min(127, max(-128, value))


def kernel(op: p.Op, infos: dict[str, p.TensorInfo], arithmetic: Arithmetic) -> Callable[..., np.ndarray]:
    return KERNELS[type(op)](op, p.Program((), (), (op,), infos), arithmetic)


@pytest.fixture(params=range(3))
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def info(rng: np.random.Generator, scale: float | None = None) -> p.TensorInfo:
    chosen = rng.uniform(0.01, 0.1) if scale is None else scale
    return p.TensorInfo(np.float32(chosen), int(rng.integers(-128, 128)))


@pytest.mark.parametrize("arithmetic", FIXED)
def test_gemm_and_conv(arithmetic: Arithmetic, rng: np.random.Generator) -> None:
    weight = rng.integers(-127, 128, (5, 12)).astype(np.int8)
    bias, scales = (
        rng.integers(-3000, 3000, 5).astype(np.int32),
        rng.uniform(0.001, 0.02, 5).astype(np.float32),
    )
    x, y = info(rng), info(rng, 0.5)
    infos = {"x": x, "y": y}
    codes = rng.integers(-128, 128, (60, 12)).astype(np.int8)
    expected = [
        [
            code(
                y.zero_point
                + scaled(
                    int(bias[o])
                    + sum(int(w) * (int(q) - x.zero_point) for w, q in zip(weight[o], row, strict=True)),
                    float(x.scale) * float(scales[o]) / float(y.scale),
                    arithmetic,
                )
            )
            for o in range(5)
        ]
        for row in codes
    ]
    gemm = p.Gemm("g", ("x",), ("y",), np.ascontiguousarray(weight.T), bias, scales)
    np.testing.assert_array_equal(kernel(gemm, infos, arithmetic)(codes), expected)
    conv = p.Conv("c", ("x",), ("y",), weight[:, :, None, None], bias, scales, (1, 1), (0,) * 4, (1, 1))
    image = np.ascontiguousarray(codes.T.reshape(1, 12, 6, 10))
    found = kernel(conv, infos, arithmetic)(image)
    np.testing.assert_array_equal(found.reshape(5, 60).T, expected)


@pytest.mark.parametrize("arithmetic", FIXED)
def test_matmul(arithmetic: Arithmetic, rng: np.random.Generator) -> None:
    a, b, y = info(rng), info(rng), info(rng, 0.4)
    left, right = (rng.integers(-128, 128, s).astype(np.int8) for s in ((6, 9), (9, 4)))
    acc = (left.astype(int) - a.zero_point) @ (right.astype(int) - b.zero_point)
    real = float(a.scale) * float(b.scale) / float(y.scale)
    expected = [[code(y.zero_point + scaled(int(v), real, arithmetic)) for v in row] for row in acc]
    op = p.MatMul("m", ("a", "b"), ("y",))
    np.testing.assert_array_equal(kernel(op, {"a": a, "b": b, "y": y}, arithmetic)(left, right), expected)


@pytest.mark.parametrize("arithmetic", FIXED)
@pytest.mark.parametrize("op_type", [p.Add, p.Mul])
def test_add_and_mul(op_type: type[p.Op], arithmetic: Arithmetic, rng: np.random.Generator) -> None:
    a, b, y = info(rng), info(rng), info(rng, 0.1 if op_type is p.Add else 0.06)
    left, right = (rng.integers(-128, 128, 500).astype(np.int8) for _ in range(2))
    s_a, s_b, s_y = (float(i.scale) for i in (a, b, y))

    def one(q_a: int, q_b: int) -> int:
        if op_type is p.Mul:
            return scaled((q_a - a.zero_point) * (q_b - b.zero_point), s_a * s_b / s_y, arithmetic)
        twice = 2 * max(s_a, s_b)
        raised = [
            scaled((q - i.zero_point) << 20, s / twice, arithmetic)
            for q, i, s in ((q_a, a, s_a), (q_b, b, s_b))
        ]
        return scaled(sum(raised), twice / (2**20 * s_y), arithmetic)

    expected = [code(y.zero_point + one(int(m), int(n))) for m, n in zip(left, right, strict=True)]
    op = op_type("o", ("a", "b"), ("y",))
    np.testing.assert_array_equal(kernel(op, {"a": a, "b": b, "y": y}, arithmetic)(left, right), expected)


@pytest.mark.parametrize("arithmetic", FIXED)
@pytest.mark.parametrize("include", [False, True])
def test_average_pool(include: bool, arithmetic: Arithmetic, rng: np.random.Generator) -> None:
    """Sum of the codes over the count, rounded half away from zero; padding is left out, or is the zero point."""
    x = info(rng)
    codes = rng.integers(-128, 128, (2, 3, 5, 6)).astype(np.int8)
    op = p.AveragePool("a", ("x",), ("y",), (2, 2), (2, 1), (1, 0, 0, 1), False, include)
    found = kernel(op, {"x": x, "y": x}, arithmetic)(codes)
    for index in np.ndindex(found.shape):
        n, c, i, j = index
        window = [(2 * i - 1 + d, j + e) for d in (0, 1) for e in (0, 1)]
        inside = [int(codes[n, c, r, s]) for r, s in window if 0 <= r < 5 and 0 <= s < 6]
        if include:
            inside += [x.zero_point] * (4 - len(inside))
        total, count = sum(inside), len(inside)
        assert found[index] == math.copysign((abs(total) + count // 2) // count, total)


@pytest.mark.parametrize("arithmetic", FIXED)
def test_codes_of_another_scale(arithmetic: Arithmetic, rng: np.random.Generator) -> None:
    """A table from scale to scale, a part of a Concat, a mean: by the family's multiplier, not through float."""
    infos = {"x": info(rng), "y": info(rng)}
    x, y = infos["x"], infos["y"]
    q = rng.integers(-128, 128, (2, 3, 6, 6)).astype(np.int8)

    def moved(codes: np.ndarray) -> np.ndarray:
        real = float(x.scale) / float(y.scale)
        one = [code(y.zero_point + scaled(int(c) - x.zero_point, real, arithmetic)) for c in codes.ravel()]
        return np.array(one).reshape(codes.shape)

    wrong = rng.integers(-128, 128, 256).astype(np.int8)
    lookup = p.Lookup("l", ("x",), ("y",), wrong, p.REQUANTIZE)
    np.testing.assert_array_equal(kernel(lookup, infos, arithmetic)(q), moved(q))
    concat = p.Concat("c", ("x", "y"), ("y",), 1, (wrong, None))
    np.testing.assert_array_equal(kernel(concat, infos, arithmetic)(q, q), np.concatenate([moved(q), q], 1))
    pool = p.AveragePool("p", ("x",), ("y",), (2, 2), (2, 2), (0,) * 4)
    same = p.AveragePool("p", ("x",), ("x",), (2, 2), (2, 2), (0,) * 4)
    mean = kernel(same, infos, arithmetic)(q)
    np.testing.assert_array_equal(kernel(pool, infos, arithmetic)(q), moved(mean))
    relu = p.Lookup("r", ("x",), ("y",), wrong, "Relu")
    np.testing.assert_array_equal(kernel(relu, infos, arithmetic)(q), wrong[q.astype(int) + 128])


@pytest.mark.parametrize("arithmetic", FIXED)
def test_global_average_pool(arithmetic: Arithmetic, rng: np.random.Generator) -> None:
    x, y = info(rng), info(rng)
    codes = rng.integers(-128, 128, (2, 40, 7, 7)).astype(np.int8)
    found = kernel(p.GlobalAveragePool("m", ("x",), ("y",)), {"x": x, "y": y}, arithmetic)(codes)
    m, shift = split(float(x.scale) / float(y.scale))
    room = min(5, 31 + shift)  # 49 has six bits
    expected = [
        code(
            y.zero_point
            + by_multiplier(int(s) - 49 * x.zero_point, (m << room) // 49, shift - room, arithmetic)
        )
        for s in codes.sum((2, 3), dtype=int).reshape(-1)
    ]
    np.testing.assert_array_equal(found.reshape(-1), expected)


@pytest.mark.parametrize("arithmetic", FIXED)
@pytest.mark.parametrize("scale", [1 / 256, 1 / 255, 0.0137])
@pytest.mark.parametrize("step", [3e-8, 0.004, 0.1, 1.7, 32.0, 500.0])
def test_softmax(rng: np.random.Generator, arithmetic: Arithmetic, scale: float, step: float) -> None:
    """Within one code of real numbers rounded once: shares in 1/256, at most 255 of them, then the output's codes."""
    x, y = p.TensorInfo(np.float32(step), 7), p.TensorInfo(np.float32(scale), -128)
    made = kernel(p.Softmax("s", ("x",), ("y",), 1), {"x": x, "y": y}, arithmetic)
    q = rng.integers(-128, 128, (6, 21, 3)).astype(np.int8)
    e = np.exp((q - q.max(1, keepdims=True).astype(np.float64)) * float(x.scale))
    shares = np.minimum(np.rint(e / e.sum(1, keepdims=True) * 256), 255)
    expected = np.clip(np.rint(shares / 256 / float(y.scale)) - 128, -128, 127)
    assert np.abs(made(q) - expected).max() <= 1
    assert made(q[:, :1])[0, 0, 0] == code(
        round(255 / 256 / float(y.scale)) - 128
    )  # one class: the most there is
    flat = made(np.full((1, 512), 3, np.int8))
    assert set(flat.ravel().tolist()) == {-128}  # nothing is left of 1/512
