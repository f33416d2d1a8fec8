"""Dynamic recipes: what becomes integer, without data; what the graph computes; what is refused."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import eightbit as eb
from eightbit.deploy.sessions import OnnxRuntime, optimized_ops
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.graph.prepare.fold import prepare
from eightbit.graph.run import FloatSession
from eightbit.quant.choose.recipe import FLOAT, Activations, PerTensor, PerToken, Recipe, Weights
from eightbit.quant.choose.recipe_file import parse_recipe
from eightbit.quant.methods.calibrators import Percentile
from eightbit.quant.methods.rounding import GPTQ
from eightbit.quant.quantize import quantize_graph
from tests.graph.graphs import graph, normal
from tests.small_net import images, small_net

DYNAMIC = Recipe(activations=Activations(dynamic=True))
PER_TOKEN = Recipe(activations=Activations(granularity=PerToken(), dynamic=True))

BODY = """g (float[N,12] x) => (float[N,7] y, float[N,7] z) {
    n = LayerNormalization <axis=-1> (x, one)
    a = Gemm <transB=1> (n, w1, b1)
    t = Tanh (a)
    y = Gemm (t, w2)
    z = Gemm <transB=1> (n, w3, b3)
}"""


def net() -> ir.Model:
    weights = {
        "one": np.ones(12, np.float32),
        "w1": normal(9, 12, seed=1),
        "b1": normal(9, seed=2),
        "w2": normal(9, 7, seed=3),
        "w3": normal(7, 12, seed=4),
        "b3": normal(7, seed=5),
    }
    model = prepare(graph(BODY, **weights))
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def by_hand(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """A dynamic layer in float64 of integers: weight (K, N), one scale a column."""
    scale_w = np.abs(weight).max(0) / np.float32(127)
    w = np.rint(weight / scale_w)
    lo, hi = min(x.min(), 0), max(x.max(), 0)
    scale = (hi - lo) / np.float32(255)
    zero = np.rint(-lo / scale)
    q = np.clip(np.rint(x / scale) + zero, 0, 255)
    product = (q - zero) @ w * (np.float64(scale) * scale_w)
    return product if bias is None else product + bias


def test_no_data_are_needed_and_every_matrix_is_integer() -> None:
    model = net()
    q, placement, params = quantize_graph(model, None, DYNAMIC)
    onnx.checker.check_model(ir.to_proto(q), full_check=True)
    assert placement.layers == ("a", "y", "z")
    assert {island.node: island.op for island in placement.islands} == {
        "n": "LayerNormalization",
        "t": "Tanh",
    }
    assert not params
    kinds = [op for op, _ in optimized_ops(q)]
    assert kinds.count("DynamicQuantizeMatMul") + kinds.count("MatMulIntegerToFloat") == 3
    assert "Gemm" not in kinds and "MatMul" not in kinds
    assert {v.name for v in q.graph.outputs} == {"y", "z"}
    assert [n.op_type for n in model.graph].count("Gemm") == 3  # the float graph is untouched
    shared = [n for n in q.graph if n.op_type == "DynamicQuantizeLinear"]
    assert len(shared) == 2  # two layers read n


def test_layers_compute_what_dynamic_quantization_says() -> None:
    model, x = net(), normal(6, 12, seed=9)
    q, _, _ = quantize_graph(model, None, DYNAMIC)
    n = FloatSession(model, ["n"]).run({"x": x})["n"]
    # Optimized, as everyone runs it: only so does ONNX Runtime keep the products exact on every processor.
    found = FloatSession(q, ["a", "t", "y", "z"]).run({"x": x})
    # prepare lays every weight out as (channels, inputs)
    weights = {name: value.const_value.numpy() for name, value in net().graph.initializers.items()}
    for name, source, weight, bias in (
        ("a", n, weights["w1"].T, weights["b1"]),
        ("z", n, weights["w3"].T, weights["b3"]),
        ("y", found["t"], weights["w2"].T, None),
    ):
        # The reference scales in float64; the graph rounds to float32 three times.
        np.testing.assert_allclose(found[name], by_hand(source, weight, bias), rtol=0, atol=3e-6)


def test_a_token_has_a_scale_of_its_own() -> None:
    """An answer does not depend on the rest of the batch, nor its precision on the size of the row."""
    model, x = net(), normal(6, 12, seed=9)
    q, placement, params = quantize_graph(model, None, PER_TOKEN)
    onnx.checker.check_model(ir.to_proto(q), full_check=True)
    assert placement.layers == ("a", "y", "z") and not params
    kinds = [op for op, _ in optimized_ops(q)]
    assert kinds.count("ReduceMax") == 2  # two layers read n
    assert "Gemm" not in kinds and "MatMul" not in kinds
    session = OnnxRuntime(q)
    for name, rows in session.run({"x": x}).items():
        alone = np.concatenate([session.run({"x": row[None]})[name] for row in x])
        np.testing.assert_array_equal(rows, alone)

    one = graph("g (float[N,12] x) => (float[N,9] y) { y = Gemm <transB=1> (x, w) }", w=normal(9, 12))
    one.graph[0].name = "fc"
    session = OnnxRuntime(quantize_graph(one, None, PER_TOKEN)[0])
    factors = np.float32([[1], [2**20], [2**-20], [0], [2**60], [2**-60]])
    rows = session.run({"x": x})["y"]
    np.testing.assert_array_equal(session.run({"x": x * factors})["y"], rows * factors)
    float_y = FloatSession(one).run({"x": x})["y"]
    assert 10 * np.log10(np.square(float_y).sum() / np.square(rows - float_y).sum()) > 35


def test_the_scale_follows_the_input() -> None:
    """An input a thousand times larger than the last one is as precise: nothing saturates."""
    body = "g (float[N,12] x) => (float[N,9] y) { y = Gemm <transB=1> (x, w) }"
    model = graph(body, w=normal(9, 12))
    model.graph[0].name = "fc"
    q, _, _ = quantize_graph(model, None, DYNAMIC)
    x = normal(20, 12, seed=3)
    small, large = (OnnxRuntime(q).run({"x": x * np.float32(2.0**k)})["y"] for k in (-5, 5))
    np.testing.assert_array_equal(large, small * np.float32(2.0**10))
    float_y = FloatSession(model).run({"x": x})["y"]
    error = OnnxRuntime(q).run({"x": x})["y"] - float_y
    assert 30 < 10 * np.log10(np.square(float_y).sum() / np.square(error).sum()) < 60


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(Weights(bits=4), Activations(dynamic=True)),
        Recipe(Weights(granularity=PerTensor()), Activations(dynamic=True)),
        Recipe(activations=Activations(dynamic=True), overrides={"a": FLOAT}),
        PER_TOKEN,
        Recipe(activations=Activations()),
    ],
)
def test_each_option_changes_the_output(recipe: Recipe) -> None:
    x = normal(6, 12, seed=9)
    first, _, _ = quantize_graph(net(), x, Recipe(activations=Activations(dynamic=True), smooth=False))
    second, _, _ = quantize_graph(net(), None if recipe.dynamic else x, recipe)
    assert np.any(OnnxRuntime(first).run({"x": x})["y"] != OnnxRuntime(second).run({"x": x})["y"])


@pytest.mark.parametrize(
    "recipe",
    [
        DYNAMIC,  # smoothing takes the peaks of channels from data
        Recipe(Weights(rounding=GPTQ()), Activations(dynamic=True), smooth=False),
        Recipe(activations=Activations(dynamic=True), bias_correction=True, smooth=False),
    ],
)
def test_data_that_are_given_are_used(recipe: Recipe) -> None:
    x = normal(64, 12, seed=9) * np.linspace(0.1, 3, 12, dtype=np.float32)
    plain, _, _ = quantize_graph(net(), None, DYNAMIC)
    informed, _, _ = quantize_graph(net(), iter([x[:32], x[32:]]), recipe)
    assert np.any(OnnxRuntime(plain).run({"x": x})["z"] != OnnxRuntime(informed).run({"x": x})["z"])


@pytest.mark.parametrize("choice", [{"weights": Weights(rounding=GPTQ())}, {"bias_correction": True}])
def test_what_needs_data_says_so(choice: dict) -> None:
    recipe = Recipe(activations=Activations(dynamic=True), **choice)
    with pytest.raises(CalibrationError, match=r"this recipe looks at data .* give calibration data"):
        quantize_graph(net(), None, recipe)


def test_convolutions_stay_in_float_and_are_listed() -> None:
    q = eb.quantize(small_net(), None, DYNAMIC)
    assert q.report is not None
    reasons = {island.node: island.reason for island in q.report.islands}
    assert "no fused kernel for a dynamic one" in reasons["stem"]
    assert "classifier" not in reasons
    assert "activations quantized in every run" in str(q.report)
    no_matrix = graph("g (float[N,3,8,8] x) => (float[N,4,6,6] y) { y = Conv (x, w) }", w=normal(4, 3, 3, 3))
    no_matrix.graph[0].name = "stem"
    with pytest.raises(QuantizationError, match=r"no Gemm or MatMul to quantize dynamically: stem \(Conv\)"):
        quantize_graph(no_matrix, None, DYNAMIC)


@pytest.mark.parametrize("recipe", [DYNAMIC, PER_TOKEN])
def test_saved_and_opened_again(recipe: Recipe, tmp_path: Path) -> None:
    q = eb.quantize(small_net(), None, recipe)
    x = images(5)
    again = eb.open(q.save(tmp_path / "dynamic.onnx"))
    np.testing.assert_array_equal(again(x), q(x))
    np.testing.assert_array_equal(again.run(x, engine="numpy"), q(x))


@pytest.mark.parametrize("wrong", [{"symmetric": True}, {"range": Percentile(99.0)}])
def test_contradictions_are_refused(wrong: dict) -> None:
    with pytest.raises(QuantizationError, match="leave `range` and `symmetric` as they are"):
        Activations(dynamic=True, **wrong)


def test_tokens_of_later_runs_are_not_calibrated() -> None:
    with pytest.raises(QuantizationError, match=r"choose dynamic=True, or PerTensor\(\)"):
        Activations(granularity=PerToken())


def test_in_a_recipe_file() -> None:
    assert parse_recipe({"activations": {"granularity": "per-token", "dynamic": True}}) == PER_TOKEN
    assert parse_recipe({"activations": {"dynamic": True}}) == DYNAMIC
    with pytest.raises(QuantizationError, match=r"Activations\(dynamic='yes'\): give True or False"):
        parse_recipe({"activations": {"dynamic": "yes"}})
