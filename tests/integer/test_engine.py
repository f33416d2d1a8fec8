"""The engine's own promises: every operation has a function, errors say what to do, blocks change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.errors import EngineError
from eightbit.integer import program as p
from eightbit.integer.engine import KERNELS, conv, run
from eightbit.integer.engine.accumulate import FLOAT32_EXACT, accumulate, exact_weight
from tests.integer.test_verify import tiny


def operations() -> list[type[p.Op]]:
    return [t for t in vars(p).values() if isinstance(t, type) and issubclass(t, p.Op) and t is not p.Op]


def test_every_operation_has_a_function() -> None:
    """All but the island, which the caller's runner runs."""
    assert set(KERNELS) == set(operations()) - {p.FloatIsland}
    assert len(operations()) >= 20


def test_runs_and_keeps() -> None:
    x = np.array([[0.0, 0.5, 1.0, -1.0]], np.float32)
    result = run(tiny(), {"x": x}, keep=True)
    np.testing.assert_array_equal(result["x_q"], [[3, 4, 5, 1]])
    # acc = (0 + 1 + 2 - 2) = 1; 1 * 0.5 * 0.1 / 0.25 = 0.2, rounds to 0
    np.testing.assert_array_equal(result["y_q"], [[-128, -128]])
    np.testing.assert_array_equal(result["y"], np.zeros((1, 2), np.float32))
    assert set(run(tiny(), {"x": x})) == {"y"}


def test_missing_feed() -> None:
    with pytest.raises(EngineError, match="no feed for input 'x'; the program reads x"):
        run(tiny(), {"image": np.zeros((1, 4), np.float32)})


def test_an_arithmetic_may_be_named_by_its_value() -> None:
    feeds = {"x": np.ones((1, 4), np.float32)}
    named, member = (run(tiny(), feeds, arithmetic=a) for a in ("tflite", Arithmetic.TFLITE))
    np.testing.assert_array_equal(named["y"], member["y"])
    with pytest.raises(EngineError, match="unknown arithmetic 'tflm'; choose 'onnx', 'tflite', 'single'"):
        run(tiny(), feeds, arithmetic="tflm")


def test_wrong_shape_names_the_operation() -> None:
    with pytest.raises(EngineError, match=r"fc: input 'x_q' has shape \(1, 5\); its last axis must be 4"):
        run(tiny(), {"x": np.zeros((1, 5), np.float32)})


def test_island_without_a_runner() -> None:
    island = p.FloatIsland("norm", ("x",), ("y",), b"", ("norm",), ("no integer form of this op",))
    program = replace(tiny(), ops=(island,))
    with pytest.raises(EngineError, match="norm is left in float"):
        run(program, {"x": np.zeros(3, np.float32)})
    doubled = run(program, {"x": np.ones(3, np.float32)}, island=lambda op, feeds: {"y": feeds["x"] * 2})
    np.testing.assert_array_equal(doubled["y"], 2)


@pytest.mark.parametrize("arithmetic", [Arithmetic.TFLITE, Arithmetic.SINGLE])
@pytest.mark.parametrize(
    ("scale", "depth", "said"),
    [(2.0**-26, 4, "above 2\\^-26; found"), (0.1, 4096, "4,096 codes; .* room for 4,095")],
)
def test_softmax_in_fixed_point_has_bounds(
    arithmetic: Arithmetic, scale: float, depth: int, said: str
) -> None:
    infos = {"x_q": p.TensorInfo(np.float32(scale), 0), "y_q": p.TensorInfo(np.float32(1 / 256), -128)}
    softmax = p.Softmax("probabilities", ("x_q",), ("y_q",), -1)
    program = replace(tiny(), ops=(tiny().ops[0], softmax, tiny().ops[2]), tensors=infos)
    with pytest.raises(EngineError, match=f"probabilities: Softmax .*{said}"):
        run(program, {"x": np.zeros((1, depth), np.float32)}, arithmetic=arithmetic)


def integers(weight: np.ndarray, bias: np.ndarray, zero_point: int, codes: np.ndarray) -> np.ndarray:
    return bias[:, None] + weight.astype(np.int64) @ (codes.astype(np.int64) - zero_point)


@pytest.mark.parametrize("depth", [1, 517, 518, 1033, 1034, 5000, 70_000])
@pytest.mark.parametrize("value", [127, -128, None])
def test_products_are_exact(depth: int, value: int | None) -> None:
    """Across the bound of float32, at the extremes and at random."""
    rng = np.random.default_rng(depth)
    weight = (
        np.full((3, depth), value, np.int8) if value else rng.integers(-128, 128, (3, depth)).astype(np.int8)
    )
    codes = np.full((depth, 2), -128 if value else 0, np.int8)
    codes[:, 1] = rng.integers(-128, 128, depth)
    bias = rng.integers(-(2**20), 2**20, 3).astype(np.int32)
    exact = exact_weight(weight, bias, 100, largest=128)
    columns = codes.astype(np.float32)
    if exact.ones:
        columns = np.concatenate([columns, np.ones((1, 2), np.float32)])
    np.testing.assert_array_equal(accumulate(exact, columns), integers(weight, bias, 100, codes))


def test_chunks_keep_the_bound_and_cover_everything() -> None:
    weight = np.random.default_rng(0).integers(-128, 128, (4, 9000)).astype(np.int8)
    exact = exact_weight(weight, np.zeros(4, np.int32), 0, largest=128)
    assert len(exact.chunks) > 1
    np.testing.assert_array_equal(np.concatenate([part for _, part in exact.chunks], axis=1), weight)
    for _, part in exact.chunks:
        assert (np.abs(part).sum(1) * 128).max() <= FLOAT32_EXACT


@pytest.mark.parametrize("group", [1, 4, 8])
def test_batches_are_cut_without_a_trace(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images taken together give the codes of images taken alone."""
    rng = np.random.default_rng(1)
    op = p.Conv(
        "conv", ("x_q",), ("y_q",), rng.integers(-127, 128, (8, 8 // group, 3, 3)).astype(np.int8),
        rng.integers(-999, 999, 8).astype(np.int32), np.full(8, 0.01, np.float32), (2, 1), (1, 0, 1, 2), (1, 1), group,
    )  # fmt: skip
    infos = {"x_q": p.TensorInfo(np.float32(0.02), 5), "y_q": p.TensorInfo(np.float32(0.03), -7)}
    codes = rng.integers(-128, 128, (7, 8, 9, 10)).astype(np.int8)
    program = p.Program((), (), (op,), infos)
    together = conv.conv(op, program, Arithmetic.ONNX)(codes)
    monkeypatch.setattr(conv, "FLOATS_AT_ONCE", 1)
    np.testing.assert_array_equal(conv.conv(op, program, Arithmetic.ONNX)(codes), together)
    monkeypatch.setattr(conv, "BLOCK", 40)
    np.testing.assert_array_equal(conv.conv(op, program, Arithmetic.ONNX)(codes), together)


def test_an_empty_batch_gives_an_empty_result() -> None:
    assert run(tiny(), {"x": np.zeros((0, 4), np.float32)})["y"].shape == (0, 2)
