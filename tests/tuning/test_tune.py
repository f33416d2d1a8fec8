"""Tuning meets budgets, says so where it cannot, and gives the same wherever its trials run."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import eightbit as eb
from eightbit.errors import QuantizationError
from eightbit.quant.choose.recipe_file import read_recipe
from eightbit.tuning.allocation import STORED, Plan, allocate, mean_bits, noise, uniform, upgrades
from eightbit.tuning.search import touched_by
from eightbit.tuning.sensitivity import sensitivity, stage_for_tuning
from eightbit.tuning.target import Trial, pareto_front
from tests.small_net import images, small_net


@pytest.fixture(scope="module")
def model():
    return eb.load(small_net())


@pytest.fixture(scope="module")
def found(model):
    return sensitivity(model, images(32), samples=4)


@pytest.fixture(scope="module")
def tuned(model):
    return eb.tune(model, images(32), target=eb.Target(bits=5), held_out=images(64, seed=1))


def test_a_plan_spends_no_more_than_it_may_and_more_bits_mean_less_noise(found):
    plans = [allocate(found, bits) for bits in (2, 3, 4, 5, 6, 8)]
    for bits, plan in zip((2, 3, 4, 5, 6, 8), plans, strict=True):
        assert mean_bits(found, plan) <= bits
        assert set(plan.weights.values()) <= set(STORED)
    powers = [noise(found, plan) for plan in plans]
    assert powers == sorted(powers, reverse=True)
    assert plans[-1] == uniform(found, 8)


def test_a_plan_is_the_best_of_its_size(found):
    """Against every plan there is: three layers of three widths."""
    nodes = [s.node for s in found.weights]
    grid = np.array(np.meshgrid(*[STORED] * len(nodes))).reshape(len(nodes), -1).T
    every = [Plan(dict(zip(nodes, map(int, row), strict=True))) for row in grid]
    for bits in (2.0, *(mean_bits(found, allocate(found, b)) for b in (4, 5, 6)), 8.0):
        mine = allocate(found, bits)
        rivals = [p for p in every if mean_bits(found, p) <= mean_bits(found, mine) + 1e-9]
        assert noise(found, mine) <= min(noise(found, p) for p in rivals) * (1 + 1e-9)


def test_steps_to_sixteen_bits_take_noise_away_one_by_one_and_keep_to_the_bytes(model, found):
    touched = touched_by(stage_for_tuning(model.ir, images(8), eb.Recipe()), found)
    start = uniform(found, 8)
    plans = upgrades(found, start, touched, spare=1e9)
    powers = [noise(found, p) for p in plans if not p.floats]
    assert powers == sorted(powers, reverse=True) and powers[-1] < powers[0] / 1e4
    assert len(powers) == 1 + len(found.sources) and len(plans) == len(powers) + len(found.weights)
    assert set(plans[-1].floats) == {s.node for s in found.weights}
    tight = upgrades(found, start, touched, spare=8 * min(s.count for s in found.weights))
    grown = sum(
        (bits - 8) * next(s.count for s in found.weights if s.node == n)
        for n, bits in tight[-1].weights.items()
    )
    assert 0 < grown <= 8 * min(s.count for s in found.weights) and not tight[-1].floats


def test_a_wide_tensor_touches_the_layers_that_write_and_read_it(model, found):
    touched = touched_by(stage_for_tuning(model.ir, images(8), eb.Recipe()), found)
    assert touched["image"] == {"stem"}
    assert touched["relu1"] == {"stem", "body"}  # the clamp's work is done by the layer before it
    assert touched["skip"] == set() and touched["mean"] == {"classifier"}  # through the Flatten


def test_a_step_beside_a_slow_layer_is_cheaper(found):
    """Two tensors of equal noise: the one whose layers are slow already comes first."""
    first, second, third = found.activations[:3]
    equal = {8: 1.0, 16: 0.0}
    sources = tuple(
        replace(s, noise=equal if s is not first else {8: 9.0, 16: 0.0}) for s in (first, second, third)
    )
    layers = [replace(s, noise=dict.fromkeys(s.noise, 0.0)) for s in found.weights]
    made = replace(found, sources=(*layers, *sources))
    big = max(found.weights, key=lambda s: s.macs).node
    touched = {
        first.node: frozenset({big}),
        third.node: frozenset({big}),
        second.node: frozenset({found.weights[0].node}),
    }
    plans = upgrades(made, uniform(found, 8), touched, spare=0.0)
    assert [len(p.wide) for p in plans[:4]] == [0, 1, 2, 3]
    assert plans[2].wide == {first.node, third.node}


def test_an_override_names_one_node_even_if_its_name_looks_like_a_pattern(found):
    recipe = Plan({"conv[1]*": 4}).recipe(eb.Recipe())
    assert recipe.for_layer("conv[1]*", "Conv").weights.bits == 4
    assert recipe.for_layer("conv1x", "Conv").weights.bits == 8
    like_an_op = Plan({"op:Conv": 4}).recipe(eb.Recipe())
    assert like_an_op.for_layer("op:Conv", "Conv").weights.bits == 4
    assert like_an_op.for_layer("stem", "Conv").weights.bits == 8


def test_a_plan_decides_for_its_nodes_whatever_the_recipe_said_before():
    said = {"stem": eb.FLOAT, "*": eb.Layer(eb.Weights(bits=6)), "op:Conv": eb.Layer(eb.Weights(bits=5))}
    recipe = Plan({"stem": 4}).recipe(eb.Recipe(overrides=said))
    assert recipe.for_layer("stem", "Conv").weights.bits == 4 and not recipe.keeps_float("stem", "Conv")
    assert recipe.for_layer("body", "Conv").weights.bits == 5
    assert recipe.for_layer("last", "Gemm").weights.bits == 6


def test_a_budget_for_bits_is_met_by_a_recipe_that_can_be_used_again(model, tuned):
    assert tuned.met and tuned.chosen.bits <= 5
    again = eb.quantize(model, images(32), tuned.recipe)
    x = images(8, seed=2)
    np.testing.assert_array_equal(again(x), tuned.model(x))
    assert tuned.held_out is not None and tuned.held_out.agreement < 1.0 + 1e-12
    assert "met" in str(tuned) and "<table>" in tuned._repr_html_()
    assert tuned.to_dict()["chosen"]["bits"] == tuned.chosen.bits


def test_layers_in_turn_are_tried_as_they_are_quantized(model):
    start = eb.Recipe(eb.Weights(bits=4))
    result = eb.tune(model, images(32), target=eb.Target(bits=4), recipe=start)
    assert result.recipe.weights.rounding.in_turn
    again = eb.quantize(model, images(32), result.recipe, check=False)
    x = images(8, seed=1)
    np.testing.assert_array_equal(again(x), result.model(x))


def test_the_front_holds_what_no_trial_beats(tuned):
    front = tuned.front
    assert len(front) >= 2
    for trial in tuned.trials:
        assert any(f.size <= trial.size and f.quality >= trial.quality for f in front)
    for a, b in pairwise(front):
        assert a.size < b.size and a.quality < b.quality


def test_one_run_after_another_finds_the_same(model, tuned):
    again = eb.tune(model, images(32), target=eb.Target(bits=5), held_out=images(64, seed=1))
    assert again.trials == tuned.trials and again.recipe == tuned.recipe


def test_a_budget_that_cannot_be_met_is_said_to_be_missed(model):
    result = eb.tune(model, images(16), target=eb.Target(agreement=1.0, size=0.01))
    assert not result.met
    assert any(miss.startswith("size") for miss in result.misses)
    assert "NOT met" in str(result)
    fewest = min(len(result.target.misses(t)) for t in result.trials)
    assert len(result.misses) == fewest


def test_quality_beyond_eight_bits_is_bought_with_sixteen(model, tmp_path):
    """Where eight bits are not enough, some tensors get 16, no more than needed; the recipe file says which."""
    test = images(64, seed=5)
    exact = model(test)

    def close(net) -> float:
        return float((np.abs(net(test) - exact) < exact.std() / 400).mean())

    result = eb.tune(model, test, close, target=eb.Target(drop=0.02, size=2))
    base = next(t for t in result.trials if t.step == "steps to 16 bits x 0")
    assert base.drop is not None and base.drop > 0.1
    assert result.met and result.chosen.sqnr_db > base.sqnr_db + 3
    layers = [c for c in result.recipe.overrides.values() if isinstance(c, eb.Layer)]
    assert any(c.activations and c.activations.bits == 16 for c in layers)
    assert result.chosen.bits < max(t.bits for t in result.trials)
    again = eb.quantize(model, test, read_recipe(result.save_recipe(tmp_path / "r.toml")))
    np.testing.assert_array_equal(again(test), result.model(test))


def test_turning_knobs_from_a_plain_recipe_gains_quality(model):
    result = eb.tune(model, images(32), target=eb.Target(bits=8), recipe=eb.Recipe.plain())
    first = result.trials[0]
    assert first.step == "as given" and first.recipe == eb.Recipe.plain().settled(True)
    assert result.chosen.quality >= first.quality
    assert len({t.step for t in result.trials}) == len(result.trials)


def _accuracy(model) -> float:
    """How often a model sees the sign of the picture's mean in its first two classes: any function will do."""
    x = images(32, seed=3)
    return float((model(x).argmax(1) == (x.mean((1, 2, 3)) > 0)).mean())


def test_accuracy_comes_from_evaluate_and_must_be_a_share(model):
    result = eb.tune(model, images(16), _accuracy, target=eb.Target(drop=0.5))
    assert result.met and result.chosen.drop is not None
    assert result.chosen.drop == pytest.approx(_accuracy(model) - _accuracy(result.model), abs=1e-12)
    with pytest.raises(QuantizationError, match="share between 0 and 1"):
        eb.tune(model, images(16), lambda m: 97.0, target=eb.Target(drop=0.1))


def test_labels_among_the_data_give_the_accuracy(model):
    x = images(32, seed=4)
    labels = model(x).argmax(1).astype(np.int64)  # the float model is always right
    result = eb.tune(model, images(16), target=eb.Target(bits=8), data={"image": x, "labels": labels})
    assert result.chosen.drop == pytest.approx(1 - result.chosen.agreement)


def test_an_executor_gives_what_this_process_gives(model, tuned):
    with ThreadPoolExecutor(2) as pool:
        spread = eb.tune(model, images(32), target=eb.Target(bits=5), executor=pool)
    assert spread.trials == tuned.trials


@pytest.mark.slow
def test_processes_give_what_this_process_gives(model, tuned):
    spread = eb.tune(model, images(32), _accuracy, target=eb.Target(bits=5), workers=2)
    assert [replace(t, drop=None) for t in spread.trials] == list(tuned.trials)


@pytest.mark.slow
def test_a_dask_cluster_gives_what_this_process_gives(model, tuned):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        spread = eb.tune(model, images(32), target=eb.Target(bits=5), executor=client)
    assert spread.trials == tuned.trials


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({}, "asks for nothing"), ({"drop": 2}, "drop=2"), ({"bits": 1}, "bits=1"), ({"size": -1}, "size=-1")],
)
def test_targets_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(QuantizationError, match=message):
        eb.Target(**arguments)


def test_workers_and_executors_that_make_no_sense_are_refused(model):
    for arguments, message in (
        ({"workers": 0}, "workers=0"),
        ({"executor": 3}, "no method `submit`"),
        ({"workers": 2, "executor": ThreadPoolExecutor(1)}, "give one of them"),
    ):
        with pytest.raises(QuantizationError, match=message):
            eb.tune(model, images(4), target=eb.Target(bits=5), **arguments)


def test_a_front_needs_both_size_and_quality():
    def trial(size: float, agreement: float) -> Trial:
        return Trial(eb.Recipe(), "t", size, 8.0, agreement, 20.0)

    small, large, worse = trial(0.2, 0.9), trial(0.3, 0.95), trial(0.3, 0.85)
    assert pareto_front([worse, large, small]) == (small, large)
