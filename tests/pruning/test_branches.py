"""Residual branches that are removed whole: what is left is the network as if the branch gave zero."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import eightbit as eb
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.pruning.branches import _gated, _without, branches
from eightbit.pruning.macs import layer_costs, multiplications, sample_shapes
from eightbit.report.pruning import pruned_layers
from tests.graph.graphs import normal, parse
from tests.pruning.architectures import ARCHITECTURES
from tests.pruning.test_prune import weights

# Each branch that can be removed: its first and last layer.
FOUND = {
    "residual": [("body", "body")],
    "depthwise": [],
    "grouped": [("b", "c")],
    "gated": [],
    "transformer": [("t17", "t42"), ("t50", "t55"), ("t76", "t101"), ("t109", "t114")],
}


def found_in(name):
    build, inputs = ARCHITECTURES[name]
    model, data = eb.load(build()), inputs(64)
    return model, data, branches(model.ir, layer_costs(model.ir, sample_shapes(model.ir, data)))[0]


@pytest.mark.parametrize("name", FOUND)
def test_without_a_branch_the_graph_is_valid_and_computes_what_it_does_with_the_branch_at_zero(name):
    model, data, found = found_in(name)
    assert [(b.layers[0], b.layers[-1]) for b in found] == FOUND[name]
    for branch in found:
        pruned = eb.Model(_without(model.ir, branch, None, None))
        onnx.checker.check_model(ir.to_proto(pruned.ir), full_check=True)
        assert not {node.name for node in pruned.ir.graph} & {branch.add, *branch.layers}
        expected = eb.Model(_gated(model.ir, branch, 0.0))(data)
        np.testing.assert_allclose(pruned(data), expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        q = eb.quantize(pruned, data)
        np.testing.assert_array_equal(q(data), q.run(data, engine="numpy"))


def test_the_branch_least_missed_goes_first_and_the_layers_behind_make_up_for_it():
    """The second of two branches says almost nothing, and is the one that goes."""
    text = """g (float[N,6] x) => (float[N,3] y) { h = Gemm (x, w0) s = Relu (h) a = Gemm (s, w1) ra = Relu (a)
    one = Add (s, ra) b = Gemm (one, w2) rb = Relu (b) two = Add (rb, one) y = Gemm (two, w3) }"""
    scales = {"w0": 1, "w1": 1, "w2": 1e-3, "w3": 1}
    arrays = {
        n: s * normal(6, 3 if n == "w3" else 6, seed=i).astype(np.float32)
        for i, (n, s) in enumerate(scales.items())
    }
    model, data, new = eb.load(parse(text, **arrays)), normal(300, 6, seed=8), normal(50, 6, seed=9)
    pruned = eb.prune(model, data, branches=1)
    assert set(weights(pruned)) == {"h", "a", "y"}
    assert np.abs(pruned(new) - model(new)).max() < 0.02 * np.abs(model(new)).max()
    both = [eb.prune(model, data, branches=2, compensate=each)(new) - model(new) for each in (True, False)]
    assert np.square(both[0]).sum() < 0.5 * np.square(both[1]).sum()
    gone = {layer.name: layer.after.channels for layer in pruned_layers(model, pruned).layers}
    assert gone == {"h": 6, "a": 6, "b": 0, "y": 3}


def test_the_budget_counts_from_the_whole_model():
    build, inputs = ARCHITECTURES["residual"]
    model, data = eb.load(build()), inputs(64)
    whole = multiplications(model.ir, data)
    alone = eb.prune(model, data, branches=1)
    left = multiplications(alone.ir, data)
    same = eb.prune(model, data, branches=1, macs=left / whole)
    assert weights(same) == weights(alone)
    fewer = eb.prune(model, data, branches=1, macs=0.6 * left / whole, multiple=2)
    assert multiplications(fewer.ir, data) <= 0.6 * left
    assert weights(fewer)["stem"][0] % 2 == 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("h = Gemm (x, w) y = Relu (h)", "it has no sum of two tensors"),
        ("h = Gemm (x, w) s = Add (h, x) y = Relu (s)", ""),
        ("h = Gemm (x, w) y = Add (h, x)", "'y' makes an output of the model of an input"),
        (
            "h = Gemm (x, w) k = Gemm (z, w) s = Add (h, k) y = Gemm (s, w)",
            "sides of 's' have nothing in common",
        ),
        (
            "h = Gemm (x, w) s = Add (h, x) y = Mul (s, h)",
            "layers behind each side of 's' are read elsewhere",
        ),
        ("h = Gemm (x, v) s = Add (h, x) y = Relu (s)", r"'s' adds shapes \(None, 1\) and \(None, 6\)"),
    ],
)
def test_a_sum_that_cannot_lose_a_side_is_named(body, reason):
    text = f"g (float[N,6] x, float[N,6] z) => (float[N,6] y) {{ {body} }}"
    model = eb.load(parse(text, w=normal(6, 6), v=normal(6, 1)))
    data = (normal(8, 6), normal(8, 6))
    if not reason:
        assert not weights(eb.prune(model, data, branches=1))
        return
    with pytest.raises(QuantizationError, match=f"branches=1: only 0 of this model.*{reason}"):
        eb.prune(model, data, branches=1)


def test_what_is_missing_is_said():
    model = eb.load(ARCHITECTURES["residual"][0]())
    with pytest.raises(CalibrationError, match="branches=1 needs data"):
        eb.prune(model, branches=1)
    with pytest.raises(QuantizationError, match="branches"):
        eb.prune(model, branches=-1)
