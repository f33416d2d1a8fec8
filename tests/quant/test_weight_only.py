"""Weights as codes, activations in float: what the graph holds, and that every engine computes the same from it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import eightbit as eb
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.graph.model import constant
from eightbit.graph.prepare.fold import prepare
from eightbit.graph.run import FloatSession
from eightbit.integer.program import FloatIsland
from eightbit.quant.choose.recipe import (
    FLOAT,
    Activations,
    PerChannel,
    PerGroup,
    PerTensor,
    Recipe,
    Weights,
)
from eightbit.quant.choose.recipe_file import parse_recipe
from eightbit.quant.encode.sequential import SCALES
from eightbit.quant.encode.weights import encode_layer, steps_of
from eightbit.quant.methods.rounding import GPTQ, AdaRound, Nearest
from eightbit.quant.observe import moments
from eightbit.quant.observe.layout import Layout
from eightbit.quant.observe.moments import PATCHES, Moments, layer_moments
from eightbit.quant.quantize import quantize_graph
from tests.graph.graphs import graph, normal

BODY = """g (float[N,5,6,6] x) => (float[N,4] y) {
    a = Conv <pads=[1,1,1,1], kernel_shape=[3,3]> (x, w1, b1)
    r = Relu (a)
    d = Conv <group=8, kernel_shape=[3,3]> (r, w2)
    m = GlobalAveragePool (d)
    f = Flatten <axis=1> (m)
    g = Gemm (f, w3, b3)
    h = Relu (g)
    y = MatMul (h, w4)
}"""
CONSTANTS = {
    "w1": normal(8, 5, 3, 3),
    "b1": normal(8),
    "w2": normal(8, 1, 3, 3, seed=2),
    "w3": normal(8, 70, seed=3),
    "b3": normal(70),
    "w4": normal(70, 4, seed=4),
}
DATA = np.abs(normal(6, 5, 6, 6, seed=9))


def network():
    return prepare(graph(BODY, **CONSTANTS))


def quantized(weights, **options):
    recipe = Recipe(weights, activations=FLOAT, **options)
    return eb.QuantizedModel(quantize_graph(network(), DATA, recipe)[0])


def noise(q):
    exact = FloatSession(network()).run({"x": DATA})["y"]
    return float(((q(DATA) - exact) ** 2).sum() / (exact**2).sum())


CHOICES = [PerTensor(), PerChannel(), PerGroup(4), PerGroup(32), PerGroup(1000)]


@pytest.mark.parametrize("granularity", CHOICES, ids=str)
@pytest.mark.parametrize(
    "rounding", [Nearest(), GPTQ(), AdaRound(iterations=50)], ids=lambda r: type(r).__name__
)
def test_the_graph_is_valid_and_holds_codes_and_float_activations(granularity, rounding):
    q = quantized(Weights(bits=4, granularity=granularity, rounding=rounding))
    onnx.checker.check_model(ir.to_proto(q.ir), full_check=True)
    assert not any(node.op_type == "QuantizeLinear" for node in q.ir.graph)
    codes = {
        n.removesuffix("_q"): v.const_value.numpy()
        for n, v in q.ir.graph.initializers.items()
        if n.endswith("_q")
    }
    assert len(codes) == 4
    for array in codes.values():
        assert array.dtype == np.int8
        assert np.abs(array).max() <= 7
    assert not any(
        v.dtype == ir.DataType.FLOAT and v.const_value.size >= CONSTANTS["w2"].size and not n.endswith("_s")
        for n, v in q.ir.graph.initializers.items()
        if n not in ("b3", "b1")
    )


@pytest.mark.parametrize("granularity", CHOICES, ids=str)
def test_onnx_runtime_computes_with_the_dequantized_weights(granularity):
    """Against the float network whose weights are codes times scales, written down apart from the QDQ graph."""
    choice = Weights(bits=4, granularity=granularity, rounding=Nearest())
    model = network()
    for node in model.graph:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            weight = node.inputs[1].const_value.numpy()
            layout = Layout.of(node)
            layer = encode_layer(weight, None, layout, input_scale=None, recipe=Recipe(choice, FLOAT))
            rows = layout.rows(layer.weight)
            back = (rows * steps_of(layer.scale, layer.group, rows.shape)).astype(np.float32)
            node.inputs[1].const_value = ir.tensor(layout.weight(back, weight.shape))
    # The same float32 products, summed in another order: some ulps of numbers around 100.
    np.testing.assert_allclose(
        quantized(choice, bias_correction=False)(DATA),
        FloatSession(model).run({"x": DATA})["y"],
        rtol=1e-5,
        atol=2e-4,
    )


@pytest.mark.parametrize("granularity", CHOICES, ids=str)
def test_the_engine_names_the_float_parts_and_computes_the_same(granularity):
    q = quantized(Weights(bits=4, granularity=granularity))
    assert {type(op) for op in q.program.ops} == {FloatIsland}
    np.testing.assert_array_equal(q.run(DATA, engine="numpy"), q(DATA))


def test_products_are_taken_in_float_and_not_with_rounded_activations():
    """ONNX Runtime's default for a MatMul with quantized weights rounds its activations to eight bits."""
    weight, x = normal(128, 64), normal(4, 128, seed=5)
    model = prepare(graph("g (float[B,N,128] x) => (float[B,N,64] y) { y = MatMul (x, w) }", w=weight))
    q, _, _ = quantize_graph(model, None, Recipe(Weights(bits=8), activations=FLOAT))
    scale = np.abs(weight).max(axis=0) / np.float32(127)
    back = np.rint(weight / scale) * scale
    y = eb.QuantizedModel(q)(x[None])[0]
    # 128 products of size one in float32, in another order: some 1e-5; eight-bit activations would err by 0.1.
    np.testing.assert_allclose(y, x @ back, rtol=0, atol=1e-4)


def test_finer_scales_lose_less():
    found = [
        noise(quantized(Weights(bits=4, granularity=g, rounding=Nearest()), bias_correction=False))
        for g in (PerTensor(), PerChannel(), PerGroup(4))
    ]
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("granularity", [PerChannel(), PerGroup(4)], ids=str)
def test_every_width_is_half_a_step_from_the_weights(bits, granularity):
    choice = Weights(bits=bits, granularity=granularity)
    weight = CONSTANTS["w1"]
    layer = encode_layer(weight, None, Layout(0), input_scale=None, recipe=Recipe(choice, FLOAT))
    assert np.abs(layer.weight).max() == 2 ** (bits - 1) - 1
    rows = weight.reshape(1, 8, -1)
    steps = steps_of(layer.scale, layer.group, rows.shape)
    error = np.abs(layer.weight.reshape(rows.shape) * steps - rows)
    # Half a step, and an ulp of the float32 scale for each of up to 127 steps.
    assert (error <= steps * (0.5 + 127 * 2**-23)).all()


def test_gptq_in_groups_lowers_the_layers_output_error():
    model = network()
    node = next(iter(model.graph))
    node.name = "c"
    layout, weight = Layout.of(node), CONSTANTS["w1"]
    moments = layer_moments(model, ("c",), DATA)["c"]
    found = []
    for rounding in (Nearest(), GPTQ()):
        recipe = Recipe(Weights(bits=3, granularity=PerGroup(15), rounding=rounding), FLOAT)
        layer = encode_layer(weight, None, layout, input_scale=None, recipe=recipe, moments=moments)
        rows = layout.rows(layer.weight)
        error = rows * steps_of(layer.scale, layer.group, rows.shape) - layout.rows(weight)
        found.append(float(((error @ layout.positions(DATA)) ** 2).sum()))
    assert found[1] < 0.7 * found[0]


def test_bias_correction_moves_the_float_bias_of_convolutions_and_gemms():
    plain, fixed = (quantized(Weights(bits=3), bias_correction=c) for c in (False, True))
    assert noise(fixed) < noise(plain)
    convs = [node for node in fixed.ir.graph if node.op_type == "Conv"]
    assert all(node.inputs[2].const_value.dtype == ir.DataType.FLOAT for node in convs)  # also where none was
    np.testing.assert_array_equal(fixed.run(DATA, engine="numpy"), fixed(DATA))


def test_rounding_looks_at_the_spread_of_inputs_where_the_bias_takes_up_the_mean():
    model = network()
    node = next(iter(model.graph))
    node.name = "c"
    layout, weight, offset = Layout.of(node), CONSTANTS["w1"], DATA + 5
    moments = layer_moments(model, ("c",), offset)["c"]
    layer = encode_layer(
        weight,
        None,
        layout,
        input_scale=None,
        recipe=Recipe(Weights(bits=3), FLOAT).settled(True),
        moments=moments,
        centred=True,
    )
    rows = layout.rows(weight)
    steps = steps_of(layer.scale, None, rows.shape)
    other = GPTQ().codes(rows, steps, Weights(bits=3).itype, moments.hessian) * steps
    positions = layout.positions(offset)
    noise = [
        float(((w - rows) @ positions).var(axis=2).sum()) for w in (layout.rows(layer.weight) * steps, other)
    ]
    assert noise[0] < 0.9 * noise[1]


def test_centred_moments_are_those_of_what_lies_around_the_mean():
    model = network()
    next(iter(model.graph)).name = "c"
    layout = Layout.of(next(iter(model.graph)))
    constant = np.broadcast_to(DATA[:1, :, :1, :1], DATA.shape).copy()
    for data in (DATA + 3, constant):
        found = layer_moments(model, ("c",), data)["c"]
        x = layout.positions(data, thin=PATCHES).astype(np.float64)
        expected = (x - x.mean(axis=2, keepdims=True)) @ (x - x.mean(axis=2, keepdims=True)).transpose(
            0, 2, 1
        )
        # Half of K / N of the mean spread is added to every direction, for what few data do not say.
        expected += 0.5 * np.einsum("gkk->g", expected)[:, None, None] / found.count * np.eye(x.shape[1])
        # Sums in float32 and the floor of 1e-5 on the diagonal: parts of the moments around zero.
        np.testing.assert_allclose(found.centred, expected, atol=2e-5 * np.abs(found.hessian).max())
        assert np.linalg.eigvalsh(found.centred).min() > 0


def test_few_data_do_not_lead_rounding_astray(monkeypatch):
    """40 positions for 96 inputs: what they do not span must not take up the errors of what they do."""
    rng = np.random.default_rng(7)
    weight, mixing = rng.normal(size=(32, 96)).astype(np.float32), rng.normal(size=(96, 96))
    few, many = ((mixing @ rng.normal(size=(96, n))).astype(np.float32)[None] for n in (40, 4000))
    recipe = Recipe(Weights(bits=4), FLOAT).settled(True)

    def noise(recipe, moments, parts):
        layer = encode_layer(
            weight,
            None,
            Layout(0),
            input_scale=None,
            recipe=recipe,
            moments=moments,
            centred=True,
            parts=parts,
        )
        return float((((layer.weight * layer.scale[:, None] - weight) @ many[0]).var(axis=1)).sum())

    nearest = noise(Recipe(Weights(bits=4, rounding=Nearest()), FLOAT, bias_correction=False), None, (1.0,))
    assert noise(recipe, Moments.of(few), SCALES) < nearest
    assert noise(recipe, Moments.of(many), SCALES) < 0.7 * nearest
    monkeypatch.setattr(moments, "SHRINK", 0.0)
    assert noise(recipe, Moments.of(few), SCALES) > nearest


def test_with_few_bits_each_layer_makes_up_for_those_before_it(monkeypatch):
    data, unseen = (np.abs(normal(n, 5, 6, 6, seed=n)) for n in (200, 100))
    recipe = Recipe(Weights(bits=2), FLOAT)
    exact = FloatSession(network()).run({"x": unseen})["y"]

    def answers(calibration):
        return eb.QuantizedModel(quantize_graph(network(), calibration, recipe)[0])(unseen)

    one_by_one = answers(data)
    np.testing.assert_array_equal(
        answers(x[None] for x in data), one_by_one
    )  # read once, walked through often
    monkeypatch.setattr(Recipe, "sequential", False)
    assert ((one_by_one - exact) ** 2).sum() < 0.6 * ((answers(data) - exact) ** 2).sum()


def test_overrides_hold_where_layers_are_rounded_one_after_another():
    name = str(next(node.name for node in network().graph if node.op_type == "Gemm"))
    recipe = Recipe(Weights(bits=2), FLOAT, overrides={name: eb.Layer(weights=Weights(bits=8))})
    found = quantize_graph(network(), DATA, recipe)[0]
    peaks = {
        node.name: int(np.abs(constant(node.inputs[0])).max())
        for node in found.graph
        if node.inputs[0].is_initializer()
    }
    assert sorted(peaks.values()) == [1, 1, 1, 127]


def test_layers_are_rounded_one_after_another_where_it_is_worth_the_time():
    assert Recipe(Weights(bits=4), FLOAT).settled(True).sequential
    assert not Recipe(Weights(bits=5), FLOAT).settled(True).sequential
    assert not Recipe(Weights(bits=4), FLOAT).settled(False).sequential
    assert Recipe(Weights(bits=4)).settled(True).sequential
    assert Recipe(Weights(bits=3)).settled(True).sequential
    assert Recipe(activations=Activations(bits=4)).settled(True).sequential
    assert not Recipe(Weights(bits=2)).settled(True).sequential
    assert Recipe(Weights(bits=2), FLOAT).settled(True).sequential
    assert Recipe(Weights(bits=2, rounding=GPTQ(in_turn=True))).settled(True).sequential
    assert Recipe(Weights(bits=2, rounding=AdaRound(in_turn=True))).settled(True).sequential
    assert not Recipe(Weights(bits=4, rounding=GPTQ())).settled(True).sequential
    assert not Recipe(Weights(bits=4), bias_correction=False).settled(True).sequential
    assert not Recipe(Weights(bits=4)).settled(False).sequential
    assert not Recipe(Weights(bits=5), Activations(bits=5)).settled(True).sequential
    assert not Recipe(Weights(bits=4), Activations(dynamic=True)).settled(True).sequential
    assert not Recipe(Weights(bits=4), FLOAT, bias_correction=False).settled(True).sequential


def test_an_input_that_says_nothing_leaves_the_weights_as_they_are():
    q = eb.QuantizedModel(quantize_graph(network(), 0 * DATA, Recipe(Weights(bits=4), FLOAT))[0])
    exact = FloatSession(network()).run({"x": 0 * DATA})["y"]
    # The last layer's bias is float and corrected on these very data; its MatMul keeps four bits of each weight.
    np.testing.assert_allclose(q(0 * DATA), exact, atol=0.2 * np.abs(exact).max())


def test_no_data_are_needed_where_none_are_looked_at():
    model = eb.Model(network())
    q = eb.quantize(model, None, Recipe(activations=FLOAT))
    assert "weights quantized" in str(q.report)
    with pytest.raises(CalibrationError):
        eb.quantize(model, None, Recipe(Weights(rounding=GPTQ()), activations=FLOAT))


def test_overrides_keep_whole_layers_in_float():
    model = network()
    name = next(node.name for node in model.graph if node.op_type == "Gemm")
    _, placement, _ = quantize_graph(model, None, Recipe(activations=FLOAT, overrides={name: FLOAT}))
    assert len(placement.layers) == 3
    assert (name, "the recipe keeps it in float") in {(i.node, i.reason) for i in placement.islands}
    with pytest.raises(QuantizationError, match="override 'no such' matches no node"):
        quantize_graph(model, None, Recipe(activations=FLOAT, overrides={"no such": FLOAT}))


def test_what_cannot_be_is_said():
    with pytest.raises(
        QuantizationError, match=r"PerGroup\(size=32\) has no integer kernel: .* activations=FLOAT"
    ):
        Recipe(Weights(granularity=PerGroup()))
    with pytest.raises(QuantizationError, match=r"PerGroup\(size=1\): give an integer of at least 2"):
        PerGroup(1)
    with pytest.raises(QuantizationError, match=r"no layer whose weight could be quantized: .* \(Relu\)"):
        quantize_graph(
            prepare(graph("g (float[N,3] x) => (float[N,3] y) { y = Relu (x) }")),
            None,
            Recipe(activations=FLOAT),
        )
    batched = prepare(
        graph("g (float[2,3,4] x) => (float[2,3,5] y) { y = MatMul (x, w) }", w=normal(2, 4, 5))
    )
    with pytest.raises(
        QuantizationError, match=r"\(MatMul\): its weight has shape \(2, 4, 5\), .* use PerChannel"
    ):
        quantize_graph(batched, None, Recipe(Weights(granularity=PerGroup(2)), activations=FLOAT))


def test_a_recipe_file_can_ask_for_it():
    table = {"activations": "float", "weights": {"bits": 4, "granularity": {"name": "per-group", "size": 64}}}
    assert parse_recipe(table) == Recipe(Weights(bits=4, granularity=PerGroup(64)), activations=FLOAT)
    with pytest.raises(QuantizationError, match=r"\[activations\] is 'none'; a table is needed"):
        parse_recipe({"activations": "none"})


def test_it_can_be_compared_and_inspected():
    q = quantized(Weights(bits=8, granularity=PerGroup(8)))
    report = eb.compare(eb.Model(network()), q, DATA)
    assert report.outputs[0].sqnr_db > 30
    assert report.nodes.integer == 0
    assert {row.bits for row in eb.inspect(q).tensors} == {8}


def test_of_the_parts_of_its_scale_each_row_takes_the_one_with_the_least_output_error():
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(6, 24)).astype(np.float32)
    weight[:3, 0] = 9  # an outlier that no input ever meets: these rows gain by cutting it off
    x = rng.normal(size=(24, 300))
    x[0] *= 1e-3
    moments = Moments((x @ x.T)[None], x.sum(1)[None], 300)
    recipe = Recipe(Weights(bits=4, rounding=GPTQ()), activations=FLOAT, bias_correction=False)
    layout = Layout(axis=0)

    def encoded(parts):
        return encode_layer(
            weight, None, layout, input_scale=None, recipe=recipe, moments=moments, parts=parts
        )

    whole, scanned = encoded((1.0,)), encoded((1.0, 0.25))
    assert (scanned.scale[:3] < 0.3 * whole.scale[:3]).all() and (scanned.scale[3:] <= whole.scale[3:]).all()

    def errors(layer):
        e = layer.weight * layer.scale[:, None] - weight
        return ((e @ (x @ x.T)) * e).sum(1)

    assert (errors(scanned) <= errors(whole) * 1.0001).all()
    assert (errors(scanned)[:3] < 0.5 * errors(whole)[:3]).all()
