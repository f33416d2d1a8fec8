"""Tensors and nodes that are called what this package calls its own, and names that are very long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import eightbit as eb
from eightbit.report.tensors import TensorPairs, layer_errors
from tests.strangers.graphs import Feeds, graph, node, normal, weight
from tests.strangers.walk import arrays, assert_equal, refused, walk

Case = tuple[onnx.ModelProto, list[Feeds]]
RECIPES: dict[str, eb.Recipe] = {
    "six bits": eb.Recipe(activations=eb.Activations(bits=6), weights=eb.Weights(bits=4)),
    "groups": eb.Recipe(activations=eb.FLOAT, weights=eb.Weights(bits=4, granularity=eb.PerGroup(4))),
    "dynamic": eb.Recipe(activations=eb.Activations(dynamic=True)),
}


def picture() -> Case:
    """Convolutions, shared and not; clamps, a residual, carriers of codes, a mean over the picture, two outputs."""
    rng = np.random.default_rng(0)
    nodes = [
        node("BatchNormalization", "x g o mu var", "a"),
        node("Conv", "a w b", "c", pads=[1] * 4),
        node("Relu", "c", "d"),
        node("Conv", "d v u", "e", pads=[1] * 4),
        node("Add", "e d", "f"),
        node("Conv", "f v", "h", pads=[1] * 4),
        node("Concat", "h f", "i", axis=1),
        node("Pad", "i pads edge", "j"),
        node("MaxPool", "j", "k", kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", "k", "l", perm=[0, 2, 3, 1]),
        node("Tanh", "l", "m"),
        node("Transpose", "m", "n", perm=[0, 3, 1, 2]),
        node("ReduceMean", "n", "p", axes=[2, 3], keepdims=0),
        node("Gemm", "p dense", "y", transB=1),
    ]
    constants = {
        "g": np.ones(3, np.float32), "o": normal(rng, 3), "mu": normal(rng, 3), "var": np.ones(3, np.float32),
        "w": weight(rng, 8, 3, 3, 3), "b": normal(rng, 8), "v": weight(rng, 8, 8, 3, 3), "u": normal(rng, 8),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "edge": np.float32(0), "dense": weight(rng, 6, 16),
    }  # fmt: skip
    ends = {"y": ["N", 6], "h": ["N", 8, 8, 8]}
    model = graph(nodes, {"x": ["N", 3, 8, 8]}, ends, constants)
    return model, [{"x": normal(rng, 2, 3, 8, 8)} for _ in range(3)]


def sentence() -> Case:
    """A table, linear layers on a sequence with two free axes, one kernel in two of them, a LayerNormalization."""
    rng = np.random.default_rng(1)
    nodes = [
        node("Gather", "table i", "t"),
        node("LayerNormalization", "t g o", "n"),
        node("MatMul", "n w", "a"),
        node("Add", "a b", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r w", "c"),
        node("Add", "c b", "d"),
        node("MatMul", "d v", "y"),
    ]
    constants = {
        "table": normal(rng, 600, 16), "g": np.abs(normal(rng, 16)), "o": normal(rng, 16),
        "w": weight(rng, 16, 16), "b": normal(rng, 16), "v": weight(rng, 16, 16),
    }  # fmt: skip
    model = graph(nodes, {"i": (["N", "S"], onnx.TensorProto.INT64)}, {"y": ["N", "S", 16]}, constants)
    return model, [{"i": rng.integers(0, 600, (2, 5))} for _ in range(3)]


def names(model: onnx.ModelProto) -> tuple[set[str], set[str]]:
    """Of tensors and of nodes."""
    tensors = {t.name for t in model.graph.initializer} | {o for n in model.graph.node for o in n.output}
    return tensors | {v.name for v in model.graph.input}, {n.name for n in model.graph.node}


def with_names(model: onnx.ModelProto, tensors: set[str], nodes: set[str]) -> onnx.ModelProto:
    """`model` and, beside it, a layer on another input for each name: its output or its node is called so."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    count = max(len(tensors), len(nodes))
    ours = sorted(tensors) + [f"other {i}" for i in range(count - len(tensors))]
    theirs = sorted(nodes) + [f"other {i}" for i in range(count - len(nodes))]
    extra = graph(
        [onnx.helper.make_node("Abs", ["beside"], [t], name=n) for t, n in zip(ours, theirs, strict=True)],
        {"beside": ["N", 3]},
        {t: ["N", 3] for t in ours},
        {},
    )
    for field in ("node", "input", "output"):
        getattr(result.graph, field).extend(getattr(extra.graph, field))
    return result


def results(q: eb.QuantizedModel, feed: Feeds, count: int) -> list[np.ndarray]:
    """The first outputs, of both engines, which must agree."""
    found = arrays(q(feed))
    assert_equal(found, arrays(q.run(feed, engine="numpy")), "engines")
    return list(found[:count])


def noise(model: eb.Model, q: eb.QuantizedModel, data: list[Feeds]) -> dict[str, float]:
    """The SQNR of each tensor that both models have."""
    return {row.name: row.sqnr_db for row in layer_errors(TensorPairs(model.ir, q.ir, threads=1), data)}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("case", [picture, sentence])
def test_every_name_that_is_made_up_may_be_taken(
    case: Callable[[], Case], recipe: str, tmp_path: Path
) -> None:
    """All names of the graph, the file and the integer program are taken in the second model: it computes the same."""
    model, data = case()
    loaded = eb.load(model)
    q = eb.quantize(loaded, data, RECIPES[recipe])
    found = [names(onnx.load(loaded.save(tmp_path / "a"))), names(onnx.load(q.save(tmp_path / "b")))]
    found += [({name for op in q.program.ops for name in op.outputs}, {op.name for op in q.program.ops})]
    known = names(model)
    tensors, nodes = (set().union(*(f[i] for f in found)) - known[i] for i in (0, 1))
    assert len(tensors) > 14 and len(nodes) > 4
    beside = {"beside": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}
    full = [{**feed, **beside} for feed in data]
    second = eb.load(with_names(model, tensors, nodes))
    again = eb.quantize(second, full, RECIPES[recipe])
    opened = eb.open(again.save(tmp_path / "c"))
    count = len(model.graph.output)
    for feed in full:
        right = results(q, {name: feed[name] for name in data[0]}, count)
        for other in (again, opened):
            for x, y in zip(right, results(other, feed, count), strict=True):
                np.testing.assert_array_equal(x, y)
    if RECIPES[recipe].calibrates:
        pairs = [noise(loaded, q, data), noise(second, again, full)]
        # Names that preparing the graph made up have a number now.
        assert sorted(pairs[0].values()) == sorted(pairs[1].values())
        assert all(pairs[1][name] == pairs[0][name] for name in known[0] & pairs[0].keys())


def letters() -> Case:
    """Two linear layers that read one, and their sum; an input is added in a branch."""
    rng = np.random.default_rng(2)
    inner = [
        graph([node("Add", "h b", name)], {}, {name: ["N", 16]}, {}) for name in ("then_out", "else_out")
    ]
    nodes = [
        node("Gemm", "x w b", "h", transB=1),
        node("Gemm", "h v b", "q", transB=1),
        node("Gemm", "h u b", "k", transB=1),
        node("Add", "q k", "s"),
        node("If", "c", "t", then_branch=inner[0].graph, else_branch=inner[1].graph),
        node("Add", "s t", "e"),
        node("Gemm", "e u b", "y", transB=1),
    ]
    constants = {name: weight(rng, 16, 16) for name in "wvu"} | {"b": normal(rng, 16)}
    inputs = {"x": ["N", 16], "c": ([], onnx.TensorProto.BOOL)}
    model = graph(nodes, inputs, {"y": ["N", 16]}, constants)
    return model, [{"x": normal(rng, 4, 16), "c": np.array(i % 2 == 0)} for i in range(6)]


@pytest.mark.parametrize(
    ("tensors", "nodes"),
    [
        ({}, {}),
        ({"q": "h_q", "k": "h_s", "s": "h_dq", "e": "h_z"}, {}),  # as in attention
        ({"v": "h_s", "u": "w_q", "b": "w_s"}, {}),  # initializers
        ({"h": "y_q", "s": "y_f", "q": "x_q"}, {}),
        ({"then_out": "h_q", "else_out": "h_dq"}, {}),  # inside a branch
        ({}, {"h_gemm": "x_Q", "q_gemm": "x_DQ", "s_add": "h_Q"}),
    ],
)
def test_names_from_the_wild(tensors: dict[str, str], nodes: dict[str, str], tmp_path: Path) -> None:
    model, data = letters()
    found = walk(called(model, tensors, nodes), data[:4], data[4:], tmp_path, floor=30, recipes=("plain",))
    assert noise(found.model, found.quantized["plain"], data).keys() >= {"x", tensors.get("h", "h"), "y"}


def called(model: onnx.ModelProto, tensors: dict[str, str], nodes: dict[str, str]) -> onnx.ModelProto:
    """`model` with other names for some of its tensors and nodes, those in branches included."""
    waiting = [model.graph]
    while waiting:
        part = waiting.pop()
        for value in (*part.initializer, *part.output):
            value.name = tensors.get(value.name, value.name)
        for one in part.node:
            one.name = nodes.get(one.name, one.name)
            one.input[:] = [tensors.get(name, name) for name in one.input]
            one.output[:] = [tensors.get(name, name) for name in one.output]
            waiting += [a.g for a in one.attribute if a.HasField("g")]
    return model


def test_probes_make_up_names_too() -> None:
    model, data = letters()
    x, other = ({"h": "error", "q": "noisy", "s": "h_gemm.noise", "w": "h_gemm.error"}, {"s_add": "noisy"})
    plain, taken = (eb.load(m) for m in (model, called(letters()[0], x, other)))
    first, second = (eb.sensitivity(m, data) for m in (plain, taken))
    for ours, theirs in zip(first.sources, second.sources, strict=True):
        assert ours.noise == pytest.approx(theirs.noise, rel=1e-4)  # float32 sums in another order


def test_a_long_name_is_written_where_its_author_wrote_it(tmp_path: Path) -> None:
    """300 characters: twice for the tensor (made, read), once for the node; what is made up keeps the end of it."""
    model, data = letters()
    long = {name: name * 300 for name in ("h", "w", "s")}
    model = called(model, long, {"h_gemm": "n" * 300})
    q = walk(model, data[:4], data[4:], tmp_path, floor=30, recipes=("plain",)).quantized["plain"]
    content = (tmp_path / "plain.onnx").read_bytes()
    written = {name: content.count(name.encode()) for name in (*long.values(), "n" * 300)}
    assert written == {"h" * 300: 2, "w" * 300: 0, "s" * 300: 2, "n" * 300: 1}
    assert all(len(str(v.name)) <= 130 for n in q.ir.graph for v in n.outputs if v.name not in long.values())


def test_what_shows_a_model_commands_no_terminal() -> None:
    """Names of tensors, and a note with names in it."""
    zipped = helper.make_node(
        "ZipMap", ["p"], ["z\x1b[2J"], "zip", domain="ai.onnx.ml", classlabels_strings=["a\x1b[2J", "b"]
    )
    source = graph(
        [node("Gemm", "x\x1b[2J w", "p"), zipped], {"x\x1b[2J": ["N", 4]}, {}, {"w": np.ones((4, 2), "f4")}
    )
    source.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    kind = helper.make_map_type_proto(8, helper.make_tensor_type_proto(1, None))
    source.graph.output.append(helper.make_value_info("z\x1b[2J", helper.make_sequence_type_proto(kind)))
    model = eb.load(source)
    q = eb.quantize(model, np.ones((2, 4), np.float32))
    for shown in (repr(model), repr(q), str(q.report)):
        assert "\x1b" not in shown
    assert "a\\x1b[2J" in repr(model)
    assert "a\\x1b[2J" in str(q.report)


@pytest.mark.parametrize("text", ["the_output_relu", "the_input", "the_axis", "Relu", "the_graph"])
def test_names_that_are_no_text_are_refused(text: str) -> None:
    """Protobuf hands over bytes where text should be, and no writer takes them back."""
    source = graph(
        [node("Relu", "the_input", "the_output")],
        {"the_input": ["the_axis", 3]},
        {"the_output": ["the_axis", 3]},
        {},
    )
    source.graph.name = "the_graph"
    spoiled = text[:-1].encode() + b"\xa1"
    data = source.SerializeToString().replace(text.encode(), spoiled)
    said = refused(lambda: eb.load(data), eb.LoadError)
    assert f"{spoiled!r} is not text in UTF-8; export the model again" in said
