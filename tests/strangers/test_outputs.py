"""What graphs hand out besides what they compute: constants, buffers, inputs, sequences, strings; and nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import eightbit as eb
from tests.strangers.graphs import Feeds, graph, node, normal, weight
from tests.strangers.walk import arrays, assert_equal, refused, walk

RNG = np.random.default_rng(0)
PICTURE = ["N", 3, 8, 8]
CONSTANTS = {"w": weight(RNG, 4, 3, 3, 3), "b": normal(RNG, 4), "v": weight(RNG, 4, 4, 3, 3)}
Tensors = dict[str, object]


def convolutions(
    outputs: Tensors, *more: onnx.NodeProto, inputs: Tensors | None = None, constants: Tensors | None = None
) -> onnx.ModelProto:
    """Two convolutions to `y`, and what else there is."""
    nodes = [
        node("Conv", "x w b", "c", pads=[1] * 4),
        node("Relu", "c", "r"),
        node("Conv", "r v", "y", pads=[1] * 4),
    ]
    return graph(
        [*nodes, *more],
        {"x": PICTURE, **(inputs or {})},
        {"y": ["N", 4, 8, 8], **outputs},
        {**CONSTANTS, **(constants or {})},
    )


def pictures(**more: np.ndarray) -> list[Feeds]:
    rng = np.random.default_rng(1)
    return [{"x": normal(rng, 4, 3, 8, 8), **more} for _ in range(5)]


INT64, STRING = TensorProto.INT64, TensorProto.STRING
CASES = {
    "a bias": convolutions({"b": [4]}),
    "a kernel": convolutions({"w": [4, 3, 3, 3]}),
    "both, and the input": convolutions({"w": [4, 3, 3, 3], "b": [4], "x": PICTURE}),
    "a buffer": convolutions({"z": [5]}, constants={"z": normal(RNG, 5)}),
    "integers": convolutions({"z": ([2], INT64)}, constants={"z": np.array([3, 7])}),
    "strings": convolutions({"z": ([2], STRING)}, constants={"z": np.array(["cat", "dog"], object)}),
    "a scalar": convolutions({"z": []}, constants={"z": np.float32(0.5)}),
    "a Constant": convolutions(
        {"z": [5]}, node("Constant", "", "z", value=numpy_helper.from_array(normal(RNG, 5)))
    ),
    "a bias through Identity": convolutions({"z": [4]}, node("Identity", "b", "z")),
    "a sum of constants": convolutions({"z": [4]}, node("Add", "b b", "z")),
    "the input": convolutions({"x": PICTURE}),
    "the input through Identity": convolutions({"z": PICTURE}, node("Identity", "x", "z")),
    "an output without a shape": convolutions({"z": None}, node("ReduceMean", "y", "z", axes=[2, 3])),
    "an output of unknown rank": convolutions(
        {"z": None},
        node("Shape", "y", "s"),
        node("NonZero", "s", "i"),
        node("Squeeze", "i a", "j"),
        node("Gather", "s j", "t"),
        node("Reshape", "y t", "z"),
        constants={"a": np.array([0])},
    ),
    "one output twice": convolutions({"z": ["N", 4, 8, 8]}, node("Identity", "y", "z")),
    "parameters of a BatchNormalization": convolutions(
        {"n": ["N", 4, 8, 8], "mu": [4], "var": [4]},
        node("BatchNormalization", "y g o mu var", "n"),
        constants={name: np.abs(normal(RNG, 4)) + 1 for name in ("g", "o", "mu", "var")},
    ),
}  # fmt: skip
BESIDE = {
    "another input, as it is": convolutions({"z": ["N", 2]}, inputs={"z": ["N", 2]}),
    "another input through Identity": convolutions(
        {"out": ["N", 2]}, node("Identity", "z", "out"), inputs={"z": ["N", 2]}
    ),
    "an input that nothing reads": convolutions({}, inputs={"z": ["N", 2]}),
}


@pytest.mark.parametrize("name", [*CASES, *BESIDE])
def test_what_is_handed_out_is_what_the_file_hands_out(name: str, tmp_path: Path) -> None:
    data = pictures() if name in CASES else pictures(z=normal(np.random.default_rng(2), 4, 2))
    source = CASES.get(name) or BESIDE[name]
    found = walk(source, data[:4], data[4:], tmp_path, floor=25, recipes=("plain",))
    report = eb.compare(found.model, found.quantized["plain"], data[4:])
    assert len(report.outputs) == len(source.graph.output)


def test_a_table_that_is_an_output_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    source = graph(
        [node("Gather", "table i", "t"), node("MatMul", "t w", "a"), node("Add", "a b", "y")],
        {"i": (["N", "S"], INT64)},
        {"y": ["N", "S", 16], "table": [600, 16], "w": [16, 16], "b": [16]},
        {"table": normal(rng, 600, 16), "w": weight(rng, 16, 16), "b": normal(rng, 16)},
    )
    data = [{"i": rng.integers(0, 600, (4, 5))} for _ in range(5)]
    walk(source, data[:4], data[4:], tmp_path, floor=25)


@pytest.mark.parametrize("outputs", [{"b": [4]}, {"x": PICTURE}, {"b": [4], "x": PICTURE}])
def test_a_graph_that_computes_nothing_loads_and_is_not_quantized(outputs: Tensors, tmp_path: Path) -> None:
    source = graph([], {"x": PICTURE}, outputs, {"b": CONSTANTS["b"]})
    x = pictures()[0]["x"]
    model = eb.load(source)
    expected = tuple({"b": CONSTANTS["b"], "x": x}[name] for name in outputs)
    for loaded in (model, eb.load(model.save(tmp_path / "float.onnx"))):
        assert_equal(expected, arrays(loaded(x)), "handed out")
    said = refused(lambda: eb.quantize(model, x), eb.QuantizationError)
    assert said == "nothing in this graph can be quantized: it has no node"


def test_a_layer_on_constants_alone_is_said_to_be_one() -> None:
    source = graph(
        [node("Conv", "k w b", "y")], {}, {"y": [1, 4, 6, 6]}, {**CONSTANTS, "k": normal(RNG, 1, 3, 8, 8)}
    )
    said = "nothing in this graph can be quantized: 1 nodes, y_conv (Conv): all its inputs are constant"
    for recipe in (eb.Recipe(), eb.Recipe.plain()):
        assert refused(lambda recipe=recipe: eb.quantize(source, [{}], recipe), eb.QuantizationError) == said


def test_an_input_without_a_shape_is_refused() -> None:
    source = convolutions({})
    source.graph.input[0].type.tensor_type.ClearField("shape")
    said = "graph input 'x' has no dtype or rank; export the model with typed tensor inputs"
    assert refused(lambda: eb.load(source), eb.LoadError) == said


def test_a_graph_without_an_output_is_refused() -> None:
    source = convolutions({})
    del source.graph.output[:]
    said = "the ONNX model has no output, so that nothing could be asked of it; export it with one"
    assert refused(lambda: eb.load(source), eb.LoadError) == said


def test_buffers_weights_and_inputs_of_a_module(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 4)
            self.register_buffer("grid", torch.arange(5.0))

        def forward(self, x):
            return self.layer(x), self.grid, self.layer.weight, x, self.grid.long()

    torch.manual_seed(0)
    module, x = Module().eval(), torch.randn(64, 8)
    with torch.no_grad():
        right = tuple(y.numpy() for y in module(x))
    found = walk(
        module, [x[:48]], [(x,)], tmp_path, floor=25, recipes=("plain",), example=x[:2], expected=[right]
    )
    q = found.quantized["plain"]
    for y, trained in zip(q(x), eb.trainable(q)(x), strict=True):
        np.testing.assert_array_equal(np.asarray(y), trained.detach().numpy())


# Sequences, optionals, dictionaries


def parts(*nodes: onnx.NodeProto, width: int = 6) -> onnx.ModelProto:
    """A linear layer to `a` (N, 6), `nodes` from there to `c` (N, width), and a linear layer to `y`."""
    rng = np.random.default_rng(4)
    constants = {"w": weight(rng, 8, 6), "v": weight(rng, width, 4), "i": np.int64(1), "l": np.array([4, 2])}
    return graph(
        [node("Gemm", "x w", "a"), *nodes, node("Gemm", "c v", "y")],
        {"x": ["N", 8]},
        {"y": ["N", 4]},
        constants,
        opset=18,
    )


SEQUENCES = {
    "split and joined": parts(
        node("SplitToSequence", "a", "s", axis=1, keepdims=1), node("ConcatFromSequence", "s", "c", axis=1)
    ),
    "split into lengths, one read": parts(
        node("SplitToSequence", "a l", "s", axis=1), node("SequenceAt", "s i", "c"), width=2
    ),
    "the batch split and joined": parts(
        node("SplitToSequence", "a", "s", axis=0), node("ConcatFromSequence", "s", "c", axis=0)
    ),
    "made of two, one read": parts(
        node("Tanh", "a", "t"), node("SequenceConstruct", "a t", "s"), node("SequenceAt", "s i", "c")
    ),
    "grown and cut": parts(
        node("SequenceEmpty", "", "e"),
        node("SequenceInsert", "e a", "s1"),
        node("SequenceInsert", "s1 a", "s2"),
        node("SequenceInsert", "s2 a", "s3"),
        node("SequenceErase", "s3 i", "s"),
        node("SequenceAt", "s i", "c"),
    ),
    "an optional": parts(node("Optional", "a", "o"), node("OptionalGetElement", "o", "c")),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_run_between_layers(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    data = [{"x": normal(rng, 64, 8)} for _ in range(4)]
    walk(SEQUENCES[name], data[:3], data[3:], tmp_path, floor=27)


def test_a_sequence_that_a_loop_grows(tmp_path: Path) -> None:
    """As PyTorch writes an EmbeddingBag: nothing says the types inside."""
    text = """
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[N,6] x) => (float[M,6] y) <int64 n = {3}, bool go = {1}, int64 start = {0}> {
            a = Add(x, x)
            e = SequenceEmpty()
            i, s = Loop(n, go, start, e) <body = b (int64 k, bool c, int64 j, t) => (bool d, int64 l, u) {
                d = Identity(c)
                l = Add(j, k)
                f = Cast<to = 1>(j)
                r = Mul(a, f)
                u = SequenceInsert(t, r)
            }>
            y = ConcatFromSequence<axis = 0>(s)
        }"""
    data = [{"x": normal(np.random.default_rng(3), 8, 6)} for _ in range(4)]
    walk(onnx.parser.parse_model(text), data, data[:1], tmp_path, floor=20)


def test_a_sequence_as_the_only_output_is_compared_part_by_part(tmp_path: Path) -> None:
    source = parts(node("SplitToSequence", "a", "s", axis=1), node("SequenceAt", "s i", "c"), width=1)
    del source.graph.output[:]
    source.graph.output.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["N", 1]))
    rng = np.random.default_rng(6)
    data = [{"x": normal(rng, 64, 8)} for _ in range(4)]
    model = eb.load(source)
    q = eb.quantize(model, data)
    opened = eb.open(q.save(tmp_path / "int8.onnx"))
    for other in (q.run(data[0], engine="numpy"), opened(data[0])):
        assert isinstance(other, list)
        assert_equal(tuple(q(data[0])), tuple(other), "parts")
    assert eb.compare(model, q, data).outputs[0].sqnr_db > 30


def classifier(**classes: list[Any]) -> onnx.ModelProto:
    """What skl2onnx makes of a scaler and a network: ZipMap puts `classes` to the scores."""
    scaled = helper.make_node(
        "Scaler", ["x"], ["s"], "s_scaler", domain="ai.onnx.ml", offset=[1.0], scale=[2.0]
    )
    zipped = helper.make_node("ZipMap", ["p"], ["z"], "zip", domain="ai.onnx.ml", **classes)
    nodes = [scaled, node("MatMul", "s w", "m"), node("Softmax", "m", "p"), zipped]
    source = graph(nodes, {"x": ["N", 8]}, {}, {"w": weight(np.random.default_rng(7), 8, 3)})
    source.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    key = INT64 if "classlabels_int64s" in classes else TensorProto.STRING
    kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    source.graph.output.append(helper.make_value_info("z", helper.make_sequence_type_proto(kind)))
    return source


@pytest.mark.parametrize(
    ("classes", "columns"),
    [
        ({"classlabels_int64s": [4, 5, 7]}, "4, 5, 7"),
        ({"classlabels_strings": ["cat", "dog", "cow"]}, "cat, dog, cow"),
    ],
)
def test_scores_come_back_where_a_file_makes_dictionaries_of_them(
    classes: dict[str, list[Any]], columns: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, rng = classifier(**classes), np.random.default_rng(8)
    data = [{"x": normal(rng, 64, 8)} for _ in range(4)]
    options = ort.SessionOptions()
    session = ort.InferenceSession(source.SerializeToString(), options, providers=["CPUExecutionProvider"])
    dictionaries = session.run(None, data[3])[0]
    right = np.array([[row[c] for c in next(iter(classes.values()))] for row in dictionaries], np.float32)
    found = walk(source, data[:3], data[3:], tmp_path, floor=27, expected=[(right,)])
    said = (
        f"output 'z' gives scores (N, 3) where the file makes dictionaries of them; the columns are {columns}"
    )
    assert found.model.notes == (said,)
    assert not caplog.records  # of types that nobody inferred: those of ops outside ONNX are asked for


def test_a_file_of_a_tree_and_its_dictionaries_loads_without_the_standard_operators() -> None:
    linear = helper.make_node(
        *("LinearClassifier", ["x"], ["y", "p"]),
        domain="ai.onnx.ml",
        coefficients=[1.0, 2.0, -1.0, -2.0],
        intercepts=[0.0, 0.0],
        classlabels_ints=[0, 1],
    )
    source = classifier(classlabels_int64s=[0, 1])
    source.graph.node[0].CopyFrom(linear)
    del source.graph.node[1:3], source.graph.initializer[:], source.opset_import[0:1]
    source.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    model = eb.load(source)
    np.testing.assert_array_equal(model(np.float32([[1, 1]])), [[3, -3]])


def test_dictionaries_that_are_not_made_of_scores_are_refused_by_name() -> None:
    source = classifier(classlabels_int64s=[0, 1, 2])
    source.graph.node.append(helper.make_node("Identity", ["z"], ["again"], "copy"))
    source.graph.output[0].name = "again"
    assert refused(lambda: eb.load(source), eb.LoadError) == (
        "'again' holds dictionaries, made by node 'copy' (Identity); export the model with tensors in their place"
    )


def test_a_dictionary_without_classes_and_a_tensor_that_nothing_makes_are_refused_by_name() -> None:
    source = classifier()
    assert refused(lambda: eb.load(source), eb.LoadError) == (
        "'z' holds dictionaries, made by node 'zip' (ZipMap); export the model with tensors in their place"
    )
    source = classifier(classlabels_int64s=[0, 1, 2])
    source.graph.node[1].input[1] = "ghost"
    assert refused(lambda: eb.load(source), eb.LoadError) == (
        "the ONNX checker refuses the model: Nodes in a graph must be topologically sorted, however input 'ghost' of "
        "node: name: m_matmul OpType: MatMul"
    )


def test_types_that_have_no_form_here_are_refused_in_a_line() -> None:
    """A dictionary between nodes, where a file states its type."""
    source = parts(node("Identity", "a", "c"))
    kind = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    source.graph.value_info.append(helper.make_value_info("a", helper.make_sequence_type_proto(kind)))
    said = refused(lambda: eb.load(source), eb.LoadError)
    assert said.startswith("the ONNX model cannot be read: Map types are not supported yet")
