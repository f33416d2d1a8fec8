"""Where codes end and begin again: ops that nothing integer reads, and functions that several nodes spell out."""

import re

import numpy as np
import pytest

from eightbit.arith.affine import dequantize
from eightbit.deploy.sessions import run_island
from eightbit.graph.run import FloatSession
from eightbit.integer.engine import run
from eightbit.integer.lower import lower
from eightbit.integer.program import Lookup
from eightbit.quant.choose.recipe import Activations, Recipe
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
    "clamped": "b = Mul (a, half) h = Clip (b, one, six)",
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


@pytest.mark.parametrize(
    ("body", "absorbed"),
    [
        ("a = Conv (x, w) r = Relu (a) h = Mul (r, r) y = Conv (h, w)", {"r": "a"}),
        ("a = Conv (x, w) h = Mul (a, a) r = Relu (h) y = Conv (r, w)", {"r": "h"}),
    ],
)
def test_a_clamp_saturates_where_a_layer_or_a_single_op_is_before_it(body, absorbed):
    q, placement, params = quantize_graph(network(body, w=normal(4, 4, 1, 1)), DATA, Recipe.plain())
    assert placement.absorbed == absorbed
    assert len(params) == 4
    assert_engines_agree(q)


def spectrum(body):
    """A filter of a signal that is loud in one channel and quiet in the others, and what reads it."""
    w = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
    signal = DATA * np.array([1, 1e-3, 1e-3, 1e-3], np.float32).reshape(1, 4, 1, 1)
    model = network(body, w=w, one=np.float32(1e-9), axis=np.array([1]))
    return quantize_graph(model, signal, Recipe())


@pytest.mark.parametrize(
    ("body", "floats"),
    [
        ("a = Conv (x, w) s = Mul (a, a) p = Add (s, one) l = Log (p) y = Conv (l, w)", {"a"}),
        ("b = Conv (x, w) a = Conv (b, w) s = Abs (a) l = Sqrt (s) y = Conv (l, w)", {"a", "b"}),
        ("a = Conv (x, w) s = Abs (a) p = Add (s, one) l = Div (x, p) y = Conv (l, w)", {"a"}),
        ("a = Conv (x, w) r = Relu (a) l = Sqrt (r) y = Conv (l, w)", {"a"}),
        ("a = Conv (x, w) s = Mul (a, a) l = Tanh (s) y = Conv (l, w)", set()),
        (
            "a = Conv (x, w) s = Mul (a, a) p = ReduceMean (s, axis) l = Sqrt (p) m = Mul (a, l) y = Conv (m, w)",
            set(),
        ),
    ],
)
def test_what_a_root_or_a_logarithm_reads_keeps_its_small_numbers(body, floats):
    _, placement, _ = spectrum(body)
    kept = {i.node: i.reason for i in placement.islands if i.op == "Conv"}
    assert set(kept) == floats
    assert all("would be zero in codes" in why or "which is in float" in why for why in kept.values())


SPAN = np.linspace(-12, 12, 8 * 4 * 8 * 8, dtype=np.float32).reshape(8, 4, 8, 8)


@pytest.mark.parametrize(
    ("body", "lowest", "highest"),
    [
        ("h = HardSwish (a) y = Conv (h, w)", -3, 12),
        (
            "b = Add (a, three) c = Clip (b, zero, six) d = Mul (a, c) h = Div (d, six) y = Conv (h, w)",
            -3,
            12,
        ),
        ("h = HardSigmoid (a) y = Conv (h, w)", -2.5, 2.5),
        ("h = Sigmoid (a) y = Conv (h, w)", -7, 7),
        ("h = Tanh (a) m = MaxPool <kernel_shape=[1,1]> (a) s = Add (h, m) y = Conv (s, w)", -12, 12),
        ("h = Abs (a) y = Conv (h, w)", -12, 12),
    ],
)
def test_no_codes_for_what_the_reader_does_not_tell_apart(body, lowest, highest):
    w = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
    model = network(
        f"a = Conv (x, w) {body}", w=w, zero=np.float32(0), three=np.float32(3), six=np.float32(6)
    )
    q, _, params = quantize_graph(model, SPAN, Recipe(equalize=False))
    lo, hi = dequantize([0, 255], params["a"])
    assert lo == pytest.approx(lowest, abs=0.4)
    assert hi == pytest.approx(highest, abs=0.4)
    assert_engines_agree(q)


def test_the_largest_is_not_cut_off_where_it_alone_is_read():
    x = np.abs(normal(8, 4, 8, 8, seed=1))
    x[0, 0, 0, 0] = 40
    w = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
    for last, kept in (("GlobalMaxPool", True), ("GlobalAveragePool", False)):
        model = network(f"a = Conv (x, w) s = Mul (a, a) m = {last} (s) y = Conv (m, w)", w=w)
        _, _, params = quantize_graph(model, x, Recipe(activations=Activations(bits=4), equalize=False))
        assert (dequantize(15, params["a"]) > 39) == kept


@pytest.mark.parametrize(
    ("body", "coded"),
    [
        ("b = Mul (x, half) c = Add (b, one) l = LayerNormalization (c, ones) y = Conv (l, w)", ["l", "y"]),
        ("b = Mul (x, half) c = Add (b, one) y = Conv (c, w)", ["c", "x", "y"]),
        (
            "b = Mul (x, half) c = Add (b, one) l = LayerNormalization (c, ones) a = Conv (b, w) y = Add (a, l)",
            ["a", "b", "l", "x", "y"],
        ),
    ],
)
def test_a_function_that_only_float_nodes_read_gives_its_input_no_codes(body, coded):
    constants = {"w": normal(4, 4, 1, 1), "one": np.float32(1), "half": np.float32(0.5), "ones": np.ones(8)}
    constants["ones"] = constants["ones"].astype(np.float32)
    q, placement, params = quantize_graph(network(body, **constants), DATA, Recipe.plain())
    assert sorted(params) == coded
    told = {i.node for i in placement.islands if "only float nodes read it" in i.reason}
    assert told == ({"c"} | ({"b"} - {*coded}) if "l" in coded else set())
    assert_engines_agree(q)


def detector(body, scores=1.0):
    """Boxes of some hundred pixels in four channels, scores from 0 to `scores` in the others, and how they go on."""
    constants = {"w": normal(4, 4, 1, 1), "u": normal(2, 4, 1, 1, seed=2)}
    constants |= {
        "v": normal(4, 6, 1, 1),
        "pixels": np.float32(300),
        "share": np.float32(scores),
        "rows": np.array([0, 6, 64]),
    }
    head = "a = Conv (x, w) t = Sigmoid (a) b = Mul (t, pixels) c = Conv (x, u) p = Sigmoid (c) s = Mul (p, share)"
    return network(f"{head} {body}", **constants)


@pytest.mark.parametrize(
    ("body", "scores", "joined"),
    [
        ("y = Concat <axis=1> (b, s)", 1, False),
        ("j = Concat <axis=1> (b, s) y = Transpose <perm=[0,2,3,1]> (j)", 1, False),
        ("j = Concat <axis=1> (b, s) r = Reshape (j, rows) y = Concat <axis=2> (r, r)", 1, False),
        ("y = Concat <axis=1> (b, s)", 100, True),
        ("j = Concat <axis=1> (b, s) y = Conv (j, v)", 1, True),
    ],
)
def test_scores_are_not_joined_with_boxes_in_codes_of_one_range(body, scores, joined):
    model = detector(body, scores)
    q, placement, _ = quantize_graph(model, DATA, Recipe(equalize=False))
    node = "j" if "j =" in body else "y"
    reasons = {i.node: i.reason for i in placement.islands}
    assert (node in placement.integer) == joined
    assert ("would keep" in reasons.get(node, "") and "'s'" in reasons[node]) != joined
    assert_engines_agree(q)
