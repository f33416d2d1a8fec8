"""Sums that are normalized in training: where they begin, what they bear, and what becomes of them."""

from dataclasses import replace

import numpy as np
import pytest

import eightbit as eb
from eightbit.train.normal import normal_layers
from tests.small_net import images, small_net
from tests.train.codes import assert_same_codes

torch = pytest.importorskip("torch")

TWO_BITS = eb.Recipe(weights=eb.Weights(bits=2, range=eb.MSE()))
QUICK = eb.Training(epochs=2, batch=32, rate=2e-2, scale_rate=1e-2)


@pytest.fixture(scope="module")
def net() -> eb.Model:
    return eb.load(small_net())


@pytest.fixture
def module(net: eb.Model):
    return eb.trainable(net, images(64), TWO_BITS)


def sums(module, name: str) -> np.ndarray:
    return module.get_buffer(f"sums:{name}").numpy()


def test_training_begins_with_the_function_of_the_quantized_model(module):
    x = torch.from_numpy(images(64))
    with torch.no_grad():
        plain, normalized = module.eval()(x), module.train()(x)
    step = module.plan.start[module.plan.grids[next(reversed(module.plan.grids))].scale]
    assert (plain - normalized).abs().max() <= 2 * step  # a tie in between may fall to the other side
    now, first = np.split(sums(module, "stem"), 2)
    np.testing.assert_allclose(now, first, rtol=1e-4, atol=1e-4)  # float32 sums in two orders


def test_sums_that_grow_are_held(net: eb.Model, module):
    """Where all inputs of a layer double, its normalized outputs stay, to within what the added variance does."""
    x = torch.from_numpy(images(64))
    frozen = eb.trainable(net, images(64), TWO_BITS)
    frozen.freeze()
    with torch.no_grad():
        before = module.train()(x), frozen.train()(x)
        after = module(2 * x), frozen(2 * x)
    moved = [float((b - a).abs().mean() / a.std()) for b, a in zip(before, after, strict=True)]
    assert moved[0] < 0.3 * moved[1]


def test_what_is_normalized_is_folded_into_the_integers(net: eb.Model, module):
    """Eval mode, the int8 model and the frozen module are one function, whatever has become of the statistics."""
    eb.fit(module, (images(128), net(images(128)).argmax(1)), QUICK)
    now, first = np.split(sums(module, "stem"), 2)
    assert not np.allclose(now, first, rtol=1e-3)
    x = images(32, seed=2)
    q = eb.quantize(module)
    assert_same_codes(module, q, x)
    with torch.no_grad():
        told = module(torch.from_numpy(x))
        module.freeze()
        assert_same_codes(module, eb.quantize(module), x)
        again = module(torch.from_numpy(x)), module.train()(torch.from_numpy(x))
    for found in again:
        torch.testing.assert_close(found, told, rtol=0, atol=0.2)  # some steps: w / s rounds anew
    assert (sums(module, "stem")[:2] == now).all()


def test_statistics_are_those_of_the_sums(module):
    """One convolution by hand: mean and variance of codes times steps, the first batch's and then a twentieth."""
    batches = images(64), images(64, seed=1) * 3
    with torch.no_grad():
        for x in batches:
            module.train()(torch.from_numpy(x))
    op = next(op for op in module.plan.program.ops if op.name == "stem")
    grid, found = module.plan.grids[op.inputs[0]], []
    for x in batches:
        steps = np.clip(np.rint(x / module.plan.start[grid.scale]), grid.lo, grid.hi)
        w = torch.from_numpy(op.weight.astype(np.float64))
        acc = torch.nn.functional.conv2d(torch.from_numpy(steps).double(), w, padding=1).numpy()
        found.append(np.stack([acc.mean((0, 2, 3)), acc.var((0, 2, 3)) + 1]))
    now, first = np.split(sums(module, "stem"), 2)
    np.testing.assert_allclose(first, found[0], rtol=1e-4, atol=1e-2)  # sums of float32
    np.testing.assert_allclose(now, 0.95 * found[0] + 0.05 * found[1], rtol=1e-4, atol=1e-2)


def test_a_state_says_whether_it_normalizes(net: eb.Model, module):
    eb.fit(module, images(64), QUICK, teacher=net)
    other = eb.trainable(net, images(64), TWO_BITS)
    other.load_state_dict(module.state_dict())
    x = torch.from_numpy(images(16, seed=3))
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(x), module(x), rtol=0, atol=0)
    assert not other.frozen
    module.freeze()
    other.load_state_dict(module.state_dict())
    assert other.frozen


def test_the_last_part_of_a_training_runs_the_integers_alone(net: eb.Model):
    """With everything frozen nothing is ever counted; with half, counting stops."""
    kept = []
    for share in (0.0, 0.5, 1.0):
        module = eb.trainable(net, images(64), TWO_BITS)
        training = eb.Training(epochs=2, batch=32, average=0.9, frozen=share)
        eb.fit(module, images(64), training, teacher=net, evaluate=lambda m: kept.append(m.frozen) or 0.0)
        assert sums(module, "stem").any() == (share < 1)
    assert kept == [False, False, False, True, True, True]


def test_layers_that_share_or_lack_what_would_be_folded_are_left(net: eb.Model, module):
    plan = module.plan
    assert normal_layers(plan) == {"stem": 8, "body": 8}  # the classifier is no convolution
    shared = replace(plan.layers["body"], scale=plan.layers["stem"].scale)
    assert not normal_layers(replace(plan, layers={**plan.layers, "body": shared}))
    without = replace(plan.layers["body"], bias=None)
    assert list(normal_layers(replace(plan, layers={**plan.layers, "body": without}))) == ["stem"]
    one_scale = eb.Recipe(weights=eb.Weights(granularity=eb.PerTensor()))
    assert not normal_layers(eb.trainable(net, images(32), one_scale).plan)
