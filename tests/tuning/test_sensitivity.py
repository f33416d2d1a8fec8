"""One set of probes says what one quantization per source would say."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from scipy.stats import spearmanr

import eightbit as eb
from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from eightbit.course.zoo.preprocess import fashion_mnist as preprocess
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.safety.design import weighing_design
from eightbit.safety.probes import Kind, Source
from eightbit.tuning.sensitivity import WEIGHT_BITS, chosen_samples, measured, sensitivity, stage_for_tuning
from tests.small_net import images, small_net
from tests.tuning.truth import one_at_a_time


@pytest.mark.parametrize("effects", [1, 2, 3, 4, 7, 11, 12, 19, 25, 50, 83, 111, 130])
def test_weighing_designs_are_orthogonal_and_little_longer_than_needed(effects: int):
    signs = weighing_design(effects)
    assert signs.shape[1] == effects
    assert effects < len(signs) <= 1.25 * effects + 4
    np.testing.assert_array_equal(np.abs(signs), 1)
    np.testing.assert_array_equal(signs.T @ signs, len(signs) * np.eye(effects))
    np.testing.assert_array_equal(signs.sum(axis=0), 0)  # what all runs share is no effect


def _linear_net() -> onnx.ModelProto:
    """Two matrices behind one another: the outputs' error is exactly linear in the first's."""
    rng = np.random.default_rng(1)
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("a", (6, 9)), ("b", (4, 6)))
    ]
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "a"], ["h"], name="first", transB=1),
        onnx.helper.make_node("Gemm", ["h", "b"], ["y"], name="second", transB=1),
    ]
    x, y = (
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", k])
        for n, k in (("x", 9), ("y", 4))
    )
    graph = onnx.helper.make_graph(nodes, "linear", [x], [y], weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


def test_in_a_linear_network_the_probes_tell_the_truth_to_the_last_digits():
    model, x = eb.load(_linear_net()), np.random.default_rng(0).standard_normal((8, 9)).astype(np.float32)
    staged = stage_for_tuning(model.ir, x, eb.Recipe.plain())
    found = measured(staged, chosen_samples(model.ir, x, 8))
    truth = one_at_a_time(staged, eb.Recipe.plain(), x)
    for s in found.sources:
        name = s.node if s.kind is Kind.WEIGHTS else s.tensor
        # float32 runs: errors of 1e-3 of the outputs are known to some 1e-4 of themselves
        assert s.noise[8] == pytest.approx(truth[Source(s.kind, name)], rel=2e-3)
    assert {s.tensor for s in found.activations} == {"x", "h", "y"}


@pytest.fixture(scope="module", params=["resnet8", pytest.param("mobilenet", marks=pytest.mark.slow)])
def trained(request):
    model = eb.load(zoo.load(request.param), zoo.example(request.param))
    x = preprocess(fashion_mnist().train.images[:64])
    return stage_for_tuning(model.ir, x, eb.Recipe()), x


def test_the_order_agrees_with_one_source_at_a_time_at_every_width(trained):
    staged, x = trained
    found = measured(staged, chosen_samples(staged.model, x, 8))
    for bits in (8, 3):
        recipe = (
            staged.recipe
            if bits == 8
            else replace(staged.recipe, weights=replace(staged.recipe.weights, bits=bits))
        )
        truth = one_at_a_time(staged, recipe, x)
        kinds = {Kind.WEIGHTS: (found.weights, bits), Kind.ACTIVATIONS: (found.activations, 8)}
        for kind, (rows, width) in kinds.items():
            told = [s.noise[width] for s in rows]
            true = [truth[Source(kind, s.node if kind is Kind.WEIGHTS else s.tensor)] for s in rows]
            assert spearmanr(told, true).statistic >= 0.8, (kind, bits)
            assert (
                0.5 < sum(told) / sum(true) < 2
            )  # not the order alone: the sum is that of the truth within 3 dB


def test_more_bits_mean_less_noise_and_every_source_is_named_as_overrides_name_it():
    model, x = eb.load(small_net()), images(16)
    found = sensitivity(model, x, samples=2)
    nodes = {str(n.name) for n in model.ir.graph} | {"image"}
    for s in found.sources:
        noise = [s.noise[b] for b in sorted(s.noise)]
        assert noise == sorted(noise, reverse=True)
        assert s.node in nodes
    assert set(found.weights[0].noise) == set(WEIGHT_BITS)
    assert [s.node for s in found.weights] == ["stem", "body", "classifier"]
    # 8 x 8 positions of 8 channels, 3 x 3 taps of 3 channels
    assert found.weights[0].macs == 8 * 8 * 8 * 27
    again = sensitivity(model, x, samples=2)
    assert again == found
    assert "of 9 sources" in str(found) or "sources" in str(found)
    assert "<table>" in found._repr_html_()
    assert len(found.to_dict()["sources"]) == len(found.sources)


def test_all_samples_count_alike_and_data_may_be_read_once():
    model, x = eb.load(small_net()), images(40)
    kept = chosen_samples(model.ir, x, 8)
    assert len(kept) == 8
    assert len(chosen_samples(model.ir, x[:3], 8)) == 3
    once = sensitivity(model, (x[i : i + 8] for i in range(0, 40, 8)), samples=2)
    assert once == sensitivity(model, x, samples=2)


def test_recipes_and_data_that_cannot_be_tuned_are_refused():
    model = eb.load(small_net())
    with pytest.raises(QuantizationError, match="static Activations"):
        sensitivity(model, images(4), eb.Recipe(activations=eb.FLOAT))
    with pytest.raises(CalibrationError, match="no batch"):
        sensitivity(model, [])
