"""Numbers at the edge: NaN, infinities, inputs without an element."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import eightbit as eb
from tests.strangers.graphs import graph, node, normal, weight
from tests.strangers.walk import assert_same_function, refused, run_original, walk


def linear(rng: np.random.Generator) -> onnx.ModelProto:
    return graph([node("Gemm", "x w", "y")], {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weight(rng, 4, 3)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_float_model_takes_any_number(value: float) -> None:
    model = linear(np.random.default_rng(0))
    x = np.array([[1, value, 2, 3], [4, 5, 6, 7]], np.float32)
    assert_same_function(run_original(model, {"x": x}), (eb.load(model)(x),))


def test_an_int8_model_clips_infinities_and_refuses_nan() -> None:
    rng = np.random.default_rng(0)
    q = eb.quantize(eb.load(linear(rng)), [normal(rng, 8, 4)])
    x = np.array([[1, np.inf, -np.inf, 0]], np.float32)
    np.testing.assert_array_equal(q(x), q.run(x, engine="numpy"))
    np.testing.assert_array_equal(q(x), q(np.clip(x, -1e6, 1e6)))
    said = "input 'x' holds 1 value(s) that are NaN (first at (0, 2)); remove them"
    assert refused(lambda: q(np.array([[0, 0, np.nan, 0]], np.float32)), eb.EngineError) == said
    assert refused(lambda: eb.quantize(linear(rng), [x * np.nan]), eb.CalibrationError) == (
        "input 'x' holds 4 value(s) that are NaN (first at (0, 0)); remove them"
    )


def test_auxiliary_inputs_without_an_element(tmp_path: Path) -> None:
    """Axes of a reduction that may be empty, as an input of the graph."""
    rng = np.random.default_rng(1)
    model = graph(
        [node("Gemm", "x w", "a"), node("ReduceSum", "a axes", "s", keepdims=1), node("Mul", "a s", "y")],
        {"x": ["N", 4], "axes": ([0], TensorProto.INT64)},
        {"y": ["N", 3]},
        {"w": weight(rng, 4, 3)},
    )
    axes = np.zeros(0, np.int64)
    data = [{"x": normal(rng, 1, 4), "axes": axes} for _ in range(16)]
    walk(model, data, data[:4], tmp_path, floor=20)


def test_an_input_that_can_hold_no_element_has_no_range() -> None:
    model = graph([node("Add", "x x", "a"), node("Relu", "a", "y")], {"x": ["N", 0]}, {"y": ["N", 0]}, {})
    said = "tensor 'x': no value was seen; give at least one calibration sample in which it holds some"
    assert refused(lambda: eb.quantize(model, np.zeros((2, 0), np.float32)), eb.CalibrationError) == said


def test_a_constant_without_an_element_adds_nothing_to_a_concat(tmp_path: Path) -> None:
    """ONNX Runtime lets its other axes differ."""
    rng = np.random.default_rng(4)
    constants = {"w": weight(rng, 4, 3), "e": np.zeros((1, 0), np.float32)}
    nodes = [node("Gemm", "x w", "a"), node("Concat", "a e a", "y", axis=1)]
    data = [{"x": normal(rng, 16, 4)} for _ in range(4)]
    walk(graph(nodes, {"x": ["N", 4]}, {"y": ["N", 6]}, constants), data, data[:1], tmp_path, floor=20)


def test_a_batchnorm_in_training_mode_behind_a_layer_is_refused() -> None:
    """ONNX Runtime computes another function of it, optimized, than of the file as it is."""
    ones = dict.fromkeys("gbmv", np.ones(4, np.float32))
    nodes = [
        node("Conv", "x w", "a"),
        node("BatchNormalization", "a g b m v", "y mean variance", training_mode=1),
    ]
    constants = {"w": weight(np.random.default_rng(5), 4, 3, 1, 1), **ones}
    model = graph(nodes, {"x": ["N", 3, 4, 4]}, {"y": ["N", 4, 4, 4]}, constants)
    assert refused(lambda: eb.load(model), eb.LoadError) == (
        "node 'y_batchnormalization' (BatchNormalization): it is in training mode, where it takes the mean of the "
        "batch at hand, and ONNX Runtime folds it into the Conv before it as if it were not; put the model in eval "
        "mode; export or quantize the model again"
    )


def test_a_file_of_ml_operators_alone_loads() -> None:
    """It imports no version of the standard operators, and has none."""
    binarize = helper.make_node("Binarizer", ["x"], ["y"], domain="ai.onnx.ml", threshold=0.5)
    info = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            [binarize],
            "g",
            [info("x", TensorProto.FLOAT, ["N", 3])],
            [info("y", TensorProto.FLOAT, ["N", 3])],
        ),
        opset_imports=[helper.make_opsetid("ai.onnx.ml", 1)],
        ir_version=8,
    )
    x = np.array([[0, 0.5, 1]], np.float32)
    np.testing.assert_array_equal(eb.load(model)(x), [[0, 0, 1]])
    assert refused(lambda: eb.quantize(model, x), eb.QuantizationError) == (
        "nothing in this graph can be quantized: 1 nodes, y (Binarizer): no integer form of this op"
    )


def test_a_branch_that_gives_a_sequence(tmp_path: Path) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x) => (float[N,4] y) <int64 i = {1}, float limit = {0}> {
            a = Add(x, x)
            total = ReduceSum<keepdims = 0>(a)
            c = Less(limit, total)
            s = If(c)<
                then_branch = g1 () => (seq(float[N,1]) s1) { s1 = SplitToSequence<axis = 1>(a) },
                else_branch = g2 () => (seq(float[N,1]) s2) { s2 = SplitToSequence<axis = 1>(x) }>
            b = SequenceAt(s, i)
            y = Concat<axis = 1>(b, b, b, b)
        }"""
    data = [{"x": normal(np.random.default_rng(3), 8, 4)} for _ in range(4)]
    walk(onnx.parser.parse_model(text), data, data[:1], tmp_path, floor=20)


def test_sequences_inside_and_as_outputs(tmp_path: Path) -> None:
    """SplitToSequence, a part of it read, and the sequence given away."""
    rng = np.random.default_rng(2)
    model = graph(
        [
            node("Gemm", "x w", "a"),
            node("SplitToSequence", "a", "s", axis=1, keepdims=1),
            node("SequenceAt", "s i", "b"),
            node("Gemm", "b v", "y"),
        ],
        {"x": ["N", 4]},
        {"y": ["N", 2]},
        {"w": weight(rng, 4, 3), "v": weight(rng, 1, 2), "i": np.int64(1)},
    )
    data = [{"x": normal(rng, 8, 4)} for _ in range(4)]
    walk(model, data, data[:1], tmp_path, floor=20)
    model.graph.output.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["N", 1]))
    loaded = eb.load(model)
    q = eb.quantize(loaded, data)
    for found, other in zip(q(data[0])[1], q.run(data[0], engine="numpy")[1], strict=True):
        np.testing.assert_array_equal(found, other)
    assert_same_function(tuple(run_original(model, data[0])[1]), tuple(loaded(data[0])[1]))
