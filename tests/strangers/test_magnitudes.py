"""Numbers near the ends of float32: weights, inputs and what they multiply to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import eightbit as eb
from eightbit.quant.encode.correct import corrected_bias
from eightbit.quant.observe.moments import Moments
from tests.strangers.graphs import Feeds, graph, node, normal, weight
from tests.strangers.walk import refused, walk


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
