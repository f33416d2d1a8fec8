"""Lowering: what becomes integers, what becomes a table, what stays an island, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from eightbit.deploy.sessions import IntegerTensors, OnnxRuntime, integer_tensors, optimized_ops, run_island
from eightbit.errors import EngineError, UnsupportedOp
from eightbit.integer import program as p
from eightbit.integer.engine import run
from eightbit.integer.lower import lower
from tests.conformance.builder import Graph, floats_of
from tests.small_net import SHAPE, by_another_quantizer


def kinds(graph: Graph) -> list[str]:
    return [type(op).__name__ for op in lower(graph.model()).ops]


def assert_same_integers(graph: Graph, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    qdq = graph.model()
    found = run(lower(qdq), feeds, island=run_island, keep=True)
    for name, codes in integer_tensors(qdq, feeds).items():
        np.testing.assert_array_equal(found[name], codes, err_msg=name)
    for name, output in OnnxRuntime(qdq).run(feeds).items():
        np.testing.assert_array_equal(found[name], output, err_msg=name)
    return found


def codes(shape: tuple[int, ...], scale: float, zero_point: int) -> np.ndarray:
    return floats_of(np.random.default_rng(0).integers(0, 256, shape), scale, zero_point)


def layer(g: Graph, x: str, name: str, channels: int = 4, *, bias_scale: float = 1.0) -> str:
    rng = np.random.default_rng(1)
    w = g.weight(f"{name}_w", rng.integers(-127, 128, (channels, 4, 3, 3)).astype(np.int8), 0.01)
    s = np.float32(g.params["x_q"][0]) * np.float32(0.01) * np.float32(bias_scale)
    b = g.weight(f"{name}_b", rng.integers(-999, 999, channels).astype(np.int32), s)
    return g.op("Conv", [x, w, b], name, 0.05, 120, pads=[1, 1, 1, 1])


def test_a_whole_block() -> None:
    g = Graph()
    x = g.input("x", [2, 4, 8, 8], 0.02, 120)
    y = g.op("Add", [layer(g, x, "conv"), x], "sum", 0.06, 100)
    g.output(g.op("Flatten", [g.op("GlobalAveragePool", [y], "mean", 0.03, 110)], "flat", 0.03, 110))
    assert kinds(g) == ["Quantize", "Conv", "Add", "GlobalAveragePool", "Flatten", "Dequantize"]
    assert_same_integers(g, {"x": codes((2, 4, 8, 8), 0.02, 120)})


def test_program_prints_one_line_an_operation() -> None:
    g = Graph()
    g.output(g.op("Relu", [g.input("x", [4], 0.02, 120)], "y", 0.02, 7))
    assert str(lower(g.model())).splitlines() == [
        "Quantize    x -> x_q",
        "Lookup      x_q -> y_q",
        "Dequantize  y_q -> y_dq",
    ]


def test_bias_is_moved_not_rescaled() -> None:
    g = Graph()
    x = g.input("x", [1, 4, 5, 5], 0.02, 120)
    g.output(layer(g, x, "conv"))
    (conv,) = (op for op in lower(g.model()).ops if isinstance(op, p.Conv))
    assert (conv.weight.dtype, conv.bias.dtype, conv.weight_scale.shape) == (np.int8, np.int32, (4,))


@pytest.mark.parametrize("op", ["Tanh", "Relu", "Sigmoid"])
def test_a_function_of_one_code_is_a_table(op: str) -> None:
    g = Graph()
    g.output(g.op(op, [g.input("x", [3, 256], 0.02, 120)], "y", 1 / 200, 7))
    (lookup,) = (o for o in lower(g.model()).ops if isinstance(o, p.Lookup))
    assert lookup.kind == op
    assert_same_integers(g, {"x": codes((3, 256), 0.02, 120)})


def test_a_chain_of_one_code_is_one_table() -> None:
    """Swish written out: the product of a tensor with its own sigmoid is a function of one code."""
    g = Graph()
    x = g.input("x", [3, 256], 0.05, 120)
    g.node("Sigmoid", [x], ["gate"])
    g.output(g.op("Mul", [x, "gate"], "y", 0.03, 10))
    (lookup,) = (o for o in lower(g.model()).ops if isinstance(o, p.Lookup))
    assert lookup.kind == "Sigmoid+Mul"
    assert_same_integers(g, {"x": codes((3, 256), 0.05, 120)})


@pytest.mark.parametrize("op", ["Mul", "PRelu", "Max", "Pow"])
@pytest.mark.parametrize(
    ("operand", "is_table"),
    [((), True), ((1,), True), ((1, 1, 1), True), ((256,), False), ((3, 1), False), ((3, 256), False)],
)
def test_an_operand_for_each_channel_makes_no_table(
    op: str, operand: tuple[int, ...], is_table: bool
) -> None:
    """A table is a function of the code alone; 256 channels would even have its length."""
    g = Graph()
    x = g.input("x", [2, 3, 256], 0.02, 0)
    numbers = np.random.default_rng(5).uniform(0.5, 1.5, operand).astype(np.float32)
    g.node(op, [x, g.const("k", numbers)], ["bent"])
    g.output(g.op("Sqrt", ["bent"], "y", 0.02, 3))
    assert ("Lookup" in kinds(g), "FloatIsland" in kinds(g)) == (is_table, not is_table)
    assert_same_integers(g, {"x": codes((2, 3, 256), 0.02, 0)})


def test_what_has_no_rule_is_an_island() -> None:
    g = Graph()
    x = g.input("x", [2, 3, 8], 0.02, 120)
    weight, bias = (
        g.const("gamma", np.linspace(0.5, 1.5, 8, dtype=np.float32)),
        g.const("beta", np.zeros(8, np.float32)),
    )
    g.node("LayerNormalization", [x, weight, bias], ["norm"])
    g.output(g.op("Exp", ["norm"], "y", 0.03, 10))
    program = lower(g.model())
    (island,) = (o for o in program.ops if isinstance(o, p.FloatIsland))
    assert island.inputs == ("x_dq",) and island.outputs == ("y",)
    assert set(island.nodes) == {"LayerNormalization_norm", "Exp_y"}
    assert_same_integers(g, {"x": codes((2, 3, 8), 0.02, 120)})


def test_an_island_does_not_wait_for_itself() -> None:
    """Float -> codes -> float beside a direct float edge: two islands, or the program could not run."""
    g = Graph()
    x = g.input("x", [2, 3, 8], 0.02, 120)
    g.node("CumSum", [x, g.const("axis", np.int64(1))], ["walk"])
    g.node("Exp", ["walk"], ["early"])
    around = g.op("Transpose", [g.pair("walk", "walk", 0.05, 128)], "turned", 0.05, 128, perm=[0, 2, 1])
    g.node("Transpose", [around], ["back"], perm=[0, 2, 1])
    g.node("CumSum", ["back", "axis"], ["again"])
    g.output(g.op("Max", ["early", "again"], "y", 0.07, 90))
    program = lower(g.model())
    assert sum(isinstance(o, p.FloatIsland) for o in program.ops) >= 2
    assert_same_integers(g, {"x": codes((2, 3, 8), 0.02, 120)})


def test_a_layer_kept_in_float() -> None:
    """Float weights between DequantizeLinear and a float output, as an override to FLOAT leaves them."""
    g = Graph()
    x = g.input("x", [2, 8], 0.02, 120)
    w = g.const("w", np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32))
    g.node("Gemm", [x, w], ["logits"])
    g.output("logits")
    assert kinds(g) == ["Quantize", "Dequantize", "FloatIsland"]
    assert_same_integers(g, {"x": codes((2, 8), 0.02, 120)})


def test_a_tensor_read_in_float_and_in_codes() -> None:
    g = Graph()
    x = g.input("x", [2, 8], 0.02, 120)
    y = g.op("Add", [x, x], "y", 0.04, 120)
    g.node("CumSum", [y, g.const("axis", np.int64(1))], ["walk"])
    g.output("walk", g.op("Mul", [y, x], "z", 0.1, 9))
    assert_same_integers(g, {"x": codes((2, 8), 0.02, 120)})


def test_a_convolution_whose_output_is_not_quantized_stays_float() -> None:
    g = Graph()
    x = g.input("x", [1, 4, 8, 8], 0.02, 120)
    w = g.weight("w", np.ones((4, 4, 1, 1), np.int8), 0.01)
    g.node("Conv", [x, w], ["y"])
    g.output("y")
    program = lower(g.model())
    (island,) = (o for o in program.ops if isinstance(o, p.FloatIsland))
    assert island.nodes[-1] == "Conv_y"


def test_shared_weights_and_constants() -> None:
    g = Graph()
    x = g.input("x", [2, 8], 0.02, 120)
    c = g.codes("c", np.arange(8), 0.5, 3)
    y = g.op("Mul", [x, c], "y", 0.05, 120)
    g.output(g.op("Add", [y, c], "z", 0.1, 9))
    program = lower(g.model())
    np.testing.assert_array_equal(program.constants["c_q"], np.arange(8) - 128)
    assert program.tensors["c_q"].zero_point == 3 - 128
    assert_same_integers(g, {"x": codes((2, 8), 0.02, 120)})


def test_contradictions_are_listed_at_once() -> None:
    g = Graph()
    x = g.input("x", [1, 4, 8, 8], 0.02, 120)
    g.output(layer(g, layer(g, x, "first", bias_scale=2), "second", bias_scale=3))
    with pytest.raises(UnsupportedOp) as caught:
        lower(g.model())
    text = str(caught.value)
    assert "the scale of bias 'first_b_q'" in text and "the scale of bias 'second_b_q'" in text


def test_pair_with_two_scales_is_refused() -> None:
    g = Graph()
    g.inputs.append(helper.make_tensor_value_info("x", 1, [4]))
    s, z, t = g.const("s", np.float32(0.1)), g.const("z", np.uint8(3)), g.const("t", np.float32(0.2))
    g.node("QuantizeLinear", ["x", s, z], ["x_q"])
    g.node("DequantizeLinear", ["x_q", s, z], ["a"])
    g.node("DequantizeLinear", ["x_q", t, z], ["b"])
    g.output(g.op("Add", ["a", "b"], "y", 0.3, 4))
    with pytest.raises(UnsupportedOp, match=r"reads codes 'x_q' with scale 0\.2"):
        lower(g.model())


def test_asymmetric_weights_stay_float() -> None:
    g = Graph()
    x = g.input("x", [2, 8], 0.02, 120)
    w = g.codes("w", np.full((8, 3), 7), 0.1, 9)  # uint8 weight with zero point 9
    y = g.op("Gemm", [x, w], "y", 0.1, 128, beta=1.0)
    g.output(y)
    assert "FloatIsland" in kinds(g)


def test_free_batch() -> None:
    g = Graph()
    x = g.input("x", ["N", 4, 8, 8], 0.02, 120)
    g.output(layer(g, x, "conv"))
    program, qdq = lower(g.model()), g.model()
    for batch in (1, 3):
        feeds = {"x": codes((batch, 4, 8, 8), 0.02, 120)}
        expected = OnnxRuntime(qdq).run(feeds)["conv_dq"]
        np.testing.assert_array_equal(run(program, feeds)["conv_dq"], expected)


def test_sessions_see_what_is_left_in_float() -> None:
    g = Graph()
    x = g.input("x", [1, 4, 8, 8], 0.02, 120)
    g.output(g.op("Tanh", [layer(g, x, "conv")], "y", 0.01, 128))
    operators = [op for op, _ in optimized_ops(g.model())]
    assert "QLinearConv" in operators and "Tanh" in operators and "Conv" not in operators
    assert set(IntegerTensors(g.model()).run({"x": codes((1, 4, 8, 8), 0.02, 120)})) == {
        "x_q",
        "conv_q",
        "y_q",
    }


def test_sessions_refuse_a_float_graph() -> None:
    g = Graph()
    g.inputs.append(helper.make_tensor_value_info("x", 1, [4]))
    g.node("Tanh", ["x"], ["y"])
    g.output("y")
    with pytest.raises(EngineError, match="no quantized tensor"):
        integer_tensors(g.model(), {"x": np.zeros(4, np.float32)})
    with pytest.raises(EngineError, match="ONNX Runtime could not run the model"):
        OnnxRuntime(g.model()).run({"x": np.zeros((4, 4), np.float32)})


def test_graphs_of_another_quantizer(tmp_path: Path) -> None:
    """What onnxruntime.quantization writes (uint8 activations) lowers without an island, to the same integers."""
    rng = np.random.default_rng(1)
    qdq = ir.load(by_another_quantizer(tmp_path))
    program = lower(qdq)
    assert not any(isinstance(op, p.FloatIsland | p.Lookup) for op in program.ops)
    feeds = {"image": rng.normal(size=(32, *SHAPE)).astype(np.float32)}
    found, expected = run(program, feeds, keep=True), integer_tensors(qdq, feeds)
    assert set(expected) == set(program.tensors)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_a_reshape_to_a_computed_shape_carries_codes() -> None:
    """The lengths come from a float island; the codes go around it."""
    g = Graph()
    x = g.input("x", ["n", "t", 6], 0.05, 100)
    g.node("Shape", ["x"], ["lengths"], start=0, end=2)
    g.node("Concat", ["lengths", g.const("last", np.array([3, 2]))], ["shape"], axis=0)
    g.output(g.op("Reshape", [x, "shape"], "y", 0.05, 100))
    program = lower(g.model())
    (move,) = (op for op in program.ops if isinstance(op, p.ReshapeTo))
    assert move.inputs == ("x_q", "shape")
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 5, 6)).astype(np.float32)}
    found = run(program, feeds, island=run_island, keep=True)
    assert found["y_q"].shape == (2, 5, 3, 2)
    np.testing.assert_array_equal(found["y_q"].reshape(2, 5, 6), found["x_q"])
    np.testing.assert_array_equal(found["y_q"], integer_tensors(g.model(), feeds)["y_q"])


@pytest.mark.parametrize("off", [0.9, 1.1, 1.001])
def test_a_bias_in_other_steps_than_its_accumulator_is_refused(off: float):
    """Int32 codes are added to the sums of products, whose step is s_x s_w: others would be another bias."""
    g = Graph()
    g.output(layer(g, g.input("x", [2, 4, 8, 8], 0.02, 120), "conv", bias_scale=off))
    with pytest.raises(UnsupportedOp, match=r"the scale of bias 'conv_b_q' is .* s_x \* s_w"):
        lower(g.model())


def test_a_bias_scale_may_be_rounded_otherwise():
    g = Graph()
    g.output(layer(g, g.input("x", [2, 4, 8, 8], 0.02, 120), "conv", bias_scale=1 + 2e-5))
    assert "Conv" in kinds(g)


def test_weight_scales_along_another_axis_than_the_output_channels_keep_the_layer_in_float():
    rng = np.random.default_rng(3)
    scales = np.linspace(0.01, 0.02, 4).astype(np.float32)
    found = []
    for axis in (0, 1):
        g = Graph()
        x = g.input("x", [2, 4, 8, 8], 0.02, 120)
        w = g.weight("w", rng.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8), scales, axis)
        g.output(g.op("Conv", [x, w], "y", 0.05, 120, pads=[1, 1, 1, 1]))
        found.append("Conv" in kinds(g))
    assert found == [True, False]


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (2, 4, 0, 8), (2, 4, 8, 0), (2, 4, 1, 1)])
def test_pictures_without_a_pixel_are_an_answer_or_an_error(shape: tuple[int, ...], group: int) -> None:
    """ONNX Runtime refuses what the engine may convolve to nothing, or to the bias alone."""
    g = Graph()
    x = g.input("x", ["N", 4, "H", "W"], 0.02, 120)
    w = g.weight("w", np.ones((4, 4 // group, 3, 3), np.int8), 0.01)
    g.output(g.op("Conv", [x, w], "y", 0.05, 120, pads=[1, 1, 1, 1], group=group))
    try:
        found = run(lower(g.model()), {"x": np.zeros(shape, np.float32)})["y_dq"]
    except EngineError:
        assert 0 in shape
    else:
        assert found.shape == shape


def test_a_function_that_no_runtime_computes_is_an_error_of_the_engine() -> None:
    """The bound of the Clip comes from the graph, and has two numbers: only running it shows that."""
    g = Graph()
    x = g.input("x", [4], 0.02, 120)
    g.node("Abs", [g.const("two", np.float32([1, 2]))], ["bound"])
    g.node("Clip", [x, "bound"], ["cut"])
    g.output(g.op("Sqrt", ["cut"], "y", 0.02, 3))
    with pytest.raises(EngineError, match=r"ONNX Runtime cannot run .*Clip_cut"):
        lower(g.model())
