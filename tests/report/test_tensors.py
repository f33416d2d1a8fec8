"""Tensors in float and int8 side by side: against arrays worked out by hand from the graphs' own sessions."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.arith.affine import sqnr_db
from eightbit.deploy.sessions import integer_tensors
from eightbit.graph.run import FloatSession
from eightbit.report.tensors import BINS, Grid, TensorPairs, layer_errors, layer_histograms
from tests.small_net import images, small_net

PLAIN = eb.Recipe(
    weights=eb.Weights(),
    activations=eb.Activations(range=eb.Percentile(99.0)),
    bias_correction=False,
    equalize=False,
)


@pytest.fixture(scope="module")
def model() -> eb.Model:
    return eb.load(small_net())


@pytest.fixture(scope="module")
def q(model: eb.Model) -> eb.QuantizedModel:
    return eb.quantize(model, images(16), PLAIN)


def feeds(count: int) -> list[dict[str, np.ndarray]]:
    return [{"image": images(1, seed)} for seed in range(count)]


def test_errors_of_each_sample_and_of_all(model, q):
    found = {row.name: row for row in layer_errors(TensorPairs(model.ir, q.ir), feeds(5))}
    assert next(iter(found)) == "image"
    exact, real = [], []
    for one in feeds(5):
        exact.append(FloatSession(model.ir, ["r1"]).run(one)["r1"])
        codes = integer_tensors(q.ir, one)["r1_q"].astype(np.float32) + 128
        params = q.report.params["r1"]
        real.append((codes - int(params.zero_point)) * params.scale)
    apart = [sqnr_db(a, b) for a, b in zip(exact, real, strict=True)]
    # The same float64 sums in another order.
    assert found["r1"].by_sample == pytest.approx(apart, abs=1e-6)
    assert found["r1"].sqnr_db == pytest.approx(sqnr_db(np.stack(exact), np.stack(real)), abs=1e-6)
    assert found["r1"].op == "Relu"


def test_histograms_count_every_value_on_both_sides(model, q):
    found = {h.name: h for h in layer_histograms(TensorPairs(model.ir, q.ir), feeds(6))}
    x = np.concatenate([one["image"] for one in feeds(6)])
    h = found["image"]
    assert len(h.edges) == BINS + 1
    assert sum(h.before) + h.below + h.above == sum(h.after) == x.size
    assert h.float_range == (float(x.min()), float(x.max()))
    scale, zero = float(q.report.params["image"].scale), int(q.report.params["image"].zero_point)
    lo, hi = (0 - zero - 0.5) * scale, (255 - zero + 0.5) * scale
    assert h.clipped == pytest.approx(np.mean((x < lo) | (x > hi)), abs=2 / x.size)  # float32 at an edge
    assert 0.005 < h.clipped < 0.03  # the percentile cuts off 0.5 % on either side
    assert h.grid.limits == pytest.approx((-zero * scale, (255 - zero) * scale))
    before, _ = np.histogram(x, np.array(h.edges))
    assert (
        np.abs(before - np.array(h.before)).sum() <= 4
    )  # a value on an edge may fall to either side in float32
    codes = (
        np.concatenate([integer_tensors(q.ir, one)["image_q"] for one in feeds(6)]).astype(int) + 128 - zero
    ) * scale
    after, _ = np.histogram(codes, np.array(h.edges))
    np.testing.assert_array_equal(after, h.after)
    # Everything outside the grid has moved to its ends; inside, four codes or so change bins by rounding.
    outside = np.array(h.after)[(np.array(h.edges[1:]) < lo) | (np.array(h.edges[:-1]) > hi)]
    assert outside.sum() == 0


def test_a_grid_knows_its_limits():
    assert Grid(0.5, -128).limits == (0.0, 127.5)
    assert Grid(0.5, 0).limits == (-64.0, 63.5)


def test_a_graph_without_codes_of_eight_bits_has_no_rows(model):
    weights_only = eb.quantize(model, None, eb.Recipe(activations=eb.FLOAT, weights=eb.Weights()))
    pairs = TensorPairs(model.ir, weights_only.ir)
    assert layer_errors(pairs, feeds(1)) == layer_histograms(pairs, feeds(1)) == ()
