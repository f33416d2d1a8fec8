"""One road: how often a quantization decides where integers go and copies the graph; a stage serves many recipes."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import eightbit as eb
from eightbit.graph.prepare.fold import prepare
from eightbit.quant import quantize, stage
from eightbit.quant.choose.recipe import FLOAT, Activations, Recipe, Weights
from tests.graph.graphs import graph, normal

# Equalized (r), smoothed (behind n), and with a sum (t) whose outlier no eight bits hold: every detour of the road.
BODY = """g (float[N,3,8,8] x) => (float[N,64,6] y) {
    a = Conv <kernel_shape=[1,1]> (x, w1, b1)
    r = Relu (a)
    c = Conv <kernel_shape=[1,1]> (r, w2, b2)
    shape = Constant <value_ints=[0, 64, 4]> ()
    e = Reshape (c, shape)
    s = MatMul (e, w3)
    t = Add (s, e)
    n = LayerNormalization (t, gain, shift)
    y = MatMul (n, w4)
}"""
DATA = normal(8, 3, 8, 8, seed=3)
DATA[3, :, 2, 5] = 250


def network() -> ir.Model:
    shapes = {
        "w1": (6, 3, 1, 1),
        "b1": (6,),
        "w2": (4, 6, 1, 1),
        "b2": (4,),
        "w4": (4, 6),
        "shift": (4,),
        "w3": (4, 4),
    }
    weights = {name: normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    return prepare(graph(BODY, **weights, gain=1 + normal(4) ** 2))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often placement is asked, by whom of it, and how often a graph is copied."""
    calls: Counter[str] = Counter()

    def count(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: object, **kw: object) -> object:
            calls[name] += 1
            return original(*args, **kw)

        monkeypatch.setattr(owner, name, call)

    for name in ("capable", "chosen"):
        owners = [
            m
            for key, m in list(sys.modules.items())
            if key.startswith("eightbit.") and callable(getattr(m, name, None))
        ]
        assert stage in owners
        for owner in owners:
            count(owner, name)
    count(ir.Model, "clone")
    return calls


@pytest.mark.parametrize("recipe", [Recipe(), Recipe.plain(), Recipe(overrides={"r": FLOAT})], ids=str)
def test_a_static_quantization_places_at_most_twice_and_copies_twice(
    recipe: Recipe, counted: Counter[str]
) -> None:
    model = network()
    counted.clear()
    _, placement, _ = quantize.quantize_graph(model, DATA, recipe)
    assert counted["clone"] == 2
    assert 1 <= counted["chosen"] <= 2
    assert 1 <= counted["capable"] <= 2
    if recipe == Recipe():
        assert [i.op for i in placement.islands if "outliers" in i.reason] == ["Add"]
        assert (counted["chosen"], counted["capable"]) == (2, 2)  # every detour was taken


@pytest.mark.parametrize(
    "recipe", [Recipe(activations=FLOAT), Recipe(activations=Activations(dynamic=True))], ids=str
)
def test_other_recipes_go_the_same_road(recipe: Recipe, counted: Counter[str]) -> None:
    model = network()
    counted.clear()
    quantize.quantize_graph(model, DATA, recipe)
    assert counted == {"clone": 2, "chosen": 1, "capable": 2 if recipe.dynamic else 1}


def test_the_float_graph_is_left_alone_and_calls_do_not_differ() -> None:
    model = network()
    before = ir.to_proto(model).SerializeToString()
    graphs = [quantize.quantize_graph(model, DATA, Recipe())[0] for _ in range(2)]
    assert ir.to_proto(model).SerializeToString() == before
    first, second = (ir.to_proto(g).SerializeToString(deterministic=True) for g in graphs)
    assert first == second


def test_a_stage_finishes_many_recipes_each_as_if_it_were_the_only_one() -> None:
    base = Recipe()
    staged = stage.stage(network(), DATA, base.settled(True))
    for weights in (Weights(), Weights(bits=4), Weights()):
        recipe = replace(base, weights=weights)
        alone = quantize.quantize_graph(network(), DATA, recipe)[0]
        found = quantize.finish(staged, recipe, DATA)[0]
        one, other = (ir.to_proto(g).SerializeToString(deterministic=True) for g in (alone, found))
        assert one == other


def test_the_road_fits_on_a_page() -> None:
    lines = Path(str(quantize.__file__)).read_text().splitlines()
    assert len(lines) <= 150


def test_the_road_ends_in_equal_engines() -> None:
    q = eb.quantize(eb.Model(network()), DATA)
    np.testing.assert_array_equal(q(DATA), q.run(DATA, engine="numpy"))
