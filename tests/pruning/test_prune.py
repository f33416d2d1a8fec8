"""Channels that are removed take nothing else with them: the smaller graph computes what the masked one does."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import eightbit as eb
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.pruning.channels import channels
from eightbit.pruning.cut import cut, masked
from eightbit.pruning.macs import layer_costs, sample_shapes
from tests.graph.graphs import normal, parse
from tests.pruning.architectures import ARCHITECTURES

# Groups of units that go together: the layer that makes them, how many, and how many channels one of them is.
GROUPS = {
    "residual": [("stem", 8, 1)],
    "depthwise": [("a", 8, 1), ("p", 8, 1), ("s", 12, 1)],
    "concat": [("a", 8, 1), ("b", 4, 1), ("c", 4, 1)],
    "grouped": [("a", 4, 4), ("b", 4, 4), ("d", 2, 4), ("i", 4, 2)],
    "gated": [("a", 8, 2), ("z", 4, 1), ("c", 4, 1), ("c", 4, 1)],
    "transformer": [("t17", 2, 8), ("t50", 32, 1), ("t76", 2, 8), ("t109", 32, 1)],
    "transformer of fixed length": [("t16", 2, 8), ("t59", 32, 1)],
}


def found_in(name):
    """The model, data for it, and its units."""
    build, inputs = ARCHITECTURES[name]
    model, data = eb.load(build()), inputs(4)
    return model, data, channels(model.ir, sample_shapes(model.ir, data))


def macs(model, data):
    """The multiplications of all layers for a sample."""
    return sum(cost.macs for cost in layer_costs(model.ir, sample_shapes(model.ir, data)).values())


def weights(model):
    """The shapes of the layers' weights by node."""
    layers = [node for node in model.ir.graph if node.op_type in ("Conv", "Gemm")]
    return {node.name: tuple(node.inputs[1].shape) for node in layers}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_depends_on_one_another_is_one_unit(name):
    found = found_in(name)[2]
    assert [(g.name.removesuffix(".conv"), len(g.units), g.width) for g in found.groups] == GROUPS[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("seed", range(2))
def test_a_pruned_graph_is_valid_equals_the_masked_one_and_quantizes(name, seed):
    model, data, found = found_in(name)
    random, keep = np.random.default_rng(seed), np.ones(found.size, bool)
    for group in found.groups:
        keep[random.permutation(group.units)[: len(group.units) // 2]] = False
    pruned = eb.Model(cut(model.ir, found, keep))
    onnx.checker.check_model(ir.to_proto(pruned.ir), full_check=True)
    expected = eb.Model(masked(model.ir, found, keep))(data)
    # Sums of fewer numbers are rounded in another order.
    np.testing.assert_allclose(pruned(data), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected - model(data)).max() > 1e-3 * np.abs(expected).max()
    assert macs(pruned, data) == sum(found.macs(keep).values()) < macs(model, data)
    q = eb.quantize(pruned, data)
    np.testing.assert_array_equal(q(data), q.run(data, engine="numpy"))


@pytest.mark.parametrize("importance", [eb.Magnitude(1), eb.Magnitude(), eb.Reconstruction()])
@pytest.mark.parametrize("share", [0.8, 0.4])
def test_a_budget_is_met_and_hardly_more(importance, share):
    build, inputs = ARCHITECTURES["concat"]
    model, data = eb.load(build()), inputs(64)
    left = macs(eb.prune(model, data, macs=share, importance=importance), data) / macs(model, data)
    assert share - 0.15 < left <= share  # the dearest unit is a seventh of the network


def test_sizes_keep_a_multiple_and_a_floor():
    build, inputs = ARCHITECTURES["depthwise"]
    sizes = weights(eb.prune(eb.load(build()), inputs(8), macs=0.6, multiple=4, importance=eb.Magnitude()))
    assert {rows[0] % 4 for name, rows in sizes.items() if name != "y"} == {0}
    sizes = weights(eb.prune(eb.load(build()), macs=0.75, floor=0.75))
    assert all(rows[0] >= 6 for name, rows in sizes.items() if name != "y")
    with pytest.raises(
        QuantizationError,
        match=r"macs=0.01 cannot be met: 0\.\d+ .* multiple=4 .*'y' \(Gemm\): it is output 'y'",
    ):
        eb.prune(eb.load(build()), macs=0.01, multiple=4)


def test_a_unit_that_says_nothing_goes_first():
    """Channel 5 of the stem is always zero: nothing is lost without it, whatever the weights that read it."""
    proto = ARCHITECTURES["depthwise"][0]()
    model, data = eb.load(proto), ARCHITECTURES["depthwise"][1](64)
    array = next(v for v in model.ir.graph.initializers.values() if tuple(v.shape) == (8, 3, 3, 3))
    bias = model.ir.graph.initializers["b1"]
    for value in (array, bias):
        changed = value.const_value.numpy().copy()
        changed[5] = 0
        value.const_value = ir.tensor(changed, name=value.name)
    found = channels(model.ir, sample_shapes(model.ir, None))
    scores = eb.Reconstruction().scores(found, data)
    stem = found.groups[0].units
    assert scores[stem].argmin() == 5


def test_compensation_makes_up_for_what_was_removed():
    build, inputs = ARCHITECTURES["residual"]
    model, data = eb.load(build()), inputs(256)
    new = normal(64, 3, 8, 8, seed=7)
    errors = [
        np.square(eb.prune(model, data, macs=0.6, compensate=each)(new) - model(new)).sum()
        for each in (True, False)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_a_channel_that_is_a_copy_of_another_costs_nothing():
    """Twins in the hidden layer: the layer behind takes from one what it took from both."""
    w1 = normal(4, 6, seed=1)
    w2 = normal(3, 8, seed=2)
    text = """g (float[N,6] x) => (float[N,3] y)
    { h = Gemm <transB = 1> (x, w1) r = Relu (h) y = Gemm <transB = 1> (r, w2) }"""
    model = eb.load(parse(text, w1=np.concatenate([w1, w1]), w2=w2))
    data, new = normal(400, 6, seed=3), normal(50, 6, seed=4)
    pruned = eb.prune(model, data, macs=0.5)
    assert weights(pruned)["h"] == (4, 6)
    error = np.square(pruned(new) - model(new)).sum() / np.square(model(new)).sum()
    assert error < 1e-3  # the pull towards the old weights leaves some


def test_layers_that_share_weights_lose_the_same_or_get_their_own():
    w = normal(6, 6, seed=1)
    text = """g (float[N,6] x) => (float[N,2] y) { a = Gemm <transB = 1> (x, w) ra = Relu (a)
    b = Gemm <transB = 1> (ra, w) rb = Relu (b) y = Gemm <transB = 1> (rb, w2) }"""
    model = eb.load(parse(text, w=w, w2=normal(2, 6, seed=2)))
    found = channels(model.ir, sample_shapes(model.ir, None))
    keep = np.ones(found.size, bool)
    keep[found.groups[0].units[1:3]] = keep[found.groups[1].units[4:]] = False
    pruned, data = eb.Model(cut(model.ir, found, keep)), normal(9, 6, seed=3)
    assert weights(pruned) == {"a": (4, 6), "b": (4, 4), "y": (2, 4)}
    np.testing.assert_allclose(pruned(data), eb.Model(masked(model.ir, found, keep))(data), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Gemm (x, w)", r"'y' \(Gemm\): it is output 'y' of the model"),
        (
            "h = Gemm (x, w) s = Softmax <axis = 1> (h) y = Relu (s)",
            r"node 's' \(Softmax\) looks at all of them",
        ),
        (
            "h = Gemm (x, w) y = Add (h, x)",
            r"node 'y' \(Add\) combines them with a tensor that is not made by a layer",
        ),
        ("h = Gemm (x, w) s = CumSum (h, one) y = Gemm (s, w)", r"node 's' \(CumSum\) has no rule"),
    ],
)
def test_where_nothing_can_be_removed_the_layer_and_the_reason_are_named(body, reason):
    model = eb.load(
        parse(f"g (float[N,6] x) => (float[N,6] y) {{ {body} }}", w=normal(6, 6), one=np.int64(1))
    )
    with pytest.raises(QuantizationError, match=reason):
        eb.prune(model, macs=0.5)


def test_what_is_missing_or_wrong_is_said():
    build, inputs = ARCHITECTURES["transformer"]
    model = eb.load(build())
    with pytest.raises(CalibrationError, match=r"free axes beside the batch.*give data"):
        eb.prune(model, macs=0.5)
    with pytest.raises(CalibrationError, match=r"Reconstruction\(\) looks at data"):
        eb.prune(eb.load(ARCHITECTURES["residual"][0]()), macs=0.5, importance=eb.Reconstruction())
    with pytest.raises(CalibrationError, match="compensate=True needs data"):
        eb.prune(eb.load(ARCHITECTURES["residual"][0]()), macs=0.5, compensate=True)
    for wrong in ({"macs": 0.0}, {"macs": 1.5}, {"macs": 0.5, "multiple": 0}, {"macs": 0.5, "floor": 2.0}):
        with pytest.raises(QuantizationError, match="give a"):
            eb.prune(model, inputs(4), **wrong)


def test_a_source_is_loaded_and_left_as_it_is():
    proto = ARCHITECTURES["residual"][0]()
    before = proto.SerializeToString()
    pruned = eb.prune(proto, ARCHITECTURES["residual"][1](32), macs=0.5)
    assert proto.SerializeToString() == before
    assert isinstance(pruned, eb.Model)
