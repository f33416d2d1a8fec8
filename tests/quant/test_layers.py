"""One layer at a time: how weights meet inputs, which scale they get, and what becomes of their biases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eightbit as eb
from eightbit.errors import QuantizationError
from eightbit.graph.run import FloatSession
from eightbit.quant.choose.recipe import PerGroup, PerTensor, Recipe, Weights
from eightbit.quant.encode.weights import BIAS_LIMIT, encode_layer, fit_scale
from eightbit.quant.methods.calibrators import MSE
from eightbit.quant.methods.rounding import GPTQ
from eightbit.quant.observe import moments as observed
from eightbit.quant.observe.layout import Layout
from eightbit.quant.observe.moments import Moments, layer_moments
from tests.graph.graphs import graph, normal

CONVS = {
    "dense": ((4, 3, 3, 3), "pads=[1,1,1,1], kernel_shape=[3,3]"),
    "pointwise": ((4, 3, 1, 1), "kernel_shape=[1,1]"),
    "depthwise": ((3, 1, 3, 3), "group=3, pads=[1,1,1,1], kernel_shape=[3,3]"),
    "dilated": ((4, 3, 3, 2), "dilations=[2,1], kernel_shape=[3,2]"),
    "strided, uneven pads": ((4, 3, 3, 3), "strides=[2,3], pads=[0,1,2,0], kernel_shape=[3,3]"),
    "same, of any size": ((4, 3, 3, 4), 'strides=[2,2], auto_pad="SAME_LOWER"'),
}


def conv(shape, attributes):
    size = "H,W" if "auto_pad" in attributes else "9,8"
    return graph(
        f"g (float[N,3,{size}] x) => (float[N,M,P,Q] y) {{ y = Conv <{attributes}> (x, w) }}",
        w=normal(*shape, seed=1),
    )


@pytest.mark.parametrize("case", CONVS)
@pytest.mark.parametrize("batch", [1, 2])
def test_rows_times_positions_is_the_convolution(case, batch):
    model = conv(*CONVS[case])
    node = next(iter(model.graph))
    layout, weight, x = Layout.of(node), normal(*CONVS[case][0], seed=1), normal(batch, 3, 9, 8)
    y = FloatSession(model).run({"x": x})["y"]
    rows = layout.rows(weight)
    product = rows @ layout.positions(x)  # (G, C, batch * positions)
    product = product.reshape(len(rows) * rows.shape[1], batch, *y.shape[2:]).swapaxes(0, 1)
    # Float32 sums of at most 27 terms of size 1 in another order: errors of some 1e-6.
    np.testing.assert_allclose(product, y, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(layout.weight(rows, weight.shape), weight)


@pytest.mark.parametrize(("inputs", "said"), [(40, ()), (41, ("'wide' (41 inputs)",))])
def test_a_layer_too_wide_for_its_moments_is_rounded_to_the_nearest(monkeypatch, inputs, said):
    monkeypatch.setattr("eightbit.quant.encode.layers.WIDE", 40)
    model = graph("g (float[N,K] x) => (float[N,4] y) { y = MatMul (x, w) }", w=normal(inputs, 4))
    next(iter(model.graph)).name = "wide"
    data = normal(64, inputs) @ normal(inputs, inputs, seed=2)  # inputs that depend on one another
    q, nearest = (
        eb.quantize(eb.Model(model), data, recipe)
        for recipe in (eb.Recipe(smooth=False), eb.Recipe(weights=eb.Weights(rounding=eb.Nearest())))
    )
    weights = [next(op.weight for op in each.program.ops if hasattr(op, "weight")) for each in (q, nearest)]
    assert np.array_equal(*weights) == bool(said)
    assert [note.partition(": ")[2] for note in q.report.notes] == list(said)


def test_rows_of_a_gemm_and_a_matmul_are_its_output_channels():
    body = "g (float[N,2,5] x) => (float[N,2,4] y) { y = MatMul (x, w) }"
    weight = normal(5, 4)
    layout = Layout.of(next(iter(graph(body, w=weight).graph)))
    np.testing.assert_array_equal(layout.rows(weight)[0], weight.T)
    np.testing.assert_array_equal(layout.weight(weight.T[None], (5, 4)), weight)
    body = "g (float[N,5] x) => (float[N,4] y) { y = Gemm <transB=1> (x, w) }"
    assert Layout.of(next(iter(graph(body, w=normal(4, 5)).graph))).axis == 0


def test_moments_are_sums_over_all_positions():
    model = conv(*CONVS["dense"])
    node = next(iter(model.graph))
    node.name = "c"
    x = normal(3, 3, 9, 8)
    columns = Layout.of(node).positions(x)[0].astype(np.float64)
    found = layer_moments(model, ("c",), x)["c"]
    assert found.count == columns.shape[1]
    # Sums of 216 products in float32: relative errors of some 1e-6 of the largest.
    np.testing.assert_allclose(found.hessian[0], columns @ columns.T, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.mean[0], columns.mean(axis=1), rtol=0, atol=1e-5)
    halves = [layer_moments(model, ("c",), part)["c"] for part in (x[:1], x[1:])]
    np.testing.assert_allclose((halves[0] + halves[1]).hessian, found.hessian, rtol=0, atol=1e-3)


@pytest.mark.parametrize("case", ["dense", "depthwise"])
@pytest.mark.parametrize("elements", [1, 3000, 2**20])
def test_moments_do_not_depend_on_how_samples_are_taken_together(case, elements, monkeypatch):
    model = conv(*CONVS[case])
    node = next(iter(model.graph))
    node.name = "c"
    x = normal(5, 3, 9, 8)
    columns = Layout.of(node).positions(x).astype(np.float64)
    monkeypatch.setattr(observed, "ELEMENTS", elements)
    found = layer_moments(model, ("c",), x)["c"]
    assert found.count == columns.shape[2]
    # As above.
    np.testing.assert_allclose(found.hessian, columns @ columns.transpose(0, 2, 1), rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.total, columns.sum(axis=2), rtol=0, atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 5, 400])
def test_few_positions_are_distrusted_in_every_direction(count):
    """With N positions of K inputs, half of K / N of the mean spread is added to the spread that was seen."""
    inputs = 6
    x = (normal(2, inputs, count) * np.float32(3) + np.float32(1)).astype(np.float32)
    found = Moments.of(x)
    seen = x.astype(np.float64)
    mean = seen.mean(axis=2)
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=1e-6)
    for g in range(2):
        centred = seen[g] - mean[g][:, None]
        spread = centred @ centred.T
        added = 0.5 * np.trace(spread) / count + 1e-5 * (seen[g] ** 2).sum() / inputs
        # Sums of up to 400 squares of size 10 in float32.
        np.testing.assert_allclose(found.centred[g], spread + added * np.eye(inputs), rtol=1e-4, atol=2e-3)
        assert np.linalg.eigvalsh(found.centred[g]).min() > 0


@pytest.mark.parametrize("case", ["dense", "depthwise", "dilated", "strided, uneven pads"])
def test_thinned_out_positions_are_a_grid_of_them(case):
    layout = Layout.of(next(iter(conv(*CONVS[case]).graph)))
    x = normal(2, 3, 9, 8)
    every = layout.positions(x)
    rows, columns = FloatSession(conv(*CONVS[case])).run({"x": x})["y"].shape[2:]
    grid = every.reshape(*every.shape[:2], 2, rows, columns)
    inputs = every.shape[1]
    np.testing.assert_array_equal(layout.positions(x, thin=1 + rows * columns // inputs), every)
    thinned = layout.positions(x, thin=1)
    n = next(n for n in range(1, 10) if grid[0, 0, 0, ::n, ::n].size <= inputs)
    np.testing.assert_array_equal(thinned, grid[..., ::n, ::n].reshape(*every.shape[:2], -1))
    assert n > 1 or case == "strided, uneven pads"


def encode(weight, bias=None, input_scale=0.01, recipe=None, moments=None, axis=0):
    return encode_layer(
        weight,
        bias,
        Layout(axis),
        input_scale=np.float32(input_scale),
        recipe=recipe or Recipe(),
        moments=moments,
    )


@given(seed=st.integers(0, 100), bits=st.integers(2, 8))
def test_weights_come_back_within_half_a_step(seed, bits):
    weight = normal(5, 7, seed=seed)
    layer = encode(weight, recipe=Recipe(Weights(bits=bits)))
    error = np.abs(layer.weight * layer.scale[:, None] - weight)
    # Half a step, and an ulp of the float32 scale for each of up to 127 steps.
    assert (error <= layer.scale[:, None] * (0.5 + 127 * 2**-23)).all()
    assert (
        np.abs(layer.weight).max(axis=1).tolist() == [2 ** (bits - 1) - 1] * 5
    )  # each channel uses its range


def test_one_scale_for_all_for_each_channel_or_for_each_group():
    weight = np.float32([[1, -2, 4], [100, 50, 0]])
    np.testing.assert_array_equal(fit_scale(weight, Weights()), np.float32([4 / 127, 100 / 127]))
    assert fit_scale(weight, Weights(granularity=PerTensor())) == np.float32(100 / 127)
    groups = fit_scale(
        weight, Weights(granularity=PerGroup(2))
    )  # the dead group has the median of the living
    np.testing.assert_array_equal(groups, np.float32([[2 / 127, 4 / 127], [100 / 127, 4 / 127]]))


def test_the_range_of_weights_is_the_recipes_choice():
    weight = normal(4, 500)
    assert (fit_scale(weight, Weights(bits=4, range=MSE())) < fit_scale(weight, Weights(bits=4))).all()


def test_channel_scales_may_span_six_orders_of_magnitude():
    weight = normal(3, 50) * np.float32([[1e-3], [1.0], [1e3]])
    layer = encode(weight, bias=np.float32([1e-3, 1.0, 1e3]))
    back = layer.weight * layer.scale[:, None]
    noise = ((back - weight) ** 2).sum(axis=1) / (weight**2).sum(axis=1)
    assert (noise < 1e-3).all()


def test_a_dead_channel_keeps_its_bias():
    weight = normal(3, 8)
    weight[1] = 0
    bias = np.float32([0.1, -0.7, 0.2])
    layer = encode(weight, bias)
    assert not layer.weight[1].any()
    # A step of the bias is s_x s_w, some 1e-4 here.
    np.testing.assert_allclose(layer.bias * layer.bias_scale, bias, rtol=0, atol=1e-4)
    all_dead = encode(np.zeros((3, 8), np.float32), bias, input_scale=1e-3)
    np.testing.assert_allclose(all_dead.bias * all_dead.bias_scale, bias, rtol=0, atol=1e-3)


@given(exponent=st.floats(-30, 10))
def test_a_bias_never_overflows_int32(exponent):
    weight = normal(2, 4) * np.float32(10.0**exponent)
    layer = encode(weight, np.float32([3.0, -5.0]), input_scale=1e-4)
    assert (np.abs(layer.bias.astype(np.int64)) <= BIAS_LIMIT + 64).all()  # the scale is rounded to float32
    np.testing.assert_allclose(
        layer.bias * layer.bias_scale, [3, -5], rtol=1e-3, atol=np.max(layer.bias_scale)
    )


@pytest.mark.parametrize("largest", [1e-44, 7e-39, 1e-36, 1e-3])
def test_no_part_of_a_scale_is_too_small_for_float32(largest):
    """Rows of a trained network may be all but zero: seven parts in ten of their scale are no normal number."""
    x = np.random.default_rng(0).standard_normal((1, 5, 40)).astype(np.float32)
    weight = (normal(3, 5) * np.float32(largest)).astype(np.float32)
    layer = encode_layer(
        weight,
        None,
        Layout.of(next(iter(conv((3, 5, 1, 1), "kernel_shape=[1,1]").graph))),
        input_scale=np.float32(2.1),
        recipe=Recipe(Weights(rounding=GPTQ())),
        moments=Moments.of(x),
        parts=(1.0, 0.7, 0.5),
    )
    assert (layer.scale >= np.finfo(np.float32).tiny).all()


def test_bias_correction_restores_the_mean_output():
    model = conv(*CONVS["dense"])
    next(iter(model.graph)).name = "c"
    weight, x = normal(*CONVS["dense"][0], seed=1), np.abs(normal(4, 3, 9, 8))
    layout = Layout.of(next(iter(model.graph)))
    moments = layer_moments(model, ("c",), x)["c"]
    kept = {"input_scale": np.float32(0.01), "moments": moments}
    coarse = Weights(bits=3)
    zero = np.zeros(4, np.float32)
    plain = encode_layer(weight, zero, layout, recipe=Recipe(coarse), **kept)
    fixed = encode_layer(weight, None, layout, recipe=Recipe(coarse, bias_correction=True), **kept)

    def mean_error(layer):
        steps = layer.scale[:, None]
        out = (layout.rows(layer.weight)[0] * steps) @ layout.positions(x)[0]
        exact = layout.rows(weight)[0] @ layout.positions(x)[0]
        return (out + (layer.bias * layer.bias_scale)[:, None] - exact).mean(axis=1)

    assert np.abs(mean_error(plain)).max() > 0.05
    # What is left: the rounding of the bias to s_x s_w, at most 0.01 * 0.5 here, and float32 sums.
    assert np.abs(mean_error(fixed)).max() < 0.005


def test_gptq_through_a_layer_lowers_its_output_error():
    model = conv(*CONVS["dense"])
    node = next(iter(model.graph))
    node.name = "c"
    layout, weight, x = Layout.of(node), normal(*CONVS["dense"][0], seed=1), np.abs(normal(4, 3, 9, 8))
    moments = layer_moments(model, ("c",), x)["c"]

    def noise(rounding):
        recipe = Recipe(Weights(bits=4, rounding=rounding))
        layer = encode_layer(weight, None, layout, input_scale=np.float32(1), recipe=recipe, moments=moments)
        error = layout.rows(layer.weight * layer.scale[:, None, None, None] - weight)
        return float(((error @ layout.positions(x)) ** 2).sum())

    assert noise(GPTQ()) < 0.8 * noise(Weights().rounding)  # inputs correlate through their mean only


def test_a_bias_of_another_length_is_named():
    with pytest.raises(
        QuantizationError, match=r"bias has shape \(4,\), while the weight has 3 output channels"
    ):
        encode(normal(3, 2), np.zeros(4, np.float32))


@pytest.mark.parametrize("bits", [1, 17])
def test_bits_outside_two_to_sixteen_are_refused(bits):
    with pytest.raises(QuantizationError, match=rf"Weights\(bits={bits}\): give an integer from 2 to 16"):
        Weights(bits=bits)
