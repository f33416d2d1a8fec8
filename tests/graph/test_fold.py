"""Each pass: how often it matched, which nodes are left, and the same numbers from both graphs."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from eightbit.graph.model import attribute, constant, ints
from eightbit.graph.prepare import affine_layers, constants, settle, spatial, transposes
from eightbit.graph.prepare.fold import prepare, tidy
from tests.graph.graphs import assert_same, graph, normal, ops

BN = {
    "g": normal(4, seed=1),
    "b": normal(4, seed=2),
    "m": normal(4, seed=3),
    "v": np.abs(normal(4, seed=4)) + 0.1,
}


def applied(model: ir.Model, *folds: Callable[[ir.Model], int]) -> tuple[ir.Model, list[int]]:
    """A copy of `model` after the passes, and how often each matched."""
    copy = model.clone()
    counts = [fold(copy) for fold in folds]
    tidy(copy)
    assert_same(model, copy)
    return copy, counts


@pytest.mark.parametrize(
    ("layer", "weight"),
    [
        ("Conv <pads=[1,1,1,1]> (x, w)", normal(4, 4, 3, 3)),
        ("Conv <group=2> (x, w)", normal(4, 2, 3, 3)),
        ("ConvTranspose <strides=[2,2]> (x, w)", normal(4, 4, 2, 2)),
        ("ConvTranspose <group=2> (x, w)", normal(4, 2, 2, 2)),
        ("Conv (x, w, b)", normal(4, 4, 1, 1)),
    ],
)
def test_batchnorm_goes_into_the_layer_before(layer: str, weight: np.ndarray) -> None:
    model = graph(
        f"g (float[N,4,6,6] x) => (float[N,4,P,Q] y) {{ c = {layer} y = BatchNormalization(c,g,b,m,v) }}",
        w=weight,
        **BN,
    )
    folded, counts = applied(model, affine_layers.fold_batchnorm)
    assert (counts, len(ops(folded))) == ([1], 1)
    assert str(folded.graph.outputs[0].name) == "y"


def test_batchnorm_alone_is_mul_and_add() -> None:
    model = graph("g (float[N,4,6,6] x) => (float[N,4,6,6] y) { y = BatchNormalization(x,g,b,m,v) }", **BN)
    folded, counts = applied(model, affine_layers.fold_batchnorm)
    assert (counts, ops(folded)) == ([1], ["Mul", "Add"])


def test_batchnorm_after_a_layer_with_two_readers_does_not_touch_its_weights() -> None:
    model = graph(
        "g (float[N,4,6,6] x) => (float[N,4,6,6] y, float[N,4,6,6] z)"
        "{ c = Conv(x, w) y = BatchNormalization(c,g,b,m,v) z = Relu(c) }",
        w=normal(4, 4, 1, 1),
        **BN,
    )
    folded, _ = applied(model, affine_layers.fold_batchnorm)
    assert sorted(ops(folded)) == ["Add", "Conv", "Mul", "Relu"]


def test_a_weight_shared_by_two_layers_is_copied_before_it_is_scaled() -> None:
    model = graph(
        "g (float[N,4,6,6] x) => (float[N,4,6,6] y) {"
        "c = Conv(x, w) d = BatchNormalization(c,g,b,m,v) y = Conv(d, w) }",
        w=normal(4, 4, 1, 1),
        **BN,
    )
    folded, counts = applied(model, affine_layers.fold_batchnorm)
    assert (counts, ops(folded)) == ([1], ["Conv", "Conv"])


@pytest.mark.parametrize(
    "op", ["Add(c, k)", "Add(k, c)", "Sub(c, k)", "Sub(k, c)", "Mul(c, k)", "Mul(k, c)", "Div(c, k)"]
)
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1,), ()])
def test_constant_affine_goes_into_the_layer_before(op: str, shape: tuple[int, ...]) -> None:
    model = graph(
        f"g (float[N,4,6,6] x) => (float[N,4,6,6] y) {{ c = Conv(x, w, b) y = {op} }}",
        w=normal(4, 4, 1, 1),
        b=normal(4, seed=5),
        k=np.abs(normal(*shape, seed=6)) + np.float32(0.5),
    )
    folded, counts = applied(model, affine_layers.fold_constant_affine)
    assert (counts, ops(folded)) == ([1], ["Conv"])


@pytest.mark.parametrize(
    ("gemm", "folds"),
    [
        ("Gemm <transB=1> (x, w)", 1),
        ("Gemm <transB=1> (x, w, b)", 1),
        ("Gemm (x, w)", 0),  # rows of its weight are inputs; it is square, so that nothing else would say so
        ("Gemm <transB=0> (x, w, b)", 0),
        ("Gemm <transB=1, alpha=0.5> (x, w, b)", 0),
        ("Gemm <transB=1, beta=0.5> (x, w, b)", 0),
        ("Gemm <transB=1> (x, w, rowed)", 0),
    ],
)
def test_constant_affine_goes_into_a_gemm_that_is_plain(gemm: str, folds: int) -> None:
    operands = {"b": normal(4, seed=5), "rowed": normal(1, 4, seed=5)}
    used = {name: array for name, array in operands.items() if f"{name})" in gemm}
    model = graph(
        f"g (float[N,4] x) => (float[N,4] y) {{ c = {gemm} y = Mul(c, k) }}",
        w=normal(4, 4),
        k=normal(4),
        **used,
    )
    _, counts = applied(model, affine_layers.fold_constant_affine)
    assert counts == [folds]


@pytest.mark.parametrize("shape", [(6,), (6, 1), (4, 6, 6), (2, 4, 1, 1)])
def test_an_operand_that_varies_elsewhere_stays(shape: tuple[int, ...]) -> None:
    model = graph(
        "g (float[2,4,6,6] x) => (float[2,4,6,6] y) { c = Conv(x, w) y = Add(c, k) }",
        w=normal(4, 4, 1, 1),
        k=normal(*shape, seed=6),
    )
    _, counts = applied(model, affine_layers.fold_constant_affine)
    assert counts == [0]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Mul(x, t) b = Div(a, six) y = Mul(c, b)", ["Mul", "Mul"]),  # a scaled HardSwish's end
        ("a = Mul(x, c) b = Div(a, six) d = Mul(b, c) y = Add(d, c)", ["Mul", "Add"]),
        ("a = Div(six, x) y = Mul(a, c)", ["Div", "Mul"]),  # x divides
        ("a = Mul(x, c) b = Div(a, six) y = Add(a, b)", ["Mul", "Div", "Add"]),  # two read it
        ("a = Mul(x, tiny) y = Mul(a, tiny)", ["Mul", "Mul"]),  # the product is no float32
        ("a = Mul(x, zero) y = Div(a, zero)", ["Mul", "Div"]),  # NaN is what it is
        ("a = Mul(x, row) y = Mul(a, c)", ["Mul", "Mul"]),
    ],
)
def test_factors_that_follow_each_other_are_one(body: str, left: list[str]) -> None:
    numbers = {"six": 6, "c": -0.75, "zero": 0, "tiny": 1e-30, "row": [[1, 2, 3]]}
    constants = {name: np.array(n, np.float32) for name, n in numbers.items() if name in body}
    given = "float[N,3] x, float[N,3] t" if "t)" in body else "float[N,3] x"
    model = graph(f"g ({given}) => (float[N,3] y) {{ {body} }}", **constants)
    folded, counts = applied(model, affine_layers.merge_factors)
    assert ops(folded) == left
    assert counts == [len(ops(model)) - len(left)]


def test_dense_layers_become_gemm_with_rows_as_channels_and_a_bias() -> None:
    model = graph(
        "g (float[N,5] x) => (float[N,7] y) { c = MatMul(x, w) y = Add(c, b) }",
        w=normal(5, 7),
        b=normal(7, seed=1),
    )
    folded, counts = applied(model, affine_layers.matmul_to_gemm, affine_layers.fold_constant_affine)
    (gemm,) = folded.graph
    weight, bias = constant(gemm.inputs[1]), constant(gemm.inputs[2])
    assert counts == [1, 1]
    assert weight is not None
    assert bias is not None
    assert (gemm.op_type, weight.shape, bias.shape, attribute(gemm, "transB")) == ("Gemm", (7, 5), (7,), 1)


@pytest.mark.parametrize("bias", [normal(1, 7), normal(7), normal(1), normal()])
@pytest.mark.parametrize("trans", [0, 1])
def test_gemm_is_normalized(bias: np.ndarray, trans: int) -> None:
    model = graph(
        f"g (float[N,5] x) => (float[N,7] y) {{ y = Gemm <alpha=0.5, beta=2.0, transB={trans}> (x, w, b) }}",
        w=normal(7, 5) if trans else normal(5, 7),
        b=bias,
    )
    folded, counts = applied(model, affine_layers.normalize_gemm)
    (gemm,) = folded.graph
    assert counts == [1]
    assert [attribute(gemm, a) for a in ("alpha", "beta", "transB")] == [1.0, 1.0, 1]
    assert affine_layers.normalize_gemm(folded) == 0


def test_equal_biases_are_unshared() -> None:
    model = graph(
        "g (float[N,4,6,6] x) => (float[N,4,6,6] y) { c = Conv(x, w, b) y = Conv(c, w, b) }",
        w=normal(4, 4, 1, 1),
        b=normal(4),
    )
    folded, counts = applied(model, affine_layers.unshare_biases)
    first, second = folded.graph
    assert counts == [1]
    assert first.inputs[2] is not second.inputs[2]


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(
    "op", ["Conv <{}, strides=[2,2]> (x, w)", "AveragePool <{}, kernel_shape=[3,2]> (x)"]
)
@pytest.mark.parametrize("size", ["7,8", "H,W"])
def test_auto_pad_is_resolved(mode: str, op: str, size: str) -> None:
    node = op.format(f'auto_pad="{mode}"')
    model = graph(f"g (float[N,4,{size}] x) => (float[N,4,P,Q] y) {{ y = {node} }}", w=normal(4, 4, 3, 2))
    folded, counts = applied(model, spatial.explicit_windows)
    (only,) = folded.graph
    assert counts == [1]
    unknown = size == "H,W" and mode != "VALID" and "strides" in node  # with strides of 1 any size will do
    assert ("auto_pad" in only.attributes) == unknown
    assert len(ints(only, "pads") or ()) == (0 if unknown else 4)


def pad_before(reader: str, *, pads: list[int], before: str = "Identity") -> ir.Model:
    return graph(
        f"g (float[N,4,7,8] x) => (float[N,4,P,Q] y) {{ r = {before}(x) p = Pad(r, pads) y = {reader} }}",
        w=normal(4, 4, 3, 3),
        pads=np.array(pads, np.int64),
    )


SPATIAL = [0, 0, 1, 0, 0, 0, 1, 2]
POOL = "kernel_shape=[3,3], strides=[2,2]"


@pytest.mark.parametrize(
    ("reader", "before"),
    [
        ("Conv <pads=[0,1,1,0]> (p, w)", "Identity"),
        (f"AveragePool <{POOL}> (p)", "Identity"),
        ("AveragePool <kernel_shape=[4,4], pads=[1,1,1,1], count_include_pad=1> (p)", "Identity"),
        (f"MaxPool <{POOL}> (p)", "Relu"),
    ],
)
def test_zero_padding_goes_into_its_reader(reader: str, before: str) -> None:
    folded, counts = applied(
        pad_before(reader, pads=SPATIAL, before=before), spatial.explicit_windows, spatial.fold_pad
    )
    assert counts[1] == 1
    assert "Pad" not in ops(folded)


@pytest.mark.parametrize(
    ("reader", "before", "pads"),
    [
        ("Conv (p, w)", "Identity", [0, 0, -1, 0, 0, 0, 0, 0]),
        (f"AveragePool <{POOL}, ceil_mode=1> (p)", "Identity", SPATIAL),
        (f"AveragePool <{POOL}, pads=[1,1,1,1]> (p)", "Identity", SPATIAL),
        (f"AveragePool <{POOL}> (p)", "Identity", [0, 0, 3, 0, 0, 0, 0, 0]),
        (f"MaxPool <{POOL}> (p)", "Identity", SPATIAL),
        (f"MaxPool <{POOL}> (p)", "Relu", [0, 0, 3, 0, 0, 0, 0, 0]),
    ],
)
def test_padding_stays_where_folding_would_change_a_number(reader: str, before: str, pads: list[int]) -> None:
    _, counts = applied(
        pad_before(reader, pads=pads, before=before), spatial.explicit_windows, spatial.fold_pad
    )
    assert counts[1] == 0


@pytest.mark.parametrize(
    ("node", "left"),
    [
        ("ReduceMean <keepdims=0> (x, axes)", ["GlobalAveragePool", "Reshape"]),
        ("ReduceMean <keepdims=1> (x, axes)", ["GlobalAveragePool"]),
        ("AveragePool <kernel_shape=[5,6]> (x)", ["GlobalAveragePool"]),
    ],
)
def test_spatial_mean_is_a_global_pool(node: str, left: list[str]) -> None:
    shape = "float[N,4]" if "keepdims=0" in node else "float[N,4,1,1]"
    model = graph(f"g (float[N,4,5,6] x) => ({shape} y) {{ y = {node} }}", axes=np.array([-1, 2], np.int64))
    folded, counts = applied(model, spatial.mean_to_global_pool)
    assert (counts, ops(folded)) == ([1], left)


def test_mean_over_channels_stays() -> None:
    model = graph(
        "g (float[N,4,5,6] x) => (float[N,5,6] y) { y = ReduceMean<keepdims=0>(x, axes) }", axes=np.array([1])
    )
    assert spatial.mean_to_global_pool(model) == 0


def test_transposes_inside_the_network_vanish() -> None:
    model = graph(
        "g (float[N,6,6,4] x) => (float[N,6,6,4] y) {"
        "a = Transpose<perm=[0,3,1,2]>(x) b = Conv(a, w) c = Transpose<perm=[0,2,3,1]>(b) d = Relu(c)"
        "e = Transpose<perm=[0,3,1,2]>(d) f = Conv(e, w) y = Transpose<perm=[0,2,3,1]>(f) }",
        w=normal(4, 4, 1, 1),
    )
    prepared = prepare(model)
    assert_same(model, prepared)
    assert ops(prepared) == ["Transpose", "Conv", "Relu", "Conv", "Transpose"]


def test_transposed_keys_of_attention_are_one_transpose() -> None:
    model = graph(
        "g (float[B,4,S,8] x) => (float[B,4,8,S] y) {"
        "s = Shape(x) b = Slice(s, zero, one) t = Slice(s, two, three) k = Concat<axis=0>(minus, t, eight)"
        "r = Reshape(x, k) p = Transpose<perm=[0,2,1]>(r) "
        "q = Concat<axis=0>(b, four, eight, t) y = Reshape(p, q) }",
        **{n: np.array([v], np.int64) for n, v in zip(
            ("zero", "one", "two", "three", "minus", "four", "eight"), (0, 1, 2, 3, -1, 4, 8), strict=True)},
    )  # fmt: skip
    copy, counts = applied(model, settle.settle, transposes.reshape_transpose_reshape)
    assert (counts[1], ops(copy)) == (1, ["Transpose"])


def test_shape_arithmetic_becomes_a_constant_target_and_the_batch_stays_free() -> None:
    model = graph(
        "g (float[N,4,5] x) => (float[N,20] y) { s = Shape(x) n = Gather(s, zero) u = Unsqueeze(n, axis)"
        "k = Concat<axis=0>(u, size) y = Reshape(x, k) }",
        zero=np.array(0, np.int64),
        axis=np.array([0], np.int64),
        size=np.array([20], np.int64),
    )
    folded, counts = applied(model, settle.settle)
    (reshape,) = folded.graph
    target = constant(reshape.inputs[1])
    assert target is not None
    assert (counts, target.tolist()) == ([1], [-1, 20])
    assert_same(model, folded, batch=1)


def test_two_free_axes_are_copied_not_guessed() -> None:
    model = graph(
        "g (float[N,S,6] x) => (float[N,S,2,3] y) {"
        "s = Shape<end=2>(x) k = Concat<axis=0>(s, h) y = Reshape(x, k) }",
        h=np.array([2, 3], np.int64),
    )
    folded, _ = applied(model, settle.settle)
    target = constant(next(iter(folded.graph)).inputs[1])
    assert target is not None
    assert target.tolist() in ([0, 0, 2, 3], [0, -1, 2, 3])


def test_static_shapes_and_constants_are_folded() -> None:
    model = graph(
        "g (float[2,6] x) => (float[3,4] y) {"
        "s = Shape(x) h = Mul(s, half) d = Div(h, two) y = Reshape(x, d) }",
        half=np.array([3, 4], np.int64),
        two=np.array([2, 6], np.int64),
    )
    prepared = prepare(model)
    assert_same(model, prepared)
    assert ops(prepared) == ["Reshape"]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("less", [0, 9], ids=["lengths", "negative"])
@pytest.mark.parametrize("by", [(2,), (3, 4), (-2,), (1, -3), (7,)], ids=str)
@pytest.mark.parametrize("swapped", [False, True])
def test_arithmetic_on_lengths_is_onnx_arithmetic(
    op: str, less: int, by: tuple[int, ...], swapped: bool
) -> None:
    """Integers as ONNX counts them: division truncates towards zero, short operands are repeated."""
    operands = "(k, h)" if swapped else "(h, k)"
    model = graph(
        f"g (float[N,8] x) => (float[N,8] y) {{ s = Shape(x) h = Sub(s, less) b = {op}{operands} d = Gather(b, one)"
        "f = Cast<to=1>(d) m = ReduceSum<keepdims=0>(f) w = ReduceMax<keepdims=0>(f)"
        "n = Mul(m, w) y = Add(x, n) }",
        less=np.array([less], np.int64),
        one=np.array([1], np.int64),
        k=np.array(by, np.int64),
    )
    folded, _ = applied(model, settle.settle)
    if less == 0 and min(by) > 0:
        assert ops(folded) == ["Add"]


def test_a_length_divided_by_zero_is_unknown_and_no_error() -> None:
    model = graph(
        "g (float[5,8] x) => (float[N,M] y) { s = Shape(x) d = Div(s, k) y = Reshape(x, d) }",
        k=np.array([1, 0], np.int64),
    )
    (reshape,) = prepare(model).graph
    target = constant(reshape.inputs[1])
    assert target is not None and target.tolist() == [5, -1]


def test_a_constant_of_absurd_size_is_neither_computed_nor_propagated() -> None:
    model = graph(
        "g (float[1] x) => (float[N] y) { c = ConstantOfShape(n) y = Add(x, c) }", n=np.array([10**12])
    )
    assert settle.settle(model.clone()) == 0
    assert ops(prepare(model)) == ["ConstantOfShape", "Add"]


@pytest.mark.parametrize("node", ["Identity(r)", "Dropout(r)", "Cast<to=1>(r)", "Transpose<perm=[0,1]>(r)"])
def test_nodes_that_change_nothing_go_and_the_output_keeps_its_name(node: str) -> None:
    model = graph(f"g (float[N,4] x) => (float[N,4] y) {{ r = Relu(x) y = {node} }}")
    folded, counts = applied(model, constants.drop_no_ops)
    assert (counts, ops(folded), str(folded.graph.outputs[0].name)) == ([1], ["Relu"], "y")


def test_a_node_between_input_and_output_stays() -> None:
    model = graph("g (float[N,4] x) => (float[N,4] y) { y = Identity(x) }")
    _, counts = applied(model, constants.drop_no_ops)
    assert counts == [0]


def test_squeeze_is_a_reshape_with_the_batch_free() -> None:
    model = graph(
        "g (float[N,4,1,1] x) => (float[N,4] y) { y = Squeeze(x, a) }", a=np.array([2, 3], np.int64)
    )
    folded, counts = applied(model, constants.squeeze_to_reshape)
    assert (counts, ops(folded)) == ([1], ["Reshape"])


def test_prepare_leaves_its_argument_alone_and_is_idempotent() -> None:
    model = graph(
        "g (float[N,4,6,6] x) => (float[N,7] y) {"
        "c = Conv(x, w) d = BatchNormalization(c,g,b,m,v) r = Relu(d)"
        "p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, k) }",
        opset=15,
        w=normal(4, 4, 3, 3),
        k=normal(4, 7, seed=9),
        **BN,
    )
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    once = prepare(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert_same(model, once)
    assert ops(once) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    assert once.opset_imports[""] == 21
    assert all(v.shape is not None and v.dtype is not None for n in once.graph for v in n.outputs)
    assert ir.to_proto(prepare(once)).SerializeToString(deterministic=True) == ir.to_proto(
        once
    ).SerializeToString(deterministic=True)
