"""The last step of `quantize`: its outputs beside the float ones, and more bits where they are too far apart."""

import warnings
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import eightbit as eb
from eightbit.safety import repair
from eightbit.safety.check import FLOOR, compared
from eightbit.safety.probes import Kind
from tests.graph.graphs import normal, parse

NET = """g (float[N,8] x) => (float[N,6] y, int64[N] label) {
    a = MatMul (x, w1)
    r = Relu (a)
    y = MatMul (r, w2)
    label = ArgMax <axis=1, keepdims=0> (y)
}"""
DATA = normal(24, 8, seed=5)
LOUD = DATA * np.float32([200, *[1] * 7])
"""The first column is two hundred times larger than the others, and says nothing."""


def net(first: float = 1.0) -> eb.Model:
    """The network; the weights of the first column of its input are `first` times normal numbers."""
    w1 = normal(8, 8, seed=1)
    w1[0] *= first
    return eb.load(parse(NET, w1=w1, w2=normal(8, 6, seed=2)))


def check_of(q: eb.QuantizedModel) -> Any:
    assert q.report is not None and q.report.check is not None
    return q.report.check


def proto(q: eb.QuantizedModel) -> bytes:
    return ir.to_proto(q.ir).SerializeToString(deterministic=True)


def test_outputs_above_the_floor_are_stated_and_nothing_else_changes():
    q = eb.quantize(net(), DATA)
    found = check_of(q)
    output, label = found.outputs
    assert (output.name, label.name) == ("y", "label") and found.samples == 8 and found.floor == FLOOR
    exact, coded = net()(DATA[:8])[0], q(DATA[:8])[0]
    expected = 10 * np.log10(np.square(exact).sum() / np.square(exact - coded).sum())
    # The package sums in float64, this test in float32.
    assert output.sqnr_db == pytest.approx(expected, abs=0.01) and output.sqnr_db > FLOOR
    assert label.equal == np.mean(net()(DATA[:8])[1] == q(DATA[:8])[1])
    assert (found.costs, found.remarks) == ((), ())
    assert f"(floor 15 dB): y {output.sqnr_db:.1f} dB, label {label.equal:.1%} equal" in str(found)
    assert "dB" not in str(q.report)
    off = eb.quantize(net(), DATA, check=False)
    assert off.report is not None and off.report.check is None
    assert proto(off) == proto(q)


@pytest.mark.parametrize(
    "calibration",
    [LOUD, [LOUD[:5], LOUD[5:]], (row[None] for row in LOUD)],
    ids=["array", "list", "generator"],
)
def test_the_one_tensor_that_costs_most_gets_16_bits(calibration: Any):
    q = eb.quantize(net(first=0), calibration)
    found = check_of(q)
    assert [(c.kind, c.node) for c in found.costs] == [(Kind.ACTIVATIONS, "x")]
    assert found.before[0].sqnr_db < FLOOR < found.outputs[0].sqnr_db
    assert q.report is not None and q.report.params["x"].itype.bits == 16
    said = f"16 bits for the activations of 'x' ({found.costs[0].sqnr_db:.1f} dB alone); with 8 bits below the floor"
    for text in (found, q.report, eb.inspect(q)):
        assert said in str(text)


@pytest.mark.parametrize("floor", [45.0, 55.0])
def test_the_floor_is_an_argument_and_no_more_is_given_than_it_takes(floor: float):
    found = check_of(eb.quantize(net(), DATA, floor=floor))
    assert not found.low and found.given == "16 bits"
    model = net()
    recipe = eb.Recipe().settled(True)
    fewer = eb.Recipe(overrides=repair._wide(recipe, found.costs[:-1]))
    assert check_of(eb.quantize(model, DATA, fewer, floor=floor)).low


def test_where_16_bits_do_not_reach_it_the_nodes_around_stay_in_float(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(repair, "WIDE", 8)
    q = eb.quantize(net(first=0), LOUD)
    assert check_of(q).given == "float" and not check_of(q).low
    assert q.report is not None
    assert next((i.op, i.reason) for i in q.report.islands) == ("Gemm", "the recipe keeps it in float")


def test_a_floor_out_of_reach_is_a_warning_and_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(repair, "WIDE", 8)
    with pytest.warns(UserWarning, match=r"below the floor of 100 dB .*neither 16 bits nor float") as caught:
        q = eb.quantize(net(), DATA, floor=100)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert str(caught[0].message) in str(q.report)
    assert proto(q) == proto(eb.quantize(net(), DATA, check=False))


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        (eb.Recipe.plain(), True),
        (eb.Recipe(weights=eb.Weights(bits=2)), True),
        (eb.Recipe(overrides={"op:Relu": eb.FLOAT}), True),
        (eb.Recipe(weights=eb.Weights(bits=2), activations=eb.FLOAT), False),
        (eb.Recipe(weights=eb.Weights(bits=2), activations=eb.Activations(dynamic=True)), False),
    ],
    ids=["plain", "two bits", "override", "weights alone", "dynamic"],
)
def test_any_other_recipe_is_carried_out_and_its_cost_is_said(recipe: eb.Recipe, named: bool):
    with warnings.catch_warnings(action="error"):
        q = eb.quantize(net(first=0), LOUD, recipe, floor=90)
    found = check_of(q)
    assert found.low and found.given == "" and bool(found.costs) is named
    assert "below the floor of 90 dB on 8 calibration samples: y" in str(q.report)
    assert ("most of it by" in str(q.report)) is named
    assert proto(q) == proto(eb.quantize(net(first=0), LOUD, recipe, check=False))


def test_without_data_there_is_nothing_to_run_and_a_floor_is_a_number():
    q = eb.quantize(net(), None, eb.Recipe(activations=eb.FLOAT))
    assert str(check_of(q)) == "not checked: without calibration data there is nothing to run"
    with pytest.raises(eb.QuantizationError, match="floor"):
        eb.quantize(net(), DATA, floor=float("nan"))


ONE, MASK = np.float32([[1, 2, 2]]), np.float32([[np.inf, 0, 0]])


@pytest.mark.parametrize(
    ("exact", "found", "said"),
    [
        (ONE, ONE, "y exact"),
        (ONE, ONE + np.float32([[0, 0, 0.3]]), "y 20.0 dB"),
        (np.int64([1, 2, 3, 4]), np.int64([1, 2, 3, 5]), "y 75.0% equal"),
        (np.array([True, False]), np.array([True, False]), "y 100.0% equal"),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), "y 50.0% equal"),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), "y exact"),
        (np.zeros(0, np.int64), np.zeros(0, np.int64), "y 100.0% equal"),
        (ONE - MASK, ONE - MASK, "y exact"),
        (ONE, ONE * np.nan, "y -inf dB"),
        (ONE * np.nan, ONE, "y holds NaN or infinities in the float model"),
        (np.zeros((2, 3), np.int64), np.zeros((1, 3), np.int64), "y has other shapes, (1, 3) for (2, 3)"),
        ([ONE, ONE], [ONE, ONE + np.float32([[0, 0, 0.3]])], "y 23.0 dB"),
    ],
)
def test_what_is_said_of_an_output(exact: Any, found: Any, said: str):
    assert [str(output) for output in compared([{"y": exact}], [{"y": found}])] == [said]
