"""Refining: nearer to the float model on inputs that nobody learned from, and never farther than before."""

from dataclasses import replace

import numpy as np
import pytest

import eightbit as eb
from eightbit.arith.affine import sqnr_db
from tests.graph.graphs import graph, normal
from tests.small_net import images, small_net
from tests.train.codes import assert_same_codes

torch = pytest.importorskip("torch")
THREE_BITS = eb.Recipe(weights=eb.Weights(bits=3, rounding=eb.GPTQ()))
"""Each layer rounded for itself: in turn they leave little to learn."""
DYNAMIC = eb.Recipe(activations=eb.Activations(dynamic=True))
QUICK = eb.Refinement(steps=80, batch=16, rate=1e-2)


@pytest.fixture(scope="module")
def net() -> eb.Model:
    return eb.load(small_net())


@pytest.fixture(scope="module")
def q(net: eb.Model) -> eb.QuantizedModel:
    return eb.quantize(net, images(64), THREE_BITS)


@pytest.fixture(scope="module")
def refined(net: eb.Model, q: eb.QuantizedModel) -> eb.QuantizedModel:
    return eb.refine(net, images(64), q, refinement=QUICK)


def test_outputs_come_nearer_on_data_that_nobody_saw(net, q, refined):
    x = images(256, seed=9)
    before, after = (sqnr_db(net(x), model(x)) for model in (q, refined))
    assert after > before + 2
    assert refined.report.notes[-1].startswith("refined on 48 samples; on 16 others")


def test_codes_biases_and_scales_were_learned_within_their_bits(q, refined):
    for kind in ("weight", "bias"):
        before, after = ([getattr(op, kind, None) for op in model.program.ops] for model in (q, refined))
        assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)), kind
    assert q.program.tensors != refined.program.tensors
    assert (
        max(int(np.abs(op.weight.astype(int)).max()) for op in refined.program.ops if hasattr(op, "weight"))
        == 3
    )


def test_both_engines_run_it_and_files_keep_it(refined, tmp_path):
    x = images(32, seed=3)
    np.testing.assert_array_equal(refined.run(x, engine="numpy"), refined(x))
    np.testing.assert_array_equal(eb.open(refined.save(tmp_path / "q.onnx"))(x), refined(x))
    assert_same_codes(eb.trainable(refined), refined, x)


def test_a_recipe_is_a_start_and_the_seed_decides(net, refined):
    x = images(16, seed=3)
    again, other = (
        eb.refine(net, (batch for batch in [images(64)]), THREE_BITS, refinement=replace(QUICK, seed=seed))
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(again(x), refined(x))
    assert not np.array_equal(other(x), refined(x))


def test_what_is_worse_on_the_samples_held_out_is_not_kept(net, q):
    kept = eb.refine(net, images(64), q, refinement=eb.Refinement(steps=3, rate=10.0))
    np.testing.assert_array_equal(kept(images(16, seed=3)), q(images(16, seed=3)))
    assert "in vain" in kept.report.notes[-1]


def test_models_with_several_inputs_outputs_and_shapes():
    """Two inputs, two outputs of very different size, sequences of two lengths: both outputs come nearer."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(6, 6)).astype(np.float32) for name in "wvkj"}
    body = """agraph (float[N,T,6] a, float[N,T,6] b) => (float[N,T,6] y, float[N,T,6] z)
        { c = MatMul(a, w) d = Relu(c) y = MatMul(d, v) e = MatMul(b, k) f = Relu(e) g = MatMul(f, j) z = Mul(g, s) }"""
    model = eb.load(graph(body, **weights, s=np.float32(1e-3)))
    data = [(normal(32, t, 6, seed=t), normal(32, t, 6, seed=t + 1)) for t in (3, 5, 3, 5)]
    q = eb.quantize(model, data, THREE_BITS)
    better = eb.refine(model, data, q, refinement=QUICK)
    x = normal(64, 4, 6, seed=20), normal(64, 4, 6, seed=21)
    for exact, before, after in zip(model(*x), q(*x), better(*x), strict=True):
        assert sqnr_db(exact, after) > sqnr_db(exact, before) + 0.2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"calibration": images(7)}, eb.CalibrationError, "8 samples in 2 runs or more.* hold 7"),
        ({"start": "fast"}, eb.QuantizationError, "start"),
        (
            {"start": eb.Recipe(activations=eb.Activations(dynamic=True))},
            eb.QuantizationError,
            "neither FLOAT nor dynamic",
        ),
        ({"start": eb.Recipe(activations=eb.FLOAT)}, eb.QuantizationError, "neither FLOAT nor dynamic"),
    ],
)
def test_what_cannot_be_refined_is_refused(net, change, error, message):
    arguments = {"model": net, "calibration": images(16), "start": THREE_BITS} | change
    with pytest.raises(error, match=message):
        eb.refine(**arguments)


def test_the_float_model_is_the_teacher_and_the_start_its_own(net, q, tmp_path):
    with pytest.raises(eb.QuantizationError, match="comes first"):
        eb.refine(q, images(16))
    with pytest.raises(eb.QuantizationError, match="lost its recipe"):
        eb.refine(net, images(16), eb.open(q.save(tmp_path / "q.onnx")))
    other = eb.load(
        graph("agraph (float[N,2] x) => (float[N,2] y) { y = Gemm(x, w) }", w=np.eye(2, dtype=np.float32))
    )
    with pytest.raises(eb.QuantizationError, match="made from another"):
        eb.refine(other, normal(16, 2), q)
