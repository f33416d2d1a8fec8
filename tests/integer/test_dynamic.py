"""Dynamic layers: the engine's floats are ONNX Runtime's, bit for bit; other graphs stay islands; faults are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from eightbit.deploy.sessions import OnnxRuntime, optimized_ops, run_island
from eightbit.errors import EngineError
from eightbit.graph.run import FloatSession
from eightbit.integer import program as p
from eightbit.integer.engine import run
from eightbit.integer.lower import lower
from eightbit.integer.verify import verify
from eightbit.quant.choose.recipe import Activations, PerTensor, Recipe, Weights
from eightbit.quant.quantize import quantize_graph
from tests.graph.graphs import graph, normal

DYNAMIC = Recipe(activations=Activations(dynamic=True))


def layer(k: int, n: int, *, readers: int = 1, recipe: Recipe = DYNAMIC) -> ir.Model:
    """Gemms with bias, `readers` of them on one input."""
    names = [f"y{i}" for i in range(readers)]
    outputs = ", ".join(f"float[M,{n}] {name}" for name in names)
    nodes = " ".join(f"{name} = Gemm <transB=1> (x, w{i}, b{i})" for i, name in enumerate(names))
    weights = {f"w{i}": normal(n, k, seed=i) for i in range(readers)}
    weights |= {f"b{i}": normal(n, seed=9 + i) for i in range(readers)}
    model = graph(f"g (float[M,{k}] x) => ({outputs}) {{ {nodes} }}", **weights)
    for node in model.graph:
        node.name = node.outputs[0].name
    return quantize_graph(model, None, recipe)[0]


def inputs(k: int) -> list[np.ndarray]:
    """Ranges of many sizes, on one side of zero, ties, constants and nothing but zeros."""
    rng = np.random.default_rng(k)
    sizes = [np.float32(np.exp(rng.uniform(-9, 9))) for _ in range(12)]
    found = [normal(int(rng.integers(1, 9)), k, seed=i) * size for i, size in enumerate(sizes)]
    ties = rng.integers(-255, 256, (4, k)).astype(np.float32) / 2  # scale 1: codes at halves
    ties[0, 0], ties[1, 0] = -127.5, 127.5
    edges = [np.zeros((2, k)), np.full((2, k), 3.7), np.full((1, k), -1e-3), ties]
    return [*found, np.abs(found[0]), -np.abs(found[1]), *(e.astype(np.float32) for e in edges)]


@pytest.mark.parametrize("granularity", [PerTensor(), Weights().granularity])
@pytest.mark.parametrize(
    ("k", "n", "readers", "kernel"),
    [
        (40, 11, 1, "DynamicQuantizeMatMul"),
        (40, 11, 3, "MatMulIntegerToFloat"),
        (1, 1, 1, "DynamicQuantizeMatMul"),
        (2048, 33, 1, "DynamicQuantizeMatMul"),  # longer than one exact float32 sum
    ],
)
def test_engine_equals_onnxruntime(k: int, n: int, readers: int, kernel: str, granularity: object) -> None:
    recipe = replace(DYNAMIC, weights=Weights(granularity=granularity))  # type: ignore[arg-type]
    qdq = layer(k, n, readers=readers, recipe=recipe)
    if granularity != PerTensor() and n > 1:
        assert kernel in {op for op, _ in optimized_ops(qdq)}
    program, runtime = lower(qdq), OnnxRuntime(qdq)
    assert [type(op) for op in program.ops] == [p.DynamicQuantize, *[p.DynamicGemm] * readers]
    codes = FloatSession(qdq, ["x_q", "x_s", "x_z"], optimize=False)
    for x in inputs(k):
        found = run(program, {"x": x}, keep=True)
        np.testing.assert_array_equal(found["x_q"], codes.run({"x": x})["x_q"].astype(np.int16) - 128)
        for name, expected in runtime.run({"x": x}).items():
            np.testing.assert_array_equal(found[name], expected)


def test_any_number_of_leading_axes() -> None:
    body = "g (float[A,B,12] x) => (float[A,B,5] y) { y = MatMul (x, w) }"
    model = graph(body, w=normal(12, 5))
    model.graph[0].name = "product"
    qdq = quantize_graph(model, None, DYNAMIC)[0]
    x = normal(3, 4, 12, seed=1)
    np.testing.assert_array_equal(run(lower(qdq), {"x": x})["y"], OnnxRuntime(qdq).run({"x": x})["y"])


def test_graphs_of_another_quantizer(tmp_path: Path) -> None:
    """What ONNX Runtime's quantize_dynamic writes lowers to the same operations, and the same floats."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    weights = {"w1": normal(12, 9, seed=1), "b1": normal(9, seed=2), "w2": normal(9, 4, seed=3)}
    body = "g (float[N,12] x) => (float[N,4] y) { a = MatMul (x, w1) b = Add (a, b1) t = Tanh (b) y = MatMul (t, w2) }"
    ir.save(graph(body, **weights), tmp_path / "float.onnx")
    quantization.quantize_dynamic(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
    )
    qdq = ir.load(tmp_path / "int8.onnx")
    program = lower(qdq)
    kinds = [type(op) for op in program.ops]
    assert kinds == [p.DynamicQuantize, p.DynamicGemm, p.FloatIsland, p.DynamicQuantize, p.DynamicGemm]
    x = normal(6, 12, seed=4)
    expected = OnnxRuntime(qdq).run({"x": x})["y"]
    np.testing.assert_array_equal(run(program, {"x": x}, island=run_island)["y"], expected)


@pytest.mark.parametrize("reader", ["output", "cast"])
@pytest.mark.parametrize(
    ("op", "index"),
    [
        ("DynamicQuantizeLinear", 0),  # codes
        ("DynamicQuantizeLinear", 1),  # scale
        ("DynamicQuantizeLinear", 2),  # zero point
        ("MatMulInteger", 0),
        ("Cast", 0),
        ("Mul", 0),  # the first Mul: of the scales
    ],
)
def test_what_a_layer_hides_is_not_hidden_from_another_reader(op: str, index: int, reader: str) -> None:
    """Whatever of a dynamic layer is read by another node, or given away, has ONNX's own value."""
    qdq = layer(12, 5)
    value = next(n for n in qdq.graph if n.op_type == op).outputs[index]
    if reader == "cast":
        cast = ir.node("Cast", [value], {"to": ir.DataType.DOUBLE}, name="other")
        cast.outputs[0].name, cast.outputs[0].dtype = "seen", ir.DataType.DOUBLE
        qdq.graph.append(cast)
        value = cast.outputs[0]
    qdq.graph.outputs.append(value)
    program = lower(qdq)
    assert [type(op) for op in program.ops] == [p.FloatIsland]
    x = normal(3, 12)
    found = run(program, {"x": x}, island=run_island)
    for name, expected in OnnxRuntime(qdq).run({"x": x}).items():
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.ones((4, 2), np.int16)}, "fc: weight is int16, not int8"),
        ({"bias": np.zeros(2, np.int32)}, r"fc: bias is int32 \(2,\), not float32 \(2,\)"),
        ({"weight_scale": np.ones(3, np.float32)}, r"fc: weight_scale is float32 \(3,\), not float32 \(2,\)"),
        ({"weight": np.full((66_312, 2), 127, np.int8)}, "beyond int32"),
    ],
)
def test_each_fault_is_named(changes: dict[str, np.ndarray], message: str) -> None:
    quantize = p.DynamicQuantize("in", ("x",), ("q", "s", "z"))
    weight, scale = np.ones((4, 2), np.int8), np.ones(2, np.float32)
    gemm = p.DynamicGemm("fc", ("q", "s", "z"), ("y",), weight, scale, None)
    verify(p.Program(("x",), ("y",), (quantize, gemm), {}))
    with pytest.raises(EngineError, match=message):
        verify(p.Program(("x",), ("y",), (quantize, replace(gemm, **changes)), {}))


def test_a_wrong_shape_names_the_operation() -> None:
    with pytest.raises(EngineError, match=r"y0: input 'x_q' has shape \(2, 5\); its last axis must be 12"):
        run(lower(layer(12, 3)), {"x": np.ones((2, 5), np.float32)})
