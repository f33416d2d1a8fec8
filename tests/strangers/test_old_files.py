"""Files of other versions of ONNX: what is converted computes what the file computes, or is refused for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import eightbit as eb
from eightbit.graph.prepare import fold
from tests.strangers.graphs import graph, node, normal, weight
from tests.strangers.walk import assert_same_function, refused, run_original, walk

PICTURE = {"x": [2, 3, 9, 7]}
OUTPUT: dict[str, Any] = {"y": [None] * 4}
GROWN = np.array([1, 1, 2, 2.5], np.float32)
SHRUNK = np.array([1, 1, 0.6, 0.5], np.float32)


def behind_a_layer(
    last: onnx.NodeProto, constants: dict[str, object], opset: int, **kw: Any
) -> onnx.ModelProto:
    """A convolution, and the node that the opset is about."""
    w = weight(np.random.default_rng(0), 3, 3, 1, 1)
    return graph([node("Conv", "x w", "a"), last], PICTURE, OUTPUT, {"w": w, **constants}, opset=opset, **kw)


RESAMPLED = {
    f"{op} of opset {opset}, {mode}, {'grown' if scales is GROWN else 'shrunk'}": behind_a_layer(
        node(
            op,
            "a" if opset < 9 else "a s",
            "y",
            mode=mode,
            **({"scales": scales.tolist()} if opset < 9 else {}),
        ),
        {} if opset < 9 else {"s": scales},
        opset,
    )
    for op, opset, scales in (
        ("Upsample", 7, GROWN),
        ("Upsample", 8, GROWN),
        ("Upsample", 9, GROWN),
        ("Resize", 10, GROWN),
        ("Resize", 10, SHRUNK),
    )
    for mode in ("nearest", "linear")
}
CONVERTED = RESAMPLED | {
    "Softmax of opset 11 over two axes": behind_a_layer(node("Softmax", "a", "y", axis=2), {}, 11),
    "Pad of opset 9": behind_a_layer(node("Pad", "a", "y", pads=[0, 0, 1, 1, 0, 0, 2, 2], value=3.0), {}, 9),
    "Clip of opset 6": behind_a_layer(node("Clip", "a", "y", min=-0.5, max=0.5), {}, 7),
    "Slice of opset 9": behind_a_layer(
        node("Slice", "a", "y", starts=[1, 2], ends=[5, 6], axes=[2, 3]), {}, 9
    ),
    "BatchNormalization of opset 7": behind_a_layer(
        node("BatchNormalization", "a g b m v", "y"),
        {n: np.array([0.5, 1, 1.5], np.float32) for n in "gbmv"},
        7,
    ),
    "AveragePool of opset 10, ceil mode": behind_a_layer(
        node("AveragePool", "a", "y", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, count_include_pad=1),
        {},
        10,
    ),
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_a_converted_file_computes_the_same(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = [{"x": normal(rng, 2, 3, 9, 7)} for _ in range(8)]
    walked = walk(CONVERTED[kind], data, data[:2], tmp_path, floor=20, recipes=["plain"])
    assert walked.model.notes == ()


SUM = helper.make_graph(
    [node("Add", "s e", "t"), node("Identity", "t", "o")],
    "body",
    [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "se"],
    [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "to"],
)
REFUSED = {
    "a Scan with a batch axis": (
        graph(
            [node("Scan", "_ i x", "y z", body=SUM, num_scan_inputs=1)],
            {"i": [1, 2], "x": [1, 3, 2]},
            {"y": [1, 2], "z": [1, 3, 2]},
            {},
            opset=8,
        ),
        "the model uses opset 8 and cannot be converted to 21: node 'y_scan' is a Scan of opset 8, which has a batch "
        "axis; export it with opset 13 or newer",
    ),
    "a Hardmax over two axes": (
        behind_a_layer(node("Hardmax", "a", "y", axis=2), {}, 11),
        "the model uses opset 11 and cannot be converted to 21: the result is another function from node 'y_hardmax' "
        "(Hardmax) on; export it with opset 13 or newer",
    ),
    "a broadcast that the converter cannot follow": (
        graph(
            [node("Add", "x b", "y", broadcast=1, axis=1)], PICTURE, OUTPUT, {"b": np.ones(3, "f4")}, opset=6
        ),
        None,
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_conversion_to_another_function_is_refused(kind: str) -> None:
    model, said = REFUSED[kind]
    message = refused(lambda: eb.load(model), eb.LoadError)
    assert said is None or message == said
    assert message.endswith("export it with opset 13 or newer")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            graph(
                [node("Gemm", "x w b", "y", broadcast=1)],
                {"x": [2, 3]},
                {"y": [None, None]},
                {"w": np.ones((3, 4), "f4"), "b": np.ones(4, "f4")},
                opset=6,
            ),
            "Could not find an implementation for Gemm(6)",
        ),
        (
            graph(
                [node("RandomNormalLike", "x", "r"), node("Add", "x r", "y")],
                {"x": [2]},
                {"y": [2]},
                {},
                opset=9,
            ),
            "it draws random numbers",
        ),
        (
            graph(
                [node("Reshape", "x s", "y")],
                {"x": ["N", "M"]},
                {"y": [None] * 2},
                {"s": np.array([3, 5])},
                opset=9,
            ),
            "no inputs were found on which ONNX Runtime runs it",
        ),
    ],
)
def test_what_could_not_be_compared_is_a_note(model: onnx.ModelProto, why: str) -> None:
    (note,) = eb.load(model).notes
    assert note.startswith("the file was converted from opset ")
    assert why in note


RESTATED = {  # what takes other attributes or inputs in opset 21, and another meaning that a converter could give it
    "AveragePool": (
        node("AveragePool", "a", "y", kernel_shape=[3, 3], pads=[1] * 4),
        {"count_include_pad": 1},
    ),
    "ReduceMean": (node("ReduceMean", "a", "y", axes=[1]), {"keepdims": 0}),
    "Resize": (node("Resize", "a _ s", "y", mode="linear"), {"coordinate_transformation_mode": "asymmetric"}),
}


@pytest.mark.parametrize("op", RESTATED)
@pytest.mark.parametrize("wrong", [False, True])
def test_a_newer_file_keeps_its_opset_where_conversion_would_change_its_function(
    op: str, wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, other = RESTATED[op]
    source = behind_a_layer(last, {"s": GROWN}, 17)
    convert = onnx.version_converter.convert_version

    def convert_wrongly(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        result = convert(proto, opset)
        changed = next(n for n in result.graph.node if n.op_type == op)
        kept = [a for a in changed.attribute if a.name not in other]
        del changed.attribute[:]
        changed.attribute.extend([*kept, *(helper.make_attribute(*pair) for pair in other.items())])
        return result

    if wrong:
        monkeypatch.setattr(onnx.version_converter, "convert_version", convert_wrongly)
    model = eb.load(source)
    assert model.ir.opset_imports[""] == (17 if wrong else 21)
    feed = {"x": normal(np.random.default_rng(1), *PICTURE["x"])}
    assert_same_function(run_original(source, feed), (model(feed),))


def test_files_whose_operators_only_gained_types_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def compared(*given: object) -> None:
        raise AssertionError

    monkeypatch.setattr(fold, "compared", compared)
    constants = {"t": np.array([0, -1]), "k": np.float32(2)}
    nodes = [
        node("Relu", "x", "a"),
        node("Mul", "a k", "b"),
        node("Reshape", "b t", "c"),
        node("Cast", "c", "y", to=1),
    ]
    source = graph(nodes, {"x": [2, 3, 4]}, {"y": [2, 12]}, constants, opset=13)
    assert eb.load(source).ir.opset_imports[""] == 21


def test_weights_among_the_inputs(tmp_path: Path) -> None:
    """IR version 3 knows no others."""
    rng = np.random.default_rng(0)
    for opset in (9, 13):
        model = graph(
            [node("Gemm", "x w b", "y")],
            {"x": ["N", 4], "w": [4, 3], "b": [3]},
            {"y": ["N", 3]},
            {"w": weight(rng, 4, 3), "b": normal(rng, 3)},
            opset=opset,
            ir_version=3,
        )
        data = [{"x": normal(rng, 8, 4)} for _ in range(4)]
        walked = walk(model, data, data[:1], tmp_path, floor=20, recipes=["plain"])
        assert [spec.name for spec in walked.model.inputs] == ["x"]


NEWEST = onnx.defs.onnx_opset_version()


@pytest.mark.skipif(NEWEST < 28, reason="this onnx knows no opset without QuantizeLinear in ONNX Runtime")
def test_an_opset_without_quantization_in_onnx_runtime_is_lowered(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [node("Gemm", "x w", "a"), node("Cast", "a", "b", to=TensorProto.FLOAT), node("Relu", "b", "y")]
    model = graph(
        nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weight(rng, 4, 3)}, opset=NEWEST, ir_version=10
    )
    data = [{"x": normal(rng, 8, 4)} for _ in range(4)]
    walk(model, data, data[:1], tmp_path, floor=20)


@pytest.mark.skipif(NEWEST < 28, reason="this onnx knows no opset without QuantizeLinear in ONNX Runtime")
def test_an_opset_that_cannot_be_lowered_runs_in_float_and_says_why_not_in_int8() -> None:
    rng = np.random.default_rng(0)
    nodes = [node("Gemm", "x w", "a"), node("Mod", "a two", "y")]
    constants = {"w": weight(rng, 4, 3), "two": np.array(2, np.float32)}
    model = graph(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, constants, opset=NEWEST, ir_version=10)
    x = normal(rng, 8, 4)
    assert_same_function(run_original(model, {"x": x}), (eb.load(model)(x),))
    assert "in which ONNX Runtime has no QuantizeLinear" in refused(
        lambda: eb.quantize(model, x), eb.QuantizationError
    )


HALVES = {
    "float16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "bfloat16": (TensorProto.BFLOAT16, helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)),
    "float64": (TensorProto.DOUBLE, np.dtype(np.float64)),
}


@pytest.mark.parametrize("kind", HALVES)
def test_other_precisions_are_float32_here(kind: str, tmp_path: Path) -> None:
    """The right value is that of the same weights in float32."""
    code, dtype = HALVES[kind]
    rng = np.random.default_rng(0)
    constants = {
        "w": weight(rng, 8, 4).astype(dtype),
        "v": weight(rng, 3, 8).astype(dtype),
        "low": np.array(np.finfo(np.float32).min if kind == "float64" else -60000).astype(dtype),
    }
    nodes = [
        node("Gemm", "x w", "a", transB=1),
        node("Constant", "", "zero", value=numpy_helper.from_array(np.zeros((), dtype), "zero")),
        node("Max", "a zero", "b"),
        node("Where", "m b low", "c"),
        node("ReduceMax", "c", "d", keepdims=1),
        node("Sub", "c d", "e"),
        node("Exp", "e", "f"),
        node("Shape", "f", "s"),
        node("ConstantOfShape", "s", "ones", value=numpy_helper.from_array(np.ones(1, dtype), "one")),
        node("Mul", "f ones", "g"),
        node("Cast", "g", "h", to=TensorProto.FLOAT),
        node("Cast", "h", "i", to=code),
        node("Gemm", "i v", "y", transB=1),
    ]
    mask = (["N", 8], TensorProto.BOOL)
    ends = {"x": (["N", 4], code), "m": mask}, {"y": (["N", 3], code)}
    model = graph(nodes, *ends, constants, opset=18)
    wide = graph(
        [n for n in nodes if n.op_type != "Constant"],
        {"x": ["N", 4], "m": mask},
        {"y": ["N", 3]},
        {
            name: array.astype(np.float32)
            for name, array in (constants | {"zero": np.zeros((), dtype)}).items()
        },
        opset=18,
    )
    for n in wide.graph.node:
        for a in n.attribute:
            if a.name == "to":
                a.i = TensorProto.FLOAT
            elif a.name == "value":
                a.t.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    data = [{"x": normal(rng, 8, 4), "m": np.ones((8, 8), bool)} for _ in range(4)]
    walked = walk(
        model, data, data[:1], tmp_path, floor=18, recipes=["plain"], expected=[run_original(wide, data[0])]
    )
    assert walked.model.notes == (
        f"what is {kind} in the model is float32 here, inputs and outputs included",
    )
    assert {spec.dtype for spec in (*walked.model.inputs, *walked.model.outputs)} == {
        np.dtype("f4"),
        np.dtype("?"),
    }


def test_doubles_that_only_count_stay(tmp_path: Path) -> None:
    """Sizes of the old exporters are computed in double precision; the model itself is not."""
    rng = np.random.default_rng(0)
    model = graph(
        [
            node("Gemm", "x w", "a"),
            node("Shape", "a", "s"),
            node("Cast", "s", "d", to=TensorProto.DOUBLE),
            node("Mul", "d two", "e"),
            node("Floor", "e", "f"),
            node("Cast", "f", "t", to=TensorProto.INT64),
            node("Tile", "a r", "b"),
            node("Reshape", "b t2", "y"),
        ],
        {"x": ["N", 4]},
        {"y": [None, None]},
        {"w": weight(rng, 4, 3), "two": np.array(2.0), "r": np.array([1, 2]), "t2": np.array([-1, 6])},
    )
    model.graph.output.append(helper.make_tensor_value_info("t", TensorProto.INT64, [2]))
    x = normal(rng, 2, 4)
    loaded = eb.load(model)
    assert loaded.notes == ()
    assert_same_function(run_original(model, {"x": x}), loaded(x))


def test_sequences_of_halves() -> None:
    rng = np.random.default_rng(0)
    model = graph(
        [
            node("SplitToSequence", "x", "s", axis=1, keepdims=1),
            node("SequenceAt", "s i", "b"),
            node("Relu", "b", "y"),
        ],
        {"x": (["N", 4], TensorProto.FLOAT16)},
        {"y": (["N", 1], TensorProto.FLOAT16)},
        {"i": np.int64(1)},
    )
    x = normal(rng, 2, 4)
    np.testing.assert_array_equal(eb.load(model)(x), np.maximum(x[:, 1:2], 0))
