"""Layer after layer, in one pass through the network: the same as with the whole network run for every layer."""

import numpy as np
import pytest

from eightbit.errors import CalibrationError
from eightbit.graph.model import constant, input_at, set_constant
from eightbit.graph.prepare.fold import prepare
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples
from eightbit.quant.choose.recipe import FLOAT, PerGroup, Recipe, Weights
from eightbit.quant.encode import sequential, walk
from eightbit.quant.encode.sequential import PULL, SCALES, sequential_layers
from eightbit.quant.encode.weights import encode_layer, steps_of
from eightbit.quant.observe.layout import Layout
from eightbit.quant.observe.moments import FLOOR, PATCHES, SHRINK, Moments
from tests.graph.graphs import graph, normal

BODY = """g (float[N,5,6,6] x) => (float[N,4] y) {
    a = Conv <pads=[1,1,1,1], kernel_shape=[3,3]> (x, w1, b1)
    r = Relu (a)
    s = Conv <kernel_shape=[1,1]> (r, w2)
    d = Conv <pads=[1,1,1,1], group=8, kernel_shape=[3,3]> (r, w3)
    e = Add (d, s)
    m = GlobalAveragePool (e)
    f = Flatten <axis=1> (m)
    g = Gemm (f, w4, b4)
    h = Relu (g)
    y = MatMul (h, w5)
}"""
CONSTANTS = {
    "w1": normal(8, 5, 3, 3),
    "b1": normal(8),
    "w2": normal(8, 8, 1, 1, seed=1),
    "w3": normal(8, 1, 3, 3, seed=2),
    "w4": normal(8, 20, seed=3),
    "b4": normal(20),
    "w5": normal(20, 4, seed=4),
}
DATA = np.abs(normal(60, 5, 6, 6, seed=9))


def network():
    return prepare(graph(BODY, **CONSTANTS))


def layers_of(model):
    return tuple(str(node.name) for node in model.graph if node.op_type in ("Conv", "Gemm", "MatMul"))


def positions(model, node, data):
    """The vectors that a layer's weights meet, (G, K, N), from the whole network."""
    name = str(node.inputs[0].name)
    session, layout = FloatSession(model, [name]), Layout.of(node)
    found = [
        layout.positions(session.run(sample)[name], thin=PATCHES)
        for sample in samples(model, data, CalibrationError)
    ]
    return np.concatenate(found, axis=2).astype(np.float64)


def one_by_one(model, data, recipe):
    """The module's equation written down for one layer at a time, everything computed anew for each."""
    work, encoded = model.clone(), {}
    for node, copy in zip(model.graph, work.graph, strict=True):
        if node.name not in layers_of(model):
            continue
        x, seen = positions(model, node, data), positions(work, copy, data)
        layout, weight, bias = Layout.of(node), constant(node.inputs[1]), constant(input_at(node, 2))
        rows = layout.rows(weight).astype(np.float64)
        mean, mean_seen = x.mean(axis=2), seen.mean(axis=2)
        moments = Moments(np.einsum("gin,gjn->gij", seen, seen), seen.sum(axis=2), seen.shape[2])
        target = rows
        if node.op_type != "MatMul":
            centred = seen - mean_seen[..., None]
            floor = FLOOR * (seen**2).sum(axis=(1, 2)) / rows.shape[2]
            floor += SHRINK * (centred**2).sum(axis=(1, 2)) / seen.shape[2]
            unit = floor[:, None, None] * np.eye(rows.shape[2])
            h = np.einsum("gin,gjn->gij", centred, centred) + unit
            c = np.einsum("gin,gjn->gij", x - mean[..., None], centred) + unit
            pull = PULL * np.einsum("gii->g", h)[:, None, None] / rows.shape[2] * np.eye(rows.shape[2])
            target = rows @ (c + pull) @ np.linalg.inv(h + pull)
            shift = np.einsum("gck,gk->gc", rows, mean) - np.einsum("gck,gk->gc", target, mean_seen)
            bias = ((0 if bias is None else bias.reshape(-1)) + shift.reshape(-1)).astype(np.float32)
        own = recipe if node.op_type != "MatMul" else Recipe(recipe.weights, FLOAT, bias_correction=False)
        layer = encode_layer(
            layout.weight(target, weight.shape).astype(np.float32),
            bias,
            layout,
            input_scale=None,
            recipe=own,
            moments=moments,
            parts=SCALES,
        )
        codes = layout.rows(layer.weight)
        back = layout.weight(codes * steps_of(layer.scale, layer.group, codes.shape), weight.shape)
        set_constant(copy, 1, back.astype(np.float32))
        if layer.bias is not None:
            set_constant(copy, 2, layer.bias, stem="bias")
        encoded[str(node.name)] = layer
    return encoded


@pytest.mark.parametrize("weights", [Weights(bits=4), Weights(bits=3, granularity=PerGroup(4))], ids=str)
@pytest.mark.parametrize("keep", [0, walk.KEPT])
def test_the_codes_are_those_of_the_whole_network_run_for_every_layer(weights, keep, monkeypatch):
    monkeypatch.setattr(sequential, "KEPT", keep)
    model, recipe = network(), Recipe(weights, FLOAT).settled(True)
    found = sequential_layers(model, layers_of(model), DATA, recipe)
    expected = one_by_one(model, DATA, recipe)
    assert found.keys() == expected.keys() == set(layers_of(model))
    for name, layer in expected.items():
        np.testing.assert_array_equal(found[name].weight, layer.weight, err_msg=name)
        # Sums in float32 here, in float64 there. Pooled inputs spread by a tenth of their mean: of the seven digits
        # four to five are left in what is centred, and biases of up to ten have their share of it.
        np.testing.assert_allclose(found[name].scale, layer.scale, rtol=5e-4)
        if layer.bias is not None:
            np.testing.assert_allclose(found[name].bias, layer.bias, rtol=0, atol=1e-2)


def test_the_codes_do_not_depend_on_batches():
    model, recipe = network(), Recipe(Weights(bits=4), FLOAT).settled(True)
    whole = sequential_layers(model, layers_of(model), DATA, recipe)
    cut = sequential_layers(model, layers_of(model), np.split(DATA, [7, 8, 31]), recipe)
    for name, layer in whole.items():
        np.testing.assert_array_equal(cut[name].weight, layer.weight)
        np.testing.assert_array_equal(cut[name].scale, layer.scale)
