"""Outputs that are joined of parts are judged part by part, by the check and by the probes behind it."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.safety.parts import Joint, apart, joints
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
