"""SmoothQuant: what the network computes stays, the spread of its activations' channels goes."""

import numpy as np
import pytest

from eightbit.graph.model import constant
from eightbit.graph.prepare.fold import prepare
from eightbit.graph.rescale.channels import channel_peaks
from eightbit.graph.rescale.smooth import smooth, smooth_sites, smoothing_factors
from eightbit.graph.run import FloatSession
from tests.graph.graphs import assert_same, graph, normal

BODY = """g (float[N,S,8] x) => (float[N,S,8] y) {
    n = LayerNormalization <axis=-1> (x, gain, shift)
    a = MatMul (n, w1)
    b = Add (a, b1)
    g = Gelu (b)
    c = MatMul (g, w2)
    d = Add (c, b2)
    y = Add (d, n)
}"""


def network():
    """A block of a transformer in which one channel behind the LayerNorm is a hundred times the others."""
    gain = np.ones(8, np.float32)
    gain[3] = 100
    weights = {"w1": normal(8, 16), "b1": normal(16), "w2": normal(16, 8), "b2": normal(8)}
    weights["w1"][3] /= 100
    return prepare(graph(BODY, gain=gain, shift=normal(8), **weights))


def layers(model):
    return [str(n.name) for n in model.graph if n.op_type == "Gemm"]


def smoothed(model, alpha=0.8):
    sites = smooth_sites(model, layers(model))
    peaks = channel_peaks(model, [s.tensor for s in sites], normal(6, 5, 8, seed=5), axis=-1)
    result = model.clone()
    smooth(result, sites, peaks, alpha)
    return sites, result


def test_layers_behind_layernorm_and_gelu_are_found_through_their_reshapes():
    model = network()
    sites = smooth_sites(model, layers(model))
    assert [(s.tensor, len(s.layers)) for s in sites] == [("n", 1), ("g", 1)]
    assert smooth_sites(model, []) == ()


def test_the_network_computes_what_it_did():
    model, before = network(), network()
    _, result = smoothed(model)
    assert_same(before, result)
    assert sum(n.op_type == "Mul" for n in result.graph) == 2


def test_the_residual_connection_still_reads_the_unsmoothed_tensor():
    _, result = smoothed(network())
    add = next(n for n in result.graph if n.outputs[0].name == "y")
    assert "n" in [v.name for v in add.inputs]


def test_with_alpha_one_all_channels_get_one_peak():
    x = normal(6, 5, 8, seed=5)
    before = np.abs(FloatSession(network(), ["n"]).run({"x": x})["n"]).max(axis=(0, 1))
    assert before.max() > 30 * before.min()
    _, result = smoothed(network(), 1.0)
    mul = next(n for n in result.graph if n.op_type == "Mul" and n.inputs[0].name == "n")
    after = np.abs(next(iter(FloatSession(result, [mul.outputs[0].name]).run({"x": x}).values()))).max(
        axis=(0, 1)
    )
    assert after.max() < 1.001 * after.min()


@pytest.mark.parametrize(
    "layer", ["MatMul (n, w)", "Gemm (n, w)", "Gemm <transB=0> (n, w)", "Gemm <transB=1> (n, w)"]
)
def test_weights_take_the_factors_along_their_inputs_however_they_lie(layer):
    """The weights are square: along the other axis they would take them without a word."""
    body = f"g (float[N,8] x) => (float[N,8] y) {{ n = LayerNormalization <axis=-1> (x, gain) y = {layer} }}"
    weight = normal(8, 8) * np.geomspace(0.01, 10, 8, dtype=np.float32)[:, None]
    model = graph(body, gain=np.geomspace(0.1, 30, 8, dtype=np.float32), w=weight)
    model.graph[1].name = "layer"
    sites = smooth_sites(model, ["layer"])
    peaks = channel_peaks(model, [s.tensor for s in sites], normal(6, 8, seed=5), axis=-1)
    result = model.clone()
    smooth(result, sites, peaks, 0.5)
    assert_same(model, result)
    inputs = weight if "transB=1" in layer else weight.T
    factors = smoothing_factors(peaks["n"], [inputs], 0.5)
    mul = next(node for node in result.graph if node.op_type == "Mul")
    np.testing.assert_array_equal(
        constant(mul.inputs[1]), (1 / factors.astype(np.float64)).astype(np.float32)
    )


def test_factors_follow_the_equation_and_dead_channels_keep_one():
    peak, weight = np.float32([4.0, 0.0, 9.0]), np.float32([[1.0, 1.0, 4.0], [-4.0, 1.0, 1.0]])
    factors = smoothing_factors(peak, [weight], 0.5)
    assert factors[1] == 1.0
    # sqrt(4 / 4) and sqrt(9 / 4), over their geometric mean
    np.testing.assert_allclose(factors[[0, 2]], np.array([1.0, 1.5]) / np.sqrt(1.5), rtol=1e-6)
