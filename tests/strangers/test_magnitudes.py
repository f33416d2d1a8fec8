"""Numbers near the ends of float32: weights, inputs and what they multiply to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import eightbit as eb
from eightbit.arith.affine import INT8
from eightbit.quant.encode.correct import corrected_bias
from eightbit.quant.observe.moments import Moments
from tests.strangers.graphs import Feeds, graph, node, normal, weight
from tests.strangers.walk import refused, sqnr_db, walk


def net(first: float, second: float, gain: float, bias: bool = True) -> tuple[onnx.ModelProto, list[Feeds]]:
    """Two convolutions whose weights are of size `first` and `second`, on inputs of size `gain`."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", "x w b" if bias else "x w", "c", pads=[1] * 4),
        node("Relu", "c", "r"),
        node("Conv", "r v", "y", pads=[1] * 4),
    ]
    constants = {
        "w": weight(rng, 4, 3, 3, 3) * np.float32(first),
        "v": weight(rng, 4, 4, 3, 3) * np.float32(second),
        **({"b": normal(rng, 4) * np.float32(first * gain)} if bias else {}),
    }
    model = graph(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]}, constants)
    return model, [{"x": normal(rng, 4, 3, 8, 8) * np.float32(gain)} for _ in range(5)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("first", "second", "gain"),
    [
        *((1e-22, 1, 1), (1e-22, 1e22, 1), (1e-30, 1e30, 1), (1e30, 1, 1), (1e30, 1e-30, 1), (3e37, 1, 1)),
        *((1, 1, 1e18), (1, 1, 1e25), (1, 1, 1e37), (1e-18, 1, 1e18), (1e-30, 1, 1e30), (1, 1, 1e-22)),
    ],
)
def test_what_float32_has_scales_for_keeps_its_decibels(
    first: float, second: float, gain: float, bias: bool, tmp_path: Path
) -> None:
    model, data = net(first, second, gain, bias)
    q = walk(model, data[:4], data[4:], tmp_path, floor=27, recipes=("default",)).quantized["default"]
    assert q.report is not None and not q.report.islands


def test_weights_alone_of_any_size(tmp_path: Path) -> None:
    for gain in (1e-22, 1e25):
        model, data = net(1, 1, gain)
        for bits, least in ((8, 35), (4, 8)):
            recipe = eb.Recipe(activations=eb.FLOAT, weights=eb.Weights(bits=bits))
            report = eb.compare(model, eb.quantize(model, data, recipe), data)
            assert report.outputs[0].sqnr_db > least


TOO_SMALL = "the scales of its two factors multiply to less than float32 holds"


@pytest.mark.parametrize(
    ("first", "second", "gain", "left"),
    [
        (1e-22, 1e-22, 1, {"y_conv": TOO_SMALL}),
        (1, 1, 1e-38, {"c_conv": TOO_SMALL, "r_relu": "its input is in float"}),
    ],
)
def test_a_layer_whose_scales_vanish_stays_in_float(
    first: float, second: float, gain: float, left: dict[str, str], tmp_path: Path
) -> None:
    model, data = net(first, second, gain)
    if gain < 1:  # a bias that is seen beside the input
        array = onnx.numpy_helper.to_array(model.graph.initializer[2]) / np.float32(gain)
        model.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(array, "b"))
    found = walk(model, data[:4], data[4:], tmp_path, floor=20)
    for q in found.quantized.values():
        assert q.report is not None
        assert {island.node: island.reason for island in q.report.islands} == left


@pytest.mark.parametrize("op", ["Mul", "MatMul"])
def test_a_product_of_two_tensors_whose_scales_vanish_stays_in_float(op: str, tmp_path: Path) -> None:
    """Each of them has a scale, and so has what they multiply to; the product of the scales is no normal float32."""
    rng = np.random.default_rng(3)
    nodes = [
        *(node("Gemm", "x w", "a"), node("Gemm", "z v", "b", transB=1)),
        *(node(op, "a b", "p"), node("Mul", "p large", "y")),
    ]
    constants = {"large": np.full(64, 1e30, np.float32), "w": weight(rng, 64, 64), "v": weight(rng, 64, 64)}
    model = graph(nodes, {"x": ["N", 64], "z": [64, 64]}, {"y": ["N", 64]}, constants)
    gains = {"Mul": (1e-17, 1e-18), "MatMul": (3e-18, 1e-18)}[op]
    data = [
        {"x": normal(rng, 64, 64) * np.float32(gains[0]), "z": normal(rng, 64, 64) * np.float32(gains[1])}
        for _ in range(4)
    ]
    q = walk(model, data[:3], data[3:], tmp_path, floor=25, recipes=("plain",)).quantized["plain"]
    assert q.report is not None
    assert next(i.reason for i in q.report.islands if i.op == op) == TOO_SMALL


@pytest.mark.parametrize(
    ("size", "said"), [(1e-38, "float32 has no scale for them"), (1e-42, "no scale for them")]
)
def test_weights_below_every_scale_are_said_to_be(size: float, said: str) -> None:
    model, data = net(size, size, 1)
    for recipe in (eb.Recipe(), eb.Recipe.plain(), eb.Recipe(activations=eb.FLOAT)):
        message = refused(lambda recipe=recipe: eb.quantize(model, data, recipe), eb.QuantizationError)
        assert f"c_conv (Conv): its weights reach {abs(_weights(model)).max():.1e} only: " in message
        assert said in message


def _weights(model: onnx.ModelProto) -> np.ndarray:
    return onnx.numpy_helper.to_array(model.graph.initializer[0])


def test_moments_hold_what_float32_could_not_sum() -> None:
    x = normal(np.random.default_rng(1), 1, 6, 50)
    plain = Moments.of(x)
    for gain in (1e-25, 1e30):
        found = Moments.of(x * np.float32(gain))
        np.testing.assert_allclose(found.hessian / gain**2, plain.hessian, rtol=1e-4, atol=1e-4)


def test_a_correction_that_no_code_could_hold_is_left_out() -> None:
    """A mean far outside of what the input's codes hold: born in correction, and for one channel only."""
    rows = np.zeros((1, 2, 3), np.float32)
    dequantized = np.array([[[1e-3, 0, 0], [0, 1e-3, 0]]], np.float32)
    moments = Moments.of(np.array([[[1e9], [1.0], [1.0]]], np.float32))
    limits = np.array([1e3, 1e3])
    bias = np.array([5.0, 7.0], np.float32)
    np.testing.assert_allclose(corrected_bias(rows, dequantized, bias, moments, limits), [5, 7 - 1e-3])
    np.testing.assert_allclose(corrected_bias(rows, dequantized, None, moments, limits), [0, -1e-3])
    np.testing.assert_allclose(corrected_bias(rows, dequantized, None, moments), [-1e6, -1e-3])


def test_a_weight_that_its_range_cuts_off_does_not_overflow_the_bias_of_its_error() -> None:
    rng = np.random.default_rng(2)
    w = weight(rng, 8, 64, 1, 1)
    w[3, 5] = 1e9
    model = graph([node("Conv", "x w", "y")], {"x": ["N", 64, 1, 1]}, {"y": ["N", 8, 1, 1]}, {"w": w})
    x = np.abs(normal(rng, 64, 64, 1, 1))
    q = eb.quantize(model, x, eb.Recipe(weights=eb.Weights(range=eb.Percentile(90))))
    np.testing.assert_array_equal(q(x), q.run(x, engine="numpy"))


@pytest.mark.parametrize("constant", [1.0, 3.3, 5.9, 1 / 3])
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("channels", [[3], range(8)], ids=["one", "all"])
def test_channels_that_are_constant_in_the_data_round_by_them(
    constant: float, groups: int, channels: list[int] | range
) -> None:
    """Their centred moments are zero: what float32 makes of them is the rounding of its own sums, of either sign."""
    rng = np.random.default_rng(4)
    nodes = [node("Conv", "x w b", "y", group=groups)]
    constants = {"w": weight(rng, 8, 8 // groups, 3, 3), "b": normal(rng, 8)}
    model = eb.load(graph(nodes, {"x": ["N", 8, 12, 12]}, {"y": ["N", 8, 10, 10]}, constants))
    x = normal(rng, 32, 8, 12, 12)
    x[:, channels] = constant
    recipe = eb.Recipe(activations=eb.FLOAT, weights=eb.Weights(rounding=eb.GPTQ()), bias_correction=True)
    assert eb.compare(model, eb.quantize(model, x, recipe), x).outputs[0].sqnr_db > 30


def test_moments_that_too_little_damping_leaves_singular_are_named() -> None:
    rows, h = np.ones((1, 2, 3), np.float32), np.ones((1, 3, 3))
    message = refused(
        lambda: eb.GPTQ(damping=1e-20).codes(rows, np.float32(0.1), INT8, h), eb.QuantizationError
    )
    assert message.startswith("damping 1e-20 leaves the moments of its input singular")


LARGEST, SUBNORMAL = np.finfo(np.float32).max, np.float32(1e-40)
EXTREMES = {  # the factor of the first channel, of one element, and of all
    "all are large": (1, 1, 3e37),
    "a channel of the largest": (LARGEST, 1, 1),
    "one of the largest": (1, LARGEST, 1),
    "a subnormal channel": (SUBNORMAL, 1, 1),
    "both ends": (SUBNORMAL, LARGEST, 1),
    "a dead channel": (0, 1, 1),
}
EVERY_WAY = {
    "default": eb.Recipe(),
    "plain": eb.Recipe.plain(),
    "weights alone": eb.Recipe(activations=eb.FLOAT),
    "searched": eb.Recipe(weights=eb.Weights(rounding=eb.GPTQ(), range=eb.MSE(norm=8))),
    "dynamic": eb.Recipe(activations=eb.Activations(dynamic=True)),
}


@pytest.mark.parametrize("gain", [1e-3, 1e-30, 1e-44])
@pytest.mark.parametrize("op", ["Conv", "Gemm"])
@pytest.mark.parametrize("what", EXTREMES)
def test_weights_at_both_ends_of_float32_run_alike_or_are_refused(what: str, op: str, gain: float) -> None:
    """Refused only where the input is no normal float32 (1e-44), or the recipe has nothing for a convolution."""
    rng = np.random.default_rng(5)
    w = np.sign(normal(rng, 4, 3, *((3, 3) if op == "Conv" else ()))) * np.float32(0.7)
    channel, element, everything = EXTREMES[what]
    w[0] *= np.float32(channel)
    w.flat[-1] = np.sign(w.flat[-1]) * np.float32(element)
    w *= np.float32(everything)
    inner = [8, 8] if op == "Conv" else []
    nodes = [node(op, "x w", "y", **({} if op == "Conv" else {"transB": 1}))]
    proto = graph(nodes, {"x": ["N", 3, *inner]}, {"y": ["N", 4, *([None] * len(inner))]}, {"w": w})
    data = [normal(rng, 64, 3, *inner) * np.float32(gain) for _ in range(3)]
    model = eb.load(proto)
    for name, recipe in EVERY_WAY.items():
        if (name, op) == ("dynamic", "Conv") or (gain == 1e-44 and name not in ("weights alone", "dynamic")):
            refused(lambda recipe=recipe: eb.quantize(model, data[:2], recipe), eb.QuantizationError)
            continue
        q = eb.quantize(model, data[:2], recipe)
        found = q(data[2])
        np.testing.assert_array_equal(found, q.run(data[2], engine="numpy"), err_msg=name)
        assert gain == 1e-44 or sqnr_db(model(data[2]), found) > 20, name
