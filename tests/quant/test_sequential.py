"""Layer after layer, in one pass through the network: the same as with the whole network run for every layer."""

from dataclasses import replace

import numpy as np
import pytest

import eightbit as eb
from eightbit.arith.affine import fake_quantize, quantize, sqnr_db
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.graph.model import constant, input_at, set_constant
from eightbit.graph.prepare.fold import prepare
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples
from eightbit.integer.engine import run
from eightbit.quant.choose.recipe import FLOAT, Activations, PerGroup, Recipe, Weights
from eightbit.quant.encode import layers as encode_layers_module
from eightbit.quant.encode import sequential, walk
from eightbit.quant.encode.rounded import round_activations
from eightbit.quant.encode.sequential import PULL, SCALES, sequential_layers
from eightbit.quant.encode.weights import encode_layer, steps_of
from eightbit.quant.observe.layout import Layout
from eightbit.quant.observe.moments import FLOOR, PATCHES, SHRINK, Moments
from eightbit.quant.quantize import finish, quantize_graph
from eightbit.quant.stage import fitted, stage
from eightbit.quant.stage import placed as staged_placement
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


def placed(model, recipe):
    """Where a recipe puts codes in a model, and the parameters of its activations."""
    staged = stage(model.clone(), DATA, recipe)
    placement = staged_placement(staged, recipe)
    return placement, fitted(staged, placement, recipe)


def one_by_one(model, data, recipe, placement, params):
    """The module's equation written down for one layer at a time, everything computed anew for each."""
    work, encoded = model.clone(), {}
    inputs = round_activations(work, placement, params)
    coded = fake_quantize(data, inputs["x"]) if inputs else data
    copies = {node.name: node for node in work.graph}
    for node in model.graph:
        if node.name not in layers_of(model):
            continue
        copy = copies[node.name]
        x, seen = positions(model, node, data), positions(work, copy, coded)
        layout, weight, bias = Layout.of(node), constant(node.inputs[1]), constant(input_at(node, 2))
        rows = layout.rows(weight).astype(np.float64)
        mean, mean_seen = x.mean(axis=2), seen.mean(axis=2)
        moments = Moments(np.einsum("gin,gjn->gij", seen, seen), seen.sum(axis=2), seen.shape[2])
        target = rows
        # Codes have no room for a Gemm's first bias.
        corrects = node.op_type == "Conv" or (
            node.op_type == "Gemm" and (recipe.weights_only or bias is not None)
        )
        if corrects:
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
        own = recipe if corrects else replace(recipe, bias_correction=False)
        source = placement.sources.get(str(node.inputs[0].name))
        layer = encode_layer(
            layout.weight(target, weight.shape).astype(np.float32),
            bias,
            layout,
            input_scale=None if source is None else params[source].scale,
            recipe=own,
            moments=moments,
            centred=corrects,
            parts=SCALES,
        )
        codes = layout.rows(layer.weight)
        back = layout.weight(codes * steps_of(layer.scale, layer.group, codes.shape), weight.shape)
        set_constant(copy, 1, back.astype(np.float32))
        if layer.bias is not None:
            set_constant(copy, 2, layer.real_bias, stem="bias")
        encoded[str(node.name)] = layer
    return encoded


RECIPES = {
    "weights": Recipe(Weights(bits=4), FLOAT),
    "weights in groups": Recipe(Weights(bits=3, granularity=PerGroup(4)), FLOAT),
    "W4A4": Recipe(Weights(bits=4), Activations(bits=4), equalize=False),
    "W4A8": Recipe(Weights(bits=4), equalize=False),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("keep", [0, walk.KEPT])
def test_the_codes_are_those_of_the_whole_network_run_for_every_layer(recipe, keep, monkeypatch):
    monkeypatch.setattr(sequential, "KEPT", keep)
    model, recipe = network(), recipe.settled(True)
    placement, params = placed(model, recipe)
    found = sequential_layers(model, placement, params, DATA, recipe)
    expected = one_by_one(model, DATA, recipe, placement, params)
    assert found.keys() == expected.keys() == set(layers_of(model))
    for name, layer in expected.items():
        np.testing.assert_array_equal(found[name].weight, layer.weight, err_msg=name)
        # Sums in float32 here, in float64 there. Pooled inputs spread by a tenth of their mean: of the seven digits
        # three to five are left in what is centred, and biases of up to ten have their share of it.
        np.testing.assert_allclose(found[name].scale, layer.scale, rtol=2e-3)
        if layer.bias is not None:
            np.testing.assert_allclose(found[name].real_bias, layer.real_bias, rtol=0, atol=1e-2)


@pytest.mark.parametrize("recipe", [RECIPES["weights"], RECIPES["W4A4"]], ids=str)
def test_the_codes_do_not_depend_on_batches(recipe):
    model, recipe = network(), recipe.settled(True)
    placement, params = placed(model, recipe)
    whole = sequential_layers(model, placement, params, DATA, recipe)
    cut = sequential_layers(model, placement, params, np.split(DATA, [7, 8, 31]), recipe)
    for name, layer in whole.items():
        np.testing.assert_array_equal(cut[name].weight, layer.weight)
        np.testing.assert_array_equal(cut[name].scale, layer.scale)


@pytest.mark.parametrize("bits", [4, 8])
def test_what_layers_see_is_what_they_will_see(bits):
    """The float graph with rounded activations gives the tensors of the integer program, to within rounding."""
    model, recipe = network(), Recipe(Weights(bits=4), Activations(bits=bits), equalize=False).settled(True)
    q = eb.quantize(eb.Model(network()), DATA, recipe, check=False)
    placement, params = placed(model, recipe)
    inputs = round_activations(model, placement, params)
    layers = sequential_layers(network(), placement, params, DATA, recipe)
    for node in model.graph:
        if node.name in layers:
            sequential._replace(node, layers[node.name])
    program = run(q.program, {"x": DATA}, keep=True)
    names = [name for name in placement.observed if name in params and name not in inputs]
    found = FloatSession(model, names).run({"x": fake_quantize(DATA, inputs["x"])})
    assert set(names) == {"r", "s", "d", "e", "m", "h", "y"}
    for name in names:
        codes = quantize(found[name], params[name]).astype(int)
        apart = np.abs(codes - (program[f"{name}_q"].astype(int) + 128))  # int8 inside, uint8 at the border
        # A sum in float32 that lies on a tie goes either way, and so does what follows it.
        assert apart.max() <= 1 and (apart != 0).mean() < 0.01


@pytest.mark.parametrize(("bits", "better"), [((4, 8), 2.0), ((4, 4), 0.5)], ids=["W4A8", "W4A4"])
def test_static_recipes_of_few_bits_gain_by_rounding_on_what_layers_will_see(bits, better, monkeypatch):
    data, unseen = (np.abs(normal(n, 5, 6, 6, seed=n)) for n in (200, 100))
    recipe = Recipe(Weights(bits=bits[0]), Activations(bits=bits[1]))
    exact = FloatSession(network()).run({"x": unseen})["y"]

    def answers():
        q = eb.QuantizedModel(quantize_graph(network(), data, recipe)[0])
        np.testing.assert_array_equal(q(unseen), q.run(unseen, engine="numpy"))
        return sqnr_db(exact, q(unseen))

    one_by_one = answers()
    monkeypatch.setattr(Recipe, "sequential", False)
    assert one_by_one > answers() + better


def test_layers_that_share_a_weight_share_its_codes_and_correct_their_own_biases():
    body = """g (float[N,64] x) => (float[N,64] y) {
        a = Gemm (x, w, b)
        r = Relu (a)
        c = Gemm (r, v, b)
        y = Relu (c)
    }"""
    weight = normal(64, 64, seed=1) / 8
    model = prepare(graph(body, w=weight, v=weight.copy(), b=normal(64)))
    q = eb.quantize(eb.Model(model), normal(300, 64, seed=2), Recipe(Weights(bits=4)), check=False)
    first, second = (op for op in q.program.ops if hasattr(op, "weight"))
    np.testing.assert_array_equal(first.weight, second.weight)
    assert (first.bias != second.bias).any()


def test_a_layer_that_is_too_wide_goes_to_the_nearest_codes_and_the_report_says_so(monkeypatch):
    monkeypatch.setattr(encode_layers_module, "WIDE", 15)
    recipe = Recipe(Weights(bits=4), Activations(bits=4), equalize=False)
    q = eb.quantize(eb.Model(network()), DATA, recipe, check=False)
    assert "rounded to the nearest" in q.report.notes[0] and "45 inputs" in q.report.notes[0]
    wide = next(op for op in q.program.ops if hasattr(op, "weight"))
    scale = np.abs(CONSTANTS["w1"]).max(axis=(1, 2, 3), keepdims=True) / 7
    codes = np.sort(np.abs(np.rint(CONSTANTS["w1"] / scale)).ravel())
    np.testing.assert_array_equal(np.sort(np.abs(wide.weight).ravel()), codes)


def test_the_check_of_a_recipe_of_few_bits_names_what_costs_most():
    q = eb.quantize(eb.Model(network()), DATA, Recipe(Weights(bits=3), Activations(bits=3)), floor=60)
    assert q.report.check.low and q.report.check.costs


def test_finishing_asks_for_the_data_that_layers_are_rounded_on():
    recipe = Recipe(Weights(bits=4)).settled(True)
    with pytest.raises(QuantizationError, match="give them as `data`"):
        finish(stage(network(), DATA, recipe), recipe)
