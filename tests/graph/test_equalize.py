"""Channel groups and equalization: which tensors hang together, and that rescaling changes only their ranges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eightbit.errors import CalibrationError, LoadError, QuantizationError
from eightbit.graph.rescale.channels import channel_groups, channel_peaks
from eightbit.graph.rescale.equalize import (
    METADATA,
    channel_scales,
    elastic_groups,
    equalize,
    recorded_scales,
)
from eightbit.graph.run import FloatSession
from tests.graph.graphs import assert_same, graph, normal

BLOCK = """g (float[N,3,8,8] x) => (float[N,5] y) {
    a = Conv <pads=[1,1,1,1], kernel_shape=[3,3]> (x, w1, b1)
    r = Relu (a)
    d = Conv <group=4, pads=[1,1,1,1], kernel_shape=[3,3]> (r, w2, b2)
    s = Add (r, d)
    p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (s)
    c = Conv <group=2, kernel_shape=[1,1]> (p, w3)
    k = Clip (c, zero, six)
    g = GlobalAveragePool (k)
    f = Flatten <axis=1> (g)
    y = Gemm <transB=1> (f, w4, b4)
}"""


def block(seed=0):
    """Weights whose channels differ by factors of up to a hundred."""
    spread = np.geomspace(0.1, 10, 4, dtype=np.float32)
    weights = {
        "w1": normal(4, 3, 3, 3, seed=seed) * spread.reshape(-1, 1, 1, 1),
        "b1": normal(4, seed=seed + 1) * spread,
        "w2": normal(4, 1, 3, 3, seed=seed + 2),
        "b2": normal(4, seed=seed + 3),
        "w3": normal(6, 2, 1, 1, seed=seed + 4) / 10,
        "w4": normal(5, 6, seed=seed + 5),
        "b4": normal(5, seed=seed + 6),
    }
    model = graph(BLOCK, **weights, zero=np.float32(0), six=np.float32(6))
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


DATA = normal(6, 3, 8, 8, seed=9)


def measured(model, data=DATA):
    return channel_peaks(model, [t for g in elastic_groups(model) for t in g.seen], data)


def test_groups_reach_from_layer_to_layer():
    wide, clipped = channel_groups(block())
    assert set(wide.tensors) == {"a", "r", "d", "s", "p"}
    assert set(wide.seen) == {"r", "d", "s", "p"}  # `a` is hidden in the Relu behind it
    assert (wide.writers, wide.readers, wide.channels) == (("a", "d"), ("d", "c"), 4)
    assert set(clipped.seen) == {"k", "g", "f"}
    assert (clipped.writers, clipped.readers, clipped.ceiling) == (("c",), ("y",), 6.0)
    assert elastic_groups(block()) == (wide,)


@pytest.mark.parametrize(
    "between",
    [
        "m = Sigmoid (a)",
        "m = Add (a, one)",
        "m = Mul (a, a)",
        "m = Clip (a, one)",
        "m = Concat <axis=1> (a, a)",
        "m = Softmax <axis=1> (a)",
    ],
)
def test_an_op_that_scaling_does_not_pass_closes_its_group(between):
    channels = 8 if "Concat" in between else 4
    body = f"""g (float[N,3,8,8] x) => (float[N,5,8,8] y) {{
        a = Conv <kernel_shape=[1,1]> (x, w1)
        {between}
        y = Conv <kernel_shape=[1,1]> (m, w2)
    }}"""
    consts = {"one": np.float32(1)} if "one" in between else {}
    model = graph(body, w1=normal(4, 3, 1, 1), w2=normal(5, channels, 1, 1), **consts)
    assert channel_groups(model) == ()


def test_what_the_caller_sees_is_never_rescaled():
    body = """g (float[N,3,8,8] x) => (float[N,4,8,8] a, float[N,5,8,8] y) {
        a = Conv <kernel_shape=[1,1]> (x, w1)
        y = Conv <kernel_shape=[1,1]> (a, w2)
    }"""
    assert channel_groups(graph(body, w1=normal(4, 3, 1, 1), w2=normal(5, 4, 1, 1))) == ()


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), strength=st.floats(0, 1))
def test_the_equalized_network_is_the_network(seed, strength):
    model = block(seed)
    before = {n: v.const_value.numpy().copy() for n, v in model.graph.initializers.items()}
    result = model.clone()
    assert equalize(result, measured(model), strength=strength) == 1
    scales = recorded_scales(result)
    assert set(scales) == {"a", "r", "d", "s", "p"}
    before_t, after_t = (FloatSession(m, list(scales)).run({"x": DATA}) for m in (model, result))
    for name, scale in scales.items():
        expected = before_t[name] * scale.reshape(-1, 1, 1)
        # Scales are kept to eleven bits.
        np.testing.assert_allclose(after_t[name], expected, rtol=0, atol=2**-11 * np.abs(expected).max())
    # Also for inputs unlike those measured: nothing in the group is clipped.
    assert_same(model, result)
    for name, array in before.items():
        np.testing.assert_array_equal(model.graph.initializers[name].const_value.numpy(), array)


def test_ranges_of_channels_become_alike():
    model = block()

    def spread(graph):
        peaks = measured(graph)
        return {name: float(peak.max() / peak.min()) for name, peak in peaks.items()}

    before = spread(model)
    equalize(model, measured(model), strength=1.0)
    after = spread(model)
    assert before["r"] > 20
    assert all(after[name] < 0.5 * before[name] for name in ("r", "s", "p"))


def test_peaks_are_largest_magnitudes_whatever_the_split():
    model = block()
    whole = measured(model)
    parts = measured(model, [DATA[4:], DATA[:1], DATA[1:4]])
    tensors = FloatSession(model, list(whole)).run({"x": DATA})
    for name, peak in whole.items():
        np.testing.assert_array_equal(peak, parts[name])
        # A batch of six goes through other blocks of the same float32 sums than six batches of one.
        np.testing.assert_allclose(peak, np.abs(tensors[name]).max(axis=(0, 2, 3)), rtol=1e-5)


@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=8), st.floats(0, 1))
def test_scales_bring_channels_together_and_never_reorder_or_shrink_them(values, strength):
    peaks = np.float32(values)
    scale = channel_scales([peaks], strength)
    assert (scale >= 1).all()
    assert (scale[peaks == 0] == 1).all()
    scaled = peaks * scale
    order = np.argsort(peaks, kind="stable")
    # Products of float64 roots: equal up to their rounding, which a float32 bound could not tell apart.
    largest = float(peaks.max())
    assert (np.diff(scaled[order]) >= -1e-9 * largest).all()
    assert scaled.max() <= largest * (1 + 1e-9)


@pytest.mark.parametrize(
    ("peaks", "strength", "expected"),
    [
        ([[1, 0.25, 4]], 0.5, [2, 4, 1]),  # r ** -1/2, relative to the largest channel
        ([[1, 0.25, 4]], 1, [4, 16, 1]),
        ([[1, 0.25, 4]], 0, [1, 1, 1]),
        (
            [[1, 0.01, 4], [5, 0.05, 0.05]],
            1,
            [1, 100**1.0, 1],
        ),  # the tensor where a channel is largest counts
        ([[64, 1, 0.9, 1e-9]], 1, [1, 64, 64, 64]),  # no channel grows more than LARGEST times
        ([[4096, 1, 0.9, 1e-9]], 0.5, [1, 64, 64, 64]),
        ([[3, 0]], 1, [1, 1]),  # a dead channel stays
        ([[0, 0], [0, 0]], 1, [1, 1]),
    ],
)
def test_scales_follow_the_equation_up_to_their_cap(peaks, strength, expected):
    found = channel_scales([np.float32(p) for p in peaks], strength)
    # Peaks are float32: a relative 1e-7 in each ratio.
    np.testing.assert_allclose(found, np.minimum(expected, 64.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("clip", "closed", "elastic"),
    [
        ("Relu (a)", False, True),
        ("Clip (a, zero)", False, True),
        ("Clip (a, zero, inf)", False, True),
        ("Clip (a, zero, six)", False, False),
        ("Clip (a, zero, huge)", False, False),  # however far away: a new input may reach it
        ("Clip (a, low, six)", True, False),
        ("Clip (a, tiny)", True, False),  # any lower bound but zero moves with the scale
        ("Clip (a, , six)", True, False),
        ("Clip (a, zero, k)", True, False),  # a bound that only the caller knows
    ],
)
def test_a_group_is_elastic_if_scaling_passes_its_clamp(clip, closed, elastic):
    body = f"""g (float[N,3,8,8] x, float k) => (float[N,5,8,8] y) {{
        a = Conv <kernel_shape=[1,1]> (x, w1)
        m = {clip}
        y = Conv <kernel_shape=[1,1]> (m, w2)
    }}"""
    bounds = {"zero": 0, "six": 6, "huge": 1e30, "inf": np.inf, "low": -1, "tiny": 1e-6}
    consts = {name: np.float32(v) for name, v in bounds.items() if name in clip}
    model = graph(body, w1=normal(4, 3, 1, 1), w2=normal(5, 4, 1, 1), **consts)
    assert (len(channel_groups(model)), len(elastic_groups(model))) == (not closed, elastic)


def test_bad_arguments_are_named():
    model = block()
    with pytest.raises(QuantizationError, match=r"equalize\(strength=2\): it must lie in \[0, 1\]"):
        equalize(model, {}, strength=2)
    with pytest.raises(QuantizationError, match=r"peaks of 'r' have shape \(3,\); it has 4 channels"):
        equalize(model, {"r": np.ones(3, np.float32)})
    model = graph(
        "g (float[N,3] x) => (float[N,3] y) { a = Mul (x, big) y = Mul (a, big) }", big=np.float32(3e38)
    )
    with pytest.raises(CalibrationError, match=r"tensor 'a' takes a value that is NaN or Inf"):
        channel_peaks(model, ["a"], np.full((1, 3), 1e5, np.float32))


@pytest.mark.parametrize("text", ["{", "[1]", '[["a"]]', '[[["a"], "AAA"]]', '[[["a"], 1]]'])
def test_damaged_scales_are_an_error(text):
    model = block()
    assert recorded_scales(model) == {}
    model.metadata_props[METADATA] = text
    with pytest.raises(LoadError, match=r"metadata 'eightbit\.equalized' of the model are damaged"):
        recorded_scales(model)
