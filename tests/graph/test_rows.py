"""Linear layers on sequences as Gemm on rows; the scale of attention scores inside the query's weights."""

import numpy as np
import pytest

from eightbit.graph.model import constant
from eightbit.graph.prepare.fold import prepare
from eightbit.graph.prepare.rows import fold_score_scale, linear_to_gemm
from tests.graph.graphs import assert_same, graph, normal, ops

ATTENTION = """g (float[N,S,8] x) => (float[N,S,8] y) {
    q0 = MatMul (x, wq)
    q1 = Add (q0, bq)
    k0 = MatMul (x, wk)
    k1 = Add (bk, k0)
    q2 = Reshape (q1, heads)
    k2 = Reshape (k1, heads)
    q = Transpose <perm=[0,2,1,3]> (q2)
    k = Transpose <perm=[0,2,3,1]> (k2)
    s0 = MatMul (q, k)
    s = Div (s0, root)
    p = Softmax (s)
    o = MatMul (p, q)
    t = Transpose <perm=[0,2,1,3]> (o)
    y = Reshape (t, whole)
}"""


def attention():
    weights = {
        "wq": normal(8, 8, seed=1),
        "wk": normal(8, 8, seed=2),
        "bq": normal(8, seed=3),
        "bk": normal(8, seed=4),
    }
    shapes = {"heads": np.array([0, 0, 2, 4]), "whole": np.array([0, 0, 8])}
    return graph(ATTENTION, **weights, **shapes, root=np.float32(2))


def test_matmul_and_bias_become_gemm_on_rows_and_share_one_shape():
    model = attention()
    assert linear_to_gemm(model) == 2
    assert ops(model).count("Gemm") == 2
    assert ops(model).count("MatMul") == 2  # the products of two activations
    assert ops(model).count("Shape") == 1
    assert_same(attention(), model)


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = MatMul (x, w)", {"w": normal(8, 4)}),  # no bias: nothing to win
        ("a = MatMul (x, w) y = Add (a, b)", {"w": normal(8, 4), "b": normal(5, 4)}),  # not a bias
        ("a = MatMul (x, w) c = Relu (a) d = Add (a, b) y = Mul (c, d)", {"w": normal(8, 4), "b": normal(4)}),
    ],
    ids=["no bias", "an addition along the sequence", "the product is read twice"],
)
def test_other_products_stay(body, weights):
    model = graph(f"g (float[N,5,8] x) => (float[N,5,4] y) {{ {body} }}", **weights)
    assert linear_to_gemm(model) == 0


def test_one_free_axis_needs_no_computed_shape():
    body = "g (float[N,5,8] x) => (float[N,5,4] y) { a = MatMul (x, w) y = Add (a, b) }"
    model = graph(body, w=normal(8, 4), b=normal(4))
    before = graph(body, w=normal(8, 4), b=normal(4))
    assert linear_to_gemm(model) == 1
    assert "Shape" not in ops(model)
    assert_same(before, model)


def test_the_score_scale_moves_into_the_query():
    model = attention()
    linear_to_gemm(model)
    assert fold_score_scale(model) == 1  # the query is read twice here, so the key takes it
    assert_same(attention(), model)
    single = ATTENTION.replace("o = MatMul (p, q)", "o = MatMul (p, v)").replace(
        "q = Transpose", "v2 = Reshape (x, heads) v = Transpose <perm=[0,2,1,3]> (v2) q = Transpose"
    )
    weights = {
        "wq": normal(8, 8, seed=1),
        "wk": normal(8, 8, seed=2),
        "bq": normal(8, seed=3),
        "bk": normal(8, seed=4),
    }
    shapes = {"heads": np.array([0, 0, 2, 4]), "whole": np.array([0, 0, 8])}
    before = graph(single, **weights, **shapes, root=np.float32(2))
    model = prepare(before)
    assert "Div" not in ops(model)
    assert_same(before, model)
    gemm = next(n for n in model.graph if n.op_type == "Gemm")
    np.testing.assert_array_equal(constant(gemm.inputs[1]), weights["wq"].T / 2)
