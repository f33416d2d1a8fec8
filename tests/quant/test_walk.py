"""Tensors found part by part are those of the whole network, whatever is kept on the way."""

import numpy as np
import pytest

import eightbit.quant.encode.walk as walking
from eightbit.errors import CalibrationError
from eightbit.graph.model import constant, set_constant
from eightbit.graph.run import FloatSession
from eightbit.quant.encode.walk import Walk, waves
from tests.graph.graphs import graph, normal

BODY = """g (float[N,4,6,6] x, float[N,1,1,1] gain) => (float[N,3] y) {
    a = Conv <pads=[1,1,1,1], kernel_shape=[3,3]> (x, w1)
    b = Mul (a, gain)
    s = Conv <kernel_shape=[1,1]> (b, w2)
    c = Conv <pads=[1,1,1,1], kernel_shape=[3,3]> (b, w3)
    r = Relu (c)
    d = Conv <pads=[1,1,1,1], kernel_shape=[3,3]> (r, w4)
    e = Add (d, s)
    yes = Constant <value = bool {1}> ()
    f = If (yes) <
        then_branch = then () => (float[N,4,6,6] t) { t = Add (e, x) },
        else_branch = other () => (float[N,4,6,6] u) { u = Identity (e) }
    >
    p = GlobalAveragePool (f)
    h = Flatten <axis=1> (p)
    y = Gemm (h, w5)
}"""
LAYERS = ("n1", "n2", "n3", "n4", "n5")
DATA = {"x": normal(5, 4, 6, 6, seed=8), "gain": normal(5, 1, 1, 1, seed=9)}


def network():
    weights = {f"w{i}": normal(4, 4, k, k, seed=i) for i, k in ((1, 3), (2, 1), (3, 3), (4, 3))}
    model = graph(BODY, **weights, w5=normal(4, 3, seed=5))
    layers = [node for node in model.graph if node.op_type in ("Conv", "Gemm")]
    for name, node in zip(LAYERS, layers, strict=True):
        node.name = name
    return model


def changed(model, names):
    """Half of the weights of the named layers."""
    for node in model.graph:
        if node.name in names:
            set_constant(node, 1, constant(node.inputs[1]) / 2)


def walked(keep, data=DATA):
    """The tensors that a walk finds while the layers behind it change, and those of the whole networks."""
    exact, work = network(), network()
    walk = Walk(exact, work, LAYERS, data, keep=keep)
    for turn, names in enumerate(walk.waves):
        found = list(walk.inputs(turn))
        tensors = list(found[0][0])
        for i, pair in enumerate(found):
            feeds = {name: array[i : i + 1] for name, array in DATA.items()}
            for model, got in zip((exact, work), pair, strict=True):
                yield got, FloatSession(model, tensors).run(feeds)
        changed(work, names)


def test_layers_that_do_not_feed_one_another_go_together():
    assert waves(network(), LAYERS) == (("n1",), ("n2", "n3"), ("n4",), ("n5",))
    assert waves(network(), ("n2", "n5")) == (("n2",), ("n5",))
    assert waves(network(), ()) == ()


@pytest.mark.parametrize("keep", [0, 5000, 2**20])
def test_every_input_is_that_of_the_whole_network(keep):
    compared = 0
    for got, expected in walked(keep):
        assert got.keys() == expected.keys()
        for name, array in expected.items():
            # The same kernels on the same numbers; what is fused at the border of a part may round once more.
            np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-5)
            compared += 1
    assert compared == 4 * 5 * 2


def test_what_is_kept_is_not_computed_again(monkeypatch):
    """A part for each network and wave but the first, whose input is the data's."""
    parts = []

    class Counted(FloatSession):
        def __init__(self, model, *rest):
            parts.append([node.op_type for node in model.graph])
            super().__init__(model, *rest)

    monkeypatch.setattr(walking, "FloatSession", Counted)
    assert list(walked(2**20))
    assert parts[::2] == [
        ["Conv", "Mul"],
        ["Conv", "Relu"],
        ["Conv", "Conv", "Add", "Constant", "If", "GlobalAveragePool", "Flatten"],
    ]
    parts.clear()
    assert list(walked(0))
    # All over again from the data, but for the branch that the third wave does not need.
    assert [len(part) for part in parts[::2]] == [2, 4, 11]


def test_no_more_is_kept_than_allowed():
    exact, work = network(), network()
    walk = Walk(exact, work, LAYERS, DATA, keep=5000)
    for turn in range(len(walk.waves)):
        list(walk.inputs(turn))
        held = walk._held or []
        assert sum(a.nbytes for pair in held for feeds in pair for a in feeds.values()) <= 5000


def test_data_that_do_not_fit_are_named():
    walk = Walk(network(), network(), LAYERS, {"x": DATA["x"]})
    with pytest.raises(CalibrationError, match="gain"):
        list(walk.inputs(0))
