"""Outputs that are joined of parts are judged part by part, by the check and by the probes behind it."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.safety.parts import Joint, apart, joints, shares
from tests.graph.graphs import normal, parse

DETECTOR = """g (float[N,8] x) => (float[N,P] y) {
    a = MatMul (x, w)   b = Mul (a, pixels)
    c = MatMul (x, v)   s = Sigmoid (c)
    y = Concat <axis=1> (b, s)
}"""
DATA = normal(24, 8, seed=5)


def detector():
    weights = {"w": normal(8, 4, seed=1), "v": 4 * normal(8, 6, seed=2)}
    return eb.load(parse(DETECTOR, pixels=np.float32(100), **weights))


def test_a_part_is_called_as_numpy_takes_it():
    array = np.arange(2 * 10 * 3).reshape(2, 10, 3)
    parts = Joint(1, 3, (4, 6)).split("y", array)
    assert list(parts) == ["y[:, 0:4]", "y[:, 4:10]"]
    for name, part in parts.items():
        np.testing.assert_array_equal(part, eval(name, {"y": array}))


@pytest.mark.parametrize("shape", [(2, 9, 3), (2, 10), ()])
def test_an_output_of_another_shape_stays_whole(shape):
    array = np.zeros(shape)
    assert Joint(1, 3, (4, 6)).split("y", array)["y"] is array


def test_outputs_that_nothing_joins_stay_whole():
    model = eb.load(parse("g (float[N,8] x) => (float[N,8] y) { y = Relu (x) }"))
    assert joints(model.ir) == {}
    assert apart({"y": 1}, {}) == {"y": 1}


def test_a_part_below_the_floor_is_named_with_what_costs_it_most():
    """With plain ranges the two are one tensor of codes: 37 dB together, and no score is left."""
    model, recipe = detector(), eb.Recipe.plain()
    q = eb.quantize(model, DATA, recipe)
    check = q.report.check
    assert [o.name for o in check.outputs] == ["y[:, 0:4]", "y[:, 4:10]"]
    (low,) = check.low
    assert low.name == "y[:, 4:10]"
    assert check.costs[0].node in ("node_Concat_4", str(model.ir.graph[-1].name))
    error, exact = model(DATA) - q(DATA), model(DATA)
    assert 10 * np.log10(np.square(exact).sum() / np.square(error).sum()) > 30


def test_the_default_recipe_keeps_both_parts():
    q = eb.quantize(detector(), DATA)
    assert not q.report.check.low
    assert min(o.sqnr_db for o in q.report.check.outputs) > 25


def waking(bias):
    """A wake word's network: a layer, and the likelihood of the word."""
    net = "g (float[N,8] x) => (float[N,1] y) { a = Gemm (x, w, b) s = Sigmoid (a) y = Reshape (s, rows) }"
    w = 0.3 * normal(8, 1, seed=3)
    return eb.load(parse(net, w=w, b=np.float32([bias]), rows=np.array([-1, 1])))


def test_a_likelihood_that_is_nothing_is_near_enough_to_another():
    """At a likelihood of 1e-6 codes of 8 bits are some decibels off, and it does not matter."""
    model = waking(-14)
    assert shares(model.ir) == {"y"}
    q = eb.quantize(model, DATA)
    assert not q.report.check.low and not q.report.check.costs
    assert q(DATA).max() < 1e-4


def test_a_likelihood_that_says_something_is_judged_by_itself():
    q = eb.quantize(waking(0), DATA)
    exact, found = waking(0)(DATA[:8]), q(DATA[:8])
    (output,) = q.report.check.outputs
    assert output.sqnr_db == pytest.approx(
        10 * np.log10(np.square(exact).sum() / np.square(exact - found).sum()), abs=0.01
    )


def test_calibration_that_saw_one_flat_end_of_a_function_only():
    """Wake words are rare: all samples may lie where a Sigmoid is flat. This died of "no value was seen"."""
    net = "g (float[N,8] x) => (float[N,2] y) { a = Gemm (x, w, b) s = Sigmoid (a) y = MatMul (s, v) }"
    weights = {"w": 0.1 * normal(8, 4, seed=3), "b": np.full(4, -30, np.float32), "v": normal(4, 2, seed=4)}
    q = eb.quantize(eb.load(parse(net, **weights)), DATA)
    assert np.abs(q(DATA)).max() < 0.1


def test_parts_that_are_shares_are_called_so():
    assert shares(detector().ir) == {"y[:, 4:10]"}


def test_an_output_that_is_handed_out_twice_is_probed_once():
    net = parse("g (float[N,8] x) => (float[N,4] y) { y = MatMul (x, w) }", w=normal(8, 4, seed=1))
    net.graph.output.append(net.graph.output[0])
    model = eb.load(net)
    assert [spec.name for spec in model.outputs] == ["y", "y"]
    assert eb.sensitivity(model, DATA).runs > 0
