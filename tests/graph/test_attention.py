"""Biases of keys and values leave attention: the same function with two fewer, and every case where they stay."""

import numpy as np
import onnx_ir as ir
import pytest

from eightbit.graph.model import constant, input_at
from eightbit.graph.prepare.attention import fold_attention_biases
from eightbit.graph.prepare.fold import prepare
from tests.graph.graphs import assert_same, graph, normal, ops

ATTENTION = """g (float[N,S,8] x, float[N,1,1,S] mask) => (float[N,S,6] y) {
    fx = Reshape (x, rows)
    q0 = Gemm <transB=1> (fx, wq, bq)
    k0 = Gemm <transB=1> (fx, wk, bk)
    v0 = Gemm <transB=1> (fx, wv, bv)
    xs = Shape <start=0, end=2> (x)
    ht = Concat <axis=0> (xs, parts)
    q2 = Reshape (q0, ht)
    k2 = Reshape (k0, ht)
    v2 = Reshape (v0, ht)
    q = Transpose <perm=[0,2,1,3]> (q2)
    k = Transpose <perm=[0,2,3,1]> (k2)
    v = Transpose <perm=[0,2,1,3]> (v2)
    s0 = MatMul (q, k)
    s = Add (s0, mask)
    p = Softmax <axis=-1> (s)
    c = MatMul (p, v)
    t = Transpose <perm=[0,2,1,3]> (c)
    r = Reshape (t, rows)
    o = Gemm <transB=1> (r, wo, bo)
    ot = Concat <axis=0> (xs, outer)
    y = Reshape (o, ot)
}"""


def attention(body: str = ATTENTION, **changed: np.ndarray) -> ir.Model:
    """Two heads of four channels; `changed` replaces weights."""
    weights = {f"w{name}": normal(8, 8, seed=seed) for seed, name in enumerate("qkv")}
    weights |= {f"b{name}": normal(8, seed=9 + seed) for seed, name in enumerate("qkv")}
    weights |= {"wo": normal(6, 8, seed=20), "bo": normal(6, seed=21)}
    shapes = {"rows": np.array([-1, 8]), "parts": np.array([2, 4]), "outer": np.array([6])}
    model = graph(body, **weights | shapes | changed)
    known = {"q0": 8, "k0": 8, "v0": 8, "r": 8, "o": 6}
    for node in model.graph:  # computed targets hide the last axes from ONNX's shape inference
        name = str(node.outputs[0].name)
        if name in ("q2", "k2", "v2"):
            node.outputs[0].shape = ir.Shape([None, None, 2, 4])
        elif name in ("q", "v", "c", "k", "s0", "s", "p", "t"):
            last = {
                "k": [2, 4, None],
                "q": [2, None, 4],
                "v": [2, None, 4],
                "c": [2, None, 4],
                "t": [None, 2, 4],
            }
            node.outputs[0].shape = ir.Shape([None, *last.get(name, [2, None, None])])
        elif name in known:
            node.outputs[0].shape = ir.Shape([None, known[name]])
    return model


def biases(model: ir.Model) -> dict[str, np.ndarray | None]:
    """The bias of each Gemm, by the name of its weight."""
    return {str(n.inputs[1].name): constant(input_at(n, 2)) for n in model.graph if n.op_type == "Gemm"}


def test_keys_lose_their_bias_and_that_of_the_values_goes_through_the_output():
    model = attention()
    assert fold_attention_biases(model) == 2
    left = biases(model)
    assert left["wk"] is None and left["wv"] is None
    np.testing.assert_array_equal(left["wq"], normal(8, seed=9))  # q k^T + b k^T: b differs from key to key
    moved = normal(6, 8, seed=20).astype(np.float64) @ normal(8, seed=11).astype(np.float64)
    np.testing.assert_array_equal(
        left["wo"], (normal(6, seed=21).astype(np.float64) + moved).astype(np.float32)
    )
    assert_same(attention(), model)
    assert fold_attention_biases(model) == 0


def test_an_output_layer_without_bias_takes_that_of_the_values():
    body = ATTENTION.replace("(r, wo, bo)", "(r, wo)")
    model = attention(body)
    assert fold_attention_biases(model) == 2
    assert biases(model)["wo"] is not None
    assert_same(attention(body), model)


def test_prepare_finds_attention_behind_linear_layers_of_rank_three():
    before = attention()
    model = prepare(before)
    assert sum(bias is None for bias in biases(model).values()) == 2
    assert_same(before, model)


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("y = Reshape (o, ot)", "o2 = Add (o, z) y = Reshape (o2, ot)", 0),
        ("Softmax <axis=-1>", "Softmax <axis=-2>", 2),  # weights that sum to 1 over the queries
        ("c = MatMul (p, v)", "c = MatMul (v, p)", 1),  # values on the left: weights meet channels
        ("r = Reshape (t, rows)", "t2 = Relu (t) r = Reshape (t2, rows)", 1),
        (
            "t = Transpose <perm=[0,2,1,3]> (c)",
            "t = Transpose <perm=[0,2,3,1]> (c)",
            1,
        ),  # channels in another order
        ("s = Add (s0, mask)", "s = Mul (s0, mask)", 1),
        ("v2 = Reshape (v0, ht)", "v2 = Reshape (k0, ht)", 2),  # one layer makes keys and values
        # A factor or a transposed weight: not the layer x W^T + b of the equations.
        ("k0 = Gemm <transB=1>", "k0 = Gemm <transB=0>", 1),
        ("k0 = Gemm <transB=1>", "k0 = Gemm <transB=1, alpha=0.5>", 1),
        ("v0 = Gemm <transB=1>", "v0 = Gemm <transB=1, beta=0.5>", 1),
        ("o = Gemm <transB=1>", "o = Gemm <transB=1, alpha=0.5>", 1),
        ("o = Gemm <transB=1>", "o = Gemm <transB=1, beta=0.5>", 1),
        ("v0 = Gemm <transB=1> (fx, wv, bv)", "v0 = Gemm <transB=1> (fx, wv, rowed)", 1),  # a bias of (1, 8)
        # Another reader of what the equations speak of.
        ("y = Reshape (o, ot)", "o1 = MatMul (k0, wz) o2 = Add (o, o1) y = Reshape (o2, ot)", 1),
        ("y = Reshape (o, ot)", "o1 = MatMul (v0, wz) o2 = Add (o, o1) y = Reshape (o2, ot)", 1),
        ("y = Reshape (o, ot)", "o1 = MatMul (r, wz) o2 = Add (o, o1) y = Reshape (o2, ot)", 1),
        ("p = Softmax <axis=-1> (s)", "s1 = Softmax <axis=-1> (s) p = Add (s1, s0)", 2),
    ],
)
def test_biases_stay_where_attention_would_see_them_go(old: str, new: str, kept: int):
    assert old in ATTENTION
    body = ATTENTION.replace(old, new)
    if "MatMul (v, p)" in body:  # (4, S) x (S, S): the layout of another kind of attention
        body = body.replace("v = Transpose <perm=[0,2,1,3]>", "v = Transpose <perm=[0,2,3,1]>")
        body = body.replace("t = Transpose <perm=[0,2,1,3]>", "t = Transpose <perm=[0,3,1,2]>")
    spare = {"z": normal(6, seed=30), "wz": normal(8, 6, seed=31), "rowed": normal(1, 8, seed=32)}
    model = attention(body, **spare)
    assert fold_attention_biases(model) == 2 - kept
    if "[0,2,3,1]> (c)" not in body:  # that one mixes rows and channels: its shapes fit only for S = 8 / 4
        assert_same(attention(body, **spare), model)
    assert ops(model).count("Gemm") == 4
