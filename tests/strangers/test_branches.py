"""If under a condition that is known: from the start, after folding, or once an input is held constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import eightbit as eb
from eightbit.cli import main
from tests.strangers.graphs import normal, weight
from tests.strangers.walk import assert_same_function, refused, run_original, walk

VOICE = """
    <ir_version: 8, opset_import: ["" : 17]>
    voice (float[N,8] x, int64 sr) => (float[N,3] y, int64 rate) <int64 fast = {16000}, int64[2] flat = {-1, 8}> {
        c = Equal(sr, fast)
        y = If(c)<
            then_branch = wide () => (float[N,3] t) <float[3] bias = {1.0, 2.0, 3.0}> {
                h = MatMul(x, w)
                r = Relu(h)
                s = Shape(r)
                two = Constant<value = int64 {2}> ()
                rank = Size(s)
                deep = Equal(rank, two)
                o = If(deep)<
                    then_branch = same () => (float[N,6] a) { a = Identity(r) },
                    else_branch = other () => (float[N,6] b) { b = Neg(r) }>
                g = MatMul(o, v)
                t = Add(g, bias)
            },
            else_branch = narrow () => (float[N,3] n) <float[3] bias = {3.0, 2.0, 1.0}> {
                h = MatMul(x, u)
                n = Sub(h, bias)
            }>
        rate = Identity(sr)
    }"""


def voice() -> onnx.ModelProto:
    """A network for each sampling rate behind one If, with an If on a rank inside, as voice detectors are shipped."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(VOICE)
    for name, shape in (("w", (8, 6)), ("v", (6, 3)), ("u", (8, 3))):
        model.graph.initializer.append(numpy_helper.from_array(weight(rng, *shape), name))
    return model


@pytest.mark.parametrize(("rate", "weights"), [(16000, {"w", "v"}), (8000, {"u"})])
def test_an_input_held_constant_leaves_one_branch(rate: int, weights: set[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    feeds = [{"x": normal(rng, 8, 8)} for _ in range(4)]
    right = [run_original(voice(), feed | {"sr": np.array(rate)}) for feed in feeds]
    model = eb.load(voice(), constants={"sr": rate})
    assert [spec.name for spec in model.inputs] == ["x"]
    assert "If" not in {node.op_type for node in model.ir.graph}
    assert weights <= set(model.ir.graph.initializers)
    for feed, outputs in zip(feeds, right, strict=True):
        assert_same_function(outputs, model(feed))
    walk(
        onnx.load_from_string(model.save(tmp_path / "held.onnx").read_bytes()),
        feeds,
        feeds,
        tmp_path,
        floor=20,
        expected=right,
    )


def test_free_it_stays_a_branch_in_float() -> None:
    model = eb.load(voice())
    for rate in (16000, 8000):
        feed = {"x": normal(np.random.default_rng(1), 8, 8), "sr": np.array(rate)}
        assert_same_function(run_original(voice(), feed), model(feed))


def test_the_error_names_the_input_that_decides_and_the_remedy() -> None:
    feeds = [{"x": normal(np.random.default_rng(1), 8, 8), "sr": np.array(16000)}]
    with pytest.raises(eb.QuantizationError, match=r"input 'sr' decides which: .* constants={'sr': \.\.\.}"):
        eb.quantize(eb.load(voice()), feeds)


def branch(name: str, op: str, output: str) -> onnx.GraphProto:
    info = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 4])
    return helper.make_graph([helper.make_node(op, ["x"], [output], name="same")], name, [], [info])


@pytest.mark.parametrize("taken", [True, False])
def test_branches_that_give_away_what_lies_outside(taken: bool) -> None:
    """Names that both branches and the graph around them have; a branch that hands on what it reads."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    given = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["p"])],
        "given",
        [],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["N", 4])],
    )
    nodes = [
        helper.make_node(
            "If",
            ["c"],
            ["y"],
            name="first",
            then_branch=branch("t", "Neg", "a"),
            else_branch=branch("e", "Abs", "a"),
        ),
        helper.make_node(
            "If", ["c"], ["z"], name="second", then_branch=branch("t", "Exp", "a"), else_branch=given
        ),
        helper.make_node("Sigmoid", ["y"], ["s"], name="same"),
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "yzs"]
    body = helper.make_graph(nodes, "g", [x], outputs, [numpy_helper.from_array(np.array(taken), "c")])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feed = {"x": normal(np.random.default_rng(0), 2, 4)}
    loaded = eb.load(model)
    assert "If" not in {node.op_type for node in loaded.ir.graph}
    assert_same_function(run_original(model, feed), loaded(feed))


def test_a_range_up_to_one_element_that_a_branch_gives() -> None:
    """ONNX Runtime takes it as long as it does not know the shape, which it does once the If is gone."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (int64[3] x) => (int64[3] y) <bool c = {1}, int64[1] three = {3}, int64 zero = {0}, int64 one = {1}> {
            n = If(c)<
                then_branch = t () => (a) { a = Identity(three) },
                else_branch = e () => (b) { b = Neg(three) }>
            r = Range(zero, n, one)
            y = Add(x, r)
        }""")
    feed = {"x": np.array([5, 6, 7])}
    assert_same_function(run_original(model, feed), (eb.load(model)(feed),))


@pytest.mark.parametrize(
    ("constants", "said"),
    [
        (
            {"rate": 16000},
            "'rate' is no input of the model; its inputs are x: float32 (?, 8), sr: int64 ()",
        ),
        ({"sr": 16000.5}, "input 'sr' has dtype float64, expected int64; preprocess it"),
        ({"sr": [16000, 8000]}, "input 'sr' has shape (2,) of rank 1, expected rank 0"),
        (
            {"sr": 16000, "x": np.zeros((1, 8), "f4")},
            "every input is held constant, and nothing is left to ask",
        ),
        ({"x": np.full((1, 8), np.nan, "f4")}, "input 'x' holds 8 value(s) that are NaN"),
    ],
)
def test_constants_that_do_not_fit(constants: dict[str, object], said: str) -> None:
    assert said in refused(lambda: eb.load(voice(), constants=constants), eb.LoadError)


def test_whole_numbers_fit_any_type_that_holds_them() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x, float[1] k) => (float[N,2] y) { y = Mul(x, k) }'
    )
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(eb.load(model, constants={"k": 3})(x), 3 * x)


def test_on_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source, small, data = (str(tmp_path / name) for name in ("vad.onnx", "vad.int8.onnx", "x.npz"))
    onnx.save(voice(), source)
    np.savez(data, x=normal(rng, 32, 8))
    held = ["--constant", "sr=16000"]
    for words in (
        ["quantize", source, "-c", data, "-o", small, *held],
        ["compare", source, small, "-d", data, *held],
        ["prune", source, "-c", data, "-o", str(tmp_path / "p.onnx"), "--sparsity", "0.5", *held],
        ["bench", source, small, "--rounds", "5", *held],
        ["tune", source, "-c", data, "-o", str(tmp_path / "t.onnx"), "--agreement", "0.5", *held],
    ):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
    assert [spec.name for spec in eb.open(small).inputs] == ["x"]
    for words, status, said in (
        (["--constant", "sr"], 2, "'sr' is no NAME=VALUE"),
        (["--constant", "sr=fast"], 2, "'fast' is no number, true or false, or list of them in brackets"),
        (["--constant", "rate=1"], 1, "'rate' is no input of the model"),
    ):
        result = CliRunner().invoke(main, ["quantize", source, "-c", data, "-o", small, *words])
        assert (result.exit_code, said in result.output) == (status, True), result.output
