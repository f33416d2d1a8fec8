"""The ONNX standard's own node cases, run through the engine's functions and the affine map.

`load_model_tests` regenerates inputs and expected outputs; the graphs are single nodes, so a case is read into the
one operation it stands for.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from eightbit.arith.affine import INT8, UINT8, QuantParams, dequantize, quantize
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.integer.engine import KERNELS
from eightbit.integer.engine.accumulate import accumulate, exact_weight
from eightbit.integer.program import Conv, Gemm, MatMul, Program, TensorInfo, canonical

TYPES = {np.dtype(np.uint8): UINT8, np.dtype(np.int8): INT8}


@cache
def node_cases() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators of other cases overflow on purpose
        return {case.name: case for case in load_model_tests(kind="node")}


def tensors(name: str) -> tuple[list[np.ndarray], np.ndarray, Any]:
    """Inputs, expected first output and node of a case."""
    case = node_cases()[name]
    inputs, outputs = case.data_sets[0]
    return [as_array(t) for t in inputs], as_array(outputs[0]), case.model.graph.node[0]


def as_array(tensor: Any) -> np.ndarray:
    return numpy_helper.to_array(tensor) if hasattr(tensor, "raw_data") else np.asarray(tensor)


def info(scale: np.ndarray, zero_point: np.ndarray) -> TensorInfo:
    offset = 128 if zero_point.dtype == np.uint8 else 0
    return TensorInfo(np.float32(scale.item()), int(zero_point.item()) - offset)


def run_op(op: Any, infos: dict[str, TensorInfo], *codes: np.ndarray) -> np.ndarray:
    program = Program((), (), (op,), infos)
    return KERNELS[type(op)](op, program, Arithmetic.ONNX)(*codes)


def test_qlinearconv() -> None:
    (x, sx, zx, w, sw, zw, sy, zy), expected, _ = tensors("test_qlinearconv")
    assert (
        w.shape == (1, 1, 1, 1) and zw == 255
    )  # one weight, with a zero point: 1x1, so it is the number w - zw
    weight = (w.astype(np.int16) - zw).astype(np.int16)
    # The weight -255 has no int8 code; the product is shared out over a sum of three channels that have.
    parts = np.full((1, 3, 1, 1), weight.item() // 3, np.int8)
    assert parts.sum() == weight.item()
    op = Conv(
        "conv",
        ("x",),
        ("y",),
        parts,
        np.zeros(1, np.int32),
        np.full(1, sw, np.float32),
        (1, 1),
        (0,) * 4,
        (1, 1),
    )
    infos = {"x": info(sx, zx), "y": info(sy, zy)}
    found = run_op(op, infos, np.repeat(canonical(x), 3, axis=1))
    np.testing.assert_array_equal(found, canonical(expected))


QLINEARMATMUL = [f"test_qlinearmatmul_{d}_{t}_float32" for d in ("2D", "3D") for t in ("uint8", "int8")]


@pytest.mark.parametrize("name", QLINEARMATMUL)
def test_qlinearmatmul(name: str) -> None:
    (a, sa, za, b, sb, zb, sy, zy), expected, _ = tensors(name)
    infos = {"a": info(sa, za), "b": info(sb, zb), "y": info(sy, zy)}
    found = run_op(MatMul("m", ("a", "b"), ("y",)), infos, canonical(a), canonical(b))
    np.testing.assert_array_equal(found, canonical(expected))


@pytest.mark.parametrize("name", ["test_convinteger_without_padding", "test_convinteger_with_padding"])
def test_convinteger(name: str) -> None:
    (x, w, zx, *zw), expected, node = tensors(name)
    w = w.astype(np.int16) - (zw[0].reshape(-1, 1, 1, 1) if zw else 0)
    pads = next((tuple(a.ints) for a in node.attribute if a.name == "pads"), (0, 0, 0, 0))
    weight = exact_weight(
        w.astype(np.int8).reshape(len(w), -1), np.zeros(len(w), np.int32), int(zx) - 128, largest=128
    )
    padded = np.pad(
        canonical(x),
        ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])),
        constant_values=int(zx) - 128,
    )
    view = np.lib.stride_tricks.sliding_window_view(padded[0, 0], w.shape[2:])
    columns = view.reshape(-1, w[0].size).T.astype(np.float32)
    columns = np.concatenate([columns, np.ones((1, columns.shape[1]), np.float32)])
    np.testing.assert_array_equal(accumulate(weight, columns).reshape(expected.shape), expected)


def test_matmulinteger() -> None:
    (a, b, za, zb), expected, _ = tensors("test_matmulinteger")
    weight = exact_weight(
        (b.astype(np.int16) - zb).astype(np.int8).T,
        np.zeros(b.shape[1], np.int32),
        int(za.item()) - 128,
        largest=128,
    )
    columns = np.concatenate([canonical(a).T, np.ones((1, a.shape[0]))]).astype(np.float32)
    np.testing.assert_array_equal(accumulate(weight, columns).T, expected)


@pytest.mark.parametrize("name", ["test_quantizelinear", "test_quantizelinear_axis"])
def test_quantizelinear(name: str) -> None:
    (x, scale, zero_point), expected, _ = tensors(name)
    params = QuantParams(
        scale, zero_point.astype(np.int32), TYPES[zero_point.dtype], 1 if scale.ndim else None
    )
    np.testing.assert_array_equal(quantize(x, params), expected)


@pytest.mark.parametrize("name", ["test_dequantizelinear", "test_dequantizelinear_axis"])
def test_dequantizelinear(name: str) -> None:
    (q, scale, zero_point), expected, _ = tensors(name)
    params = QuantParams(scale, zero_point.astype(np.int32), TYPES[q.dtype], 1 if scale.ndim else None)
    np.testing.assert_array_equal(dequantize(q, params), expected)


def test_gemm_equals_the_matmul_of_the_standard() -> None:
    """The constant-weight path on a case of the other one: B's zero point moved into its codes."""
    (a, sa, za, b, sb, zb, sy, zy), expected, _ = tensors("test_qlinearmatmul_2D_uint8_float32")
    shifted = b.astype(np.int16) - zb
    op = Gemm(
        "g", ("a",), ("y",), np.concatenate([shifted // 2, shifted - shifted // 2]).astype(np.int8),
        np.zeros(b.shape[1], np.int32), np.full(b.shape[1], sb, np.float32),
    )  # fmt: skip
    infos = {"a": info(sa, za), "y": info(sy, zy)}
    doubled = np.concatenate([canonical(a)] * 2, axis=1)
    np.testing.assert_array_equal(run_op(op, infos, doubled), canonical(expected))
