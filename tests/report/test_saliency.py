"""Saliency maps of models whose answer is known to rest on given pixels."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.report.saliency import correlation, occlusion, rise
from tests.small_net import images, small_net

SIDE = 12


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, SIDE, SIDE)).astype(np.float32)


def linear(weight: np.ndarray):
    """A model with logits (weight . x, 0)."""
    return lambda x: np.stack([(x.astype(np.float64) * weight).sum(axis=(1, 2, 3)), np.zeros(len(x))], axis=1)


def test_occlusion_of_a_linear_model_is_the_sum_that_was_hidden(image):
    weight = np.random.default_rng(1).normal(size=image.shape)
    found = occlusion(linear(weight), image, 0, patch=3, stride=3)
    gone = weight * (image - image.mean(axis=(1, 2), keepdims=True))
    wanted = gone.sum(axis=0).reshape(4, 3, 4, 3).sum(axis=(1, 3)).repeat(3, 0).repeat(3, 1)
    # float32 mean colour and pixels, float64 sums.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_a_pair_of_classes_is_scored_by_its_lead(image):
    weight = np.random.default_rng(1).normal(size=image.shape)
    run = linear(weight)
    lead = occlusion(run, image, (0, 1), patch=4)
    np.testing.assert_array_equal(lead, occlusion(run, image, 0, patch=4))
    np.testing.assert_array_equal(occlusion(run, image, (1, 0), patch=4), -lead)


def test_squares_reach_the_border_and_overlap(image):
    found = occlusion(linear(np.ones(image.shape)), image, 0, patch=5)
    assert found.shape == (SIDE, SIDE)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("method", [occlusion, rise])
def test_channels_last_is_the_same_picture(image, method):
    weight = np.random.default_rng(1).normal(size=image.shape)
    options = {"patch": 4} if method is occlusion else {"masks": 40}
    first = method(linear(weight), image, 0, **options)
    turned = method(
        linear(weight.transpose(1, 2, 0)), image.transpose(1, 2, 0), 0, channels_last=True, **options
    )
    # Sums of the same products in another order, of float32 means.
    np.testing.assert_allclose(first, turned, rtol=0, atol=1e-4)


def test_rise_finds_the_corner_that_matters(image):
    bright = np.abs(image) + 1
    bright[:, 6:, 6:] += 2
    weight = np.zeros(image.shape)
    weight[:, 6:, 6:] = 1
    found = rise(linear(weight), bright, 0, masks=600)
    inside = found[7:, 7:].mean()
    outside = found[:5, :5].mean()
    assert inside > 10 * abs(outside)
    np.testing.assert_array_equal(found, rise(linear(weight), bright, 0, masks=600))
    assert (found != rise(linear(weight), bright, 0, masks=600, seed=1)).any()
    assert correlation(found, occlusion(linear(weight), bright, 0, patch=4)) > 0.7


def test_float_and_int8_rest_on_the_same_pixels():
    model = eb.load(small_net())
    q = eb.quantize(model, images(16))
    x = images(1, seed=5)[0]
    answer = int(model(x[None]).argmax())
    a, b = (occlusion(run, x, answer, patch=3) for run in (model, q))
    assert a.shape == (8, 8)
    assert 0.8 < correlation(a, b) < 1
    other = occlusion(model, x, (answer + 1) % 5, patch=3)
    assert abs(correlation(a, other)) < correlation(a, b)


def test_correlation():
    assert correlation([[1, 2], [3, 4]], [[2, 4], [6, 8]]) == pytest.approx(1)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert np.isnan(correlation([1, 1], [1, 2]))


def test_what_cannot_be_asked_is_said(image):
    run = linear(np.ones(image.shape))
    with pytest.raises(eb.EngineError, match=r"shape \(12, 12\)"):
        occlusion(run, image[0], 0, patch=3)
    with pytest.raises(eb.EngineError, match="squares of 13 pixels"):
        occlusion(run, image, 0, patch=13)
    with pytest.raises(eb.EngineError, match="tell nothing"):
        rise(run, image, 0, masks=1)
    with pytest.raises(eb.EngineError, match=r"shape \(32,\)"):
        occlusion(lambda x: np.zeros(len(x)), image, 0, patch=3)
