"""A graph settles in a counted number of rounds, whatever its depth; what is prepared stays as it is."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import eightbit as eb
from eightbit.cli import main
from eightbit.course import zoo
from eightbit.graph.model import constant
from eightbit.graph.notes import notes
from eightbit.graph.prepare import fold
from eightbit.graph.prepare.infer import symbols
from eightbit.graph.prepare.settle import settle
from eightbit.graph.source.load import load_graph
from tests.conformance.cases import ROWS
from tests.graph.graphs import assert_same, graph, normal, ops
from tests.graph.transformers import transformer


def rounds(model: ir.Model, monkeypatch: pytest.MonkeyPatch) -> tuple[ir.Model, int]:
    """The prepared graph, and how many rounds it took, the last of which found nothing to do."""
    seen: list[int] = []
    tidy = fold.tidy
    with monkeypatch.context() as patch:
        patch.setattr(fold, "tidy", lambda m: (seen.append(1), tidy(m))[1])
        prepared = fold.prepare(model)
    return prepared, len(seen)


def as_bytes(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("axes", "spelling"),
    [
        ((1, "T"), "concat"),
        ((1, "T"), "slices"),
        (("N", "T"), "concat"),
        ((None, None), "slices"),
        (("N", 8), "zeros"),
    ],
)
def test_sixteen_layers_settle_in_two_rounds(
    axes: tuple[object, ...], spelling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = transformer(16, axes, spelling, parts=True)  # type: ignore[arg-type]
    assert len(proto.graph.node) >= 720
    prepared, count = rounds(load_graph(proto), monkeypatch)
    assert count == 2
    assert ops(prepared).count("Gemm") == 6 * 16
    assert ops(prepared).count("Shape") <= 2  # one for each width of the layers that read it
    assert notes(prepared) == ()
    assert as_bytes(fold.prepare(prepared)) == as_bytes(prepared)


@pytest.mark.parametrize("spelling", ["concat", "slices", "zeros"])
@pytest.mark.parametrize("axes", [("N", "T"), (None, None), ("N", 8), (1, "T")])
def test_a_settled_transformer_computes_the_same(spelling: str, axes: tuple[object, ...]) -> None:
    model = load_graph(transformer(3, axes, spelling, parts=True))  # type: ignore[arg-type]
    assert_same(model, fold.prepare(model))


def test_a_limit_that_is_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "MAX_ROUNDS", 1)
    onnx.save(transformer(1, (1, 8)), tmp_path / "m.onnx")
    model = eb.load(tmp_path / "m.onnx")
    (said,) = model.notes
    assert said.startswith("preparing the graph stopped after 1 rounds, while settle, linear_to_gemm, ")
    assert f"note: {said}" in repr(model)
    q = eb.quantize(model, normal(4, 8, 16).reshape(4, 1, 8, 16)[:, 0][:, None][0:1, 0], eb.Recipe.plain())
    assert f"note: {said}" in str(q.report)
    np.savez(tmp_path / "c.npz", x=normal(1, 8, 16))
    args = [
        "quantize",
        str(tmp_path / "m.onnx"),
        "-c",
        str(tmp_path / "c.npz"),
        "-o",
        str(tmp_path / "q.onnx"),
    ]
    result = CliRunner().invoke(main, args)
    assert (result.exit_code, result.stderr) == (0, f"Note: {said}\n")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_prepared_graph_of_the_conformance_table_stays_as_it_is(row: object) -> None:
    built, _ = row.build(np.random.default_rng(0))  # type: ignore[attr-defined]
    prepared = fold.prepare(load_graph(built.float_proto()))
    assert as_bytes(fold.prepare(prepared)) == as_bytes(prepared)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "mobilenet", "efficientnet_lite0", "resnet50_fashion", "minilm"])
def test_a_prepared_network_of_the_zoo_stays_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, count = rounds(load_graph(zoo.load(name), zoo.example(name)), monkeypatch)
    assert count <= 2
    assert as_bytes(fold.prepare(prepared)) == as_bytes(prepared)


STEPS = [
    "Relu({0})", "Identity({0})", "Transpose <perm=[0,1,3,2]> ({0})", "Mul({0}, k)", "Add({0}, c)", "Sub(c, {0})",
    "Conv <pads=[1,1,1,1]> ({0}, w)", "Conv <auto_pad=\"SAME_UPPER\"> ({0}, w, c1)", "Pad({0}, pads)",
    "BatchNormalization({0}, g, b, m, v)", "Unsqueeze({0}, axes)", "Squeeze({0}, axes)", "Reshape({0}, copy)",
    "AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> ({0})", "MaxPool <kernel_shape=[2,2]> ({0})", "Shape({0})",
    "Flatten({0})", "Cast <to=1> ({0})", "MatMul({0}, d)", "Softmax({0})", "ReduceMean({0}, axes)",
    "Concat<axis=1>({0}, {0})",
]  # fmt: skip
WEIGHTS = {
    "k": normal(4, 1, 1), "c": normal(1, 4, 1, 1), "w": normal(4, 4, 3, 3), "c1": normal(4), "g": normal(4),
    "b": normal(4), "m": normal(4), "v": np.abs(normal(4)) + 1, "d": normal(6, 6), "axes": np.array([2]),
    "copy": np.array([0, 0, -1, 6]), "pads": np.array([0, 0, 1, 0, 0, 0, 1, 0]),
}  # fmt: skip


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), min_size=1, max_size=8),
    st.sampled_from([2, "N"]),
)
def test_whatever_is_prepared_stays_as_it_is(steps: list[tuple[str, int]], batch: object) -> None:
    body, names = [], ["x"]
    for i, (step, back) in enumerate(steps):  # each step reads one of the last four tensors
        body.append(f"t{i} = {step.format(names[max(0, len(names) - 1 - back)])}")
        names.append(f"t{i}")
    text = f"g (float[{batch},4,6,6] x) => (float y) {{ {' '.join(body)} y = Cast<to=1>({names[-1]}) }}"
    try:
        model = load_graph(ir.to_proto(graph(text, **WEIGHTS)))
        eb.Model(model)(normal(2, 4, 6, 6))
    except eb.EightbitError:
        return  # the steps do not fit each other
    prepared = fold.prepare(model)
    assert_same(model, prepared, batch=2)
    assert as_bytes(fold.prepare(prepared)) == as_bytes(prepared)


def test_what_a_reshape_leaves_is_found_in_symbols() -> None:
    model = graph(
        "g (float[N,T,4,8] x) => (float[A,B,C] y) { a = Reshape(x, rows) b = Reshape(x, joined) c = Reshape(x, lost)"
        "d = ReduceSum<keepdims=0>(a, axis) e = ReduceSum<keepdims=0>(c, axis) f = Add(d, e) y = Add(b, f) }",
        rows=np.array([0, -1, 4, 8]), joined=np.array([0, -1, 32]), lost=np.array([-1, 32]), axis=np.array([1]),
    )  # fmt: skip
    settle(model)
    shapes = {str(v.name): symbols(v) for n in model.graph for v in n.outputs}
    assert shapes["a"] == ("N", "T", 4, 8)
    assert shapes["b"] == ("N", "T", 32)
    assert shapes["c"] not in (("N", 32), ("T", 32)) and shapes["c"][1] == 32  # type: ignore[index]
    assert shapes["d"] == ("N", 4, 8)


def test_constants_settle_through_any_number_of_nodes_in_one_walk() -> None:
    steps = " ".join(f"t{i} = Add(t{i - 1}, one)" for i in range(1, 30))
    model = graph(
        f"g (float[3] x) => (float[3] y) {{ t0 = Identity(one) {steps} u = Cast<to=1>(t29) y = Mul(x, u) }}",
        one=np.array([1, 2, 3]),
    )
    settle(model)
    (mul,) = model.graph
    factor = constant(mul.inputs[1])
    assert factor is not None
    np.testing.assert_array_equal(factor, np.float32([30, 60, 90]))


def test_shapes_that_the_inputs_contradict_are_forgotten() -> None:
    """A file whose batch was freed at its input alone: the 1 in its inner tensors is what the batch was."""
    proto = ir.to_proto(
        graph(
            "g (float[1,4,6,6] x) => (float y) { a = Relu(x) r = Reshape(a, rows) b = Relu(r) s = Shape(b) "
            "n = Gather(s, zero) u = Unsqueeze(n, axis) k = Concat<axis=0>(u, rest) y = Reshape(b, k) }",
            rows=np.array([-1, 12, 12]), zero=np.array(0), axis=np.array([0]), rest=np.array([144]),
        )
    )  # fmt: skip
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    assert any(v.name == "r" for v in proto.graph.value_info)
    model = load_graph(proto)
    prepared = fold.prepare(model)
    assert_same(model, prepared, batch=5)
    assert {str(v.name): symbols(v) for n in prepared.graph for v in n.outputs}["r"] == ("N", 12, 12)
