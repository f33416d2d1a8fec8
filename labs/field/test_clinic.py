"""The clinic: patients whose ailment is known, and two instruments to look at them."""

from dataclasses import replace

import numpy as np
import pytest

import eightbit as eb
from labs.field import clinic
from labs.network import chain

PLAIN = eb.Recipe.plain()
SHAPES = [(64, 24), (96, 64), (96, 96), (8, 96)]


def weights(rng, wild=None):
    """Four layers; one channel of layer `wild` is eighty times as wide as the others, and the next takes less of it."""
    made = [rng.uniform(-1, 1, shape) / np.sqrt(shape[1]) for shape in SHAPES]
    if wild is not None:
        made[wild - 1][3] *= 80
        made[wild][:, 3] /= 10
    return made


def patient(kind, seed):
    """(float model, int8 model, data, what the diagnosis should say)."""
    rng = np.random.default_rng(seed)
    layer = int(rng.integers(2, 4))
    data = rng.standard_normal((256, SHAPES[0][1])).astype(np.float32)
    calibration = rng.standard_normal((256, SHAPES[0][1])).astype(np.float32)
    model = eb.load(chain(*weights(rng, layer if kind == "scale" else None)))
    recipe, name = PLAIN, None
    if kind == "too wide":
        calibration[17] *= 100
    elif kind == "too narrow":
        calibration /= 20
    elif kind == "scale":
        recipe = replace(PLAIN, weights=eb.Weights(granularity=eb.PerTensor()))
    elif kind == "bits":
        recipe = replace(PLAIN, overrides={f"fc{layer}": eb.Layer(weights=eb.Weights(bits=3))})
    if kind != "healthy":
        name = "x" if kind.startswith("too") else f"w{layer}"
    says = "range" if kind.startswith("too") else kind
    return model, eb.quantize(model, calibration, recipe), data, (says, name)


def test_the_widest_channel_is_measured_by_the_median_one():
    weight = np.array([[1.0, -2.0], [0.5, 0.1], [-8.0, 3.0]])
    assert clinic.spread(weight) == 4


def test_a_channel_of_zeros_spreads_nothing():
    assert clinic.spread(np.array([[0.0, 0.0], [2.0, 1.0], [2.0, -1.0]])) == 1


def test_the_noise_jumps_where_it_falls_most():
    assert clinic.jump([44.0, 43.0, 29.0, 21.0, 20.0]) == 2
    assert clinic.jump([40.0, 30.0, 31.0, 19.0]) == 3


def test_a_tensor_without_error_is_no_jump_by_itself():
    assert clinic.jump([float("inf"), float("inf"), 45.0, 44.0]) == 2
    assert clinic.jump([12.0, float("inf"), 190.0, 20.0, 19.0]) == 3


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", ["healthy", "too wide", "too narrow", "scale", "bits"])
def test_the_ailment_is_found(kind, seed):
    model, q, data, said = patient(kind, seed)
    assert clinic.diagnose(model, q, data) == said
