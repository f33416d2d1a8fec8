"""Where codes end and begin again: ops that nothing integer reads, and functions that several nodes spell out."""

import re

import numpy as np
import pytest

from eightbit.deploy.sessions import run_island
from eightbit.graph.run import FloatSession
from eightbit.integer.engine import run
from eightbit.integer.lower import lower
from eightbit.integer.program import Lookup
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.quantize import quantize_graph
from tests.graph.graphs import graph, normal

DATA = normal(8, 4, 8, 8, seed=5)


def network(body, **constants):
    """The nodes of `body` from x (N, 4, 8, 8) to y, each called after its output."""
    used = {name: array for name, array in constants.items() if name in re.split(r"\W+", body)}
    model = graph(f"g (float[N,4,8,8] x) => (float[N,M,P,Q] y) {{ {body} }}", **used)
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def assert_engines_agree(q):
    """No number differs between the NumPy engine and ONNX Runtime."""
    mine = run(lower(q), {"x": DATA}, island=run_island)["y"]
    np.testing.assert_array_equal(mine, FloatSession(q).run({"x": DATA})["y"])


@pytest.mark.parametrize(
    ("between", "kept"),
    [
        ("y = LayerNormalization (s, one)", False),
        ("r = Reshape (s, rows) y = LayerNormalization (r, one)", False),
        ("r = Relu (s) y = LayerNormalization (r, one)", False),
        ("p = MaxPool <kernel_shape=[1,1]> (s) q = Mul (p, a) y = LayerNormalization (q, one)", False),
        ("y = Identity (s)", False),
        ("r = Relu (s) y = Conv (r, w)", True),
        ("h = HardSwish (s) y = Conv (h, w)", True),
        ("h = HardSwish (s) y = LayerNormalization (h, one)", False),
        ("g = Sigmoid (s) h = Mul (s, g) y = Conv (h, w)", True),
        ("r = Reshape (s, rows) y = Add (r, r)", True),
    ],
)
def test_an_op_on_activations_runs_on_codes_where_something_uses_them(between, kept):
    constants = {"w": normal(4, 4, 1, 1), "one": np.ones(8, np.float32), "rows": np.array([-1, 4, 8, 8])}
    model = network(f"a = Conv (x, w) s = Mul (a, x) {between}", **constants)
    q, placement, _ = quantize_graph(model, DATA, Recipe.plain())
    assert ("s" in placement.integer) == kept
    assert_engines_agree(q)


SPELLED = {
    "HardSwish": "b = Add (a, three) c = Clip (b, zero, six) d = Mul (a, c) h = Div (d, six)",
    "Gelu": "b = Mul (a, half) c = Erf (b) d = Add (c, one) e = Mul (a, d) h = Mul (e, half)",
    "SiLU": "b = Sigmoid (a) h = Mul (a, b)",
    "cube": "b = Mul (a, a) h = Mul (b, a)",
    "scaled": "b = Div (a, three) h = Add (b, half)",
    "clamped": "b = Mul (a, half) h = Relu (b)",
}


@pytest.mark.parametrize("body", SPELLED.values(), ids=SPELLED)
def test_a_function_spelled_out_in_several_nodes_is_rounded_once(body):
    numbers = {"zero": 0, "half": 0.5, "one": 1, "three": 3, "six": 6}
    constants = {"w": normal(4, 4, 1, 1)} | {name: np.float32(v) for name, v in numbers.items()}
    model = network(f"a = Conv (x, w) {body} y = Conv (h, w)", **constants)
    q, _, params = quantize_graph(model, DATA, Recipe.plain())
    assert sorted(params) == ["a", "h", "x", "y"]
    (table,) = [op for op in lower(q).ops if isinstance(op, Lookup)]
    assert len(table.table) == 256
    assert_engines_agree(q)


def test_a_clamp_behind_a_layer_saturates_where_a_function_begins_behind_it():
    model = network("a = Conv (x, w) r = Relu (a) h = Mul (r, r) y = Conv (h, w)", w=normal(4, 4, 1, 1))
    _, placement, params = quantize_graph(model, DATA, Recipe.plain())
    assert placement.absorbed == {"r": "a"}
    assert sorted(params) == ["h", "r", "x", "y"]
