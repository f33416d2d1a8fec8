"""A plan keeps its budget, wastes little of it, is found quickly, and holds on a network."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import eightbit as eb
from labs.network import chain
from labs.practice.budget import allocate

WIDTHS = (2, 4, 8)


def problem(layers, seed):
    """Noise that falls by about sixteen for two bits, on layers of very different size and weight."""
    rng = np.random.default_rng(seed)
    counts = {f"fc{i}": int(n) for i, n in enumerate(rng.integers(100, 10_000, layers))}
    noise = {name: {b: rng.lognormal(0, 2) * 4.0**-b for b in (2, 4, 8)} for name in counts}
    for powers in noise.values():
        powers.update(zip(WIDTHS, sorted(powers.values(), reverse=True), strict=True))
    return noise, counts, 4.5 * sum(counts.values())


def cost(plan, noise, counts):
    """Noise and bits of a plan."""
    return sum(noise[n][b] for n, b in plan.items()), sum(counts[n] * b for n, b in plan.items())


@pytest.mark.parametrize("seed", [0, 7, 9])
def test_a_small_plan_is_nearly_the_best_of_all(seed):
    noise, counts, budget = problem(6, seed)
    every = [dict(zip(counts, bits, strict=True)) for bits in product(WIDTHS, repeat=6)]
    best = min(n for n, bits in (cost(plan, noise, counts) for plan in every) if bits <= budget)
    found, bits = cost(allocate(noise, counts, budget), noise, counts)
    assert bits <= budget
    assert found <= 1.2 * best


def test_a_large_plan_is_near_what_any_could_reach():
    noise, counts, budget = problem(200, 0)
    found, bits = cost(allocate(noise, counts, budget), noise, counts)
    assert bits <= budget
    assert found <= 1.05 * bound(noise, counts, budget)


def bound(noise, counts, budget):
    """No plan within the budget has less noise: Lagrange's lower bound, at the best of many prices of a bit."""
    return max(
        sum(min(noise[n][b] + price * counts[n] * b for b in WIDTHS) for n in counts) - price * budget
        for price in np.geomspace(1e-12, 1, 2000)
    )


def test_on_a_network_mixed_widths_beat_four_bits_everywhere():
    rng = np.random.default_rng(0)
    shapes = [(48, 16), (48, 48), (48, 48), (8, 48)]
    weights = [rng.standard_normal(shape) / np.sqrt(shape[1]) for shape in shapes]
    weights[1] = np.sign(weights[1]) / np.sqrt(
        48
    )  # a layer that was trained with two bits, and needs no more
    model, x = eb.load(chain(*weights)), rng.standard_normal((256, 16)).astype(np.float32)
    four = eb.Recipe(weights=eb.Weights(bits=4, rounding=eb.Nearest()), equalize=False, smooth=False)
    found = eb.sensitivity(model, x, four)
    counts = {s.node: s.count for s in found.weights}
    plan = allocate({s.node: dict(s.noise) for s in found.weights}, counts, 4 * sum(counts.values()))
    assert sum(counts[name] * bits for name, bits in plan.items()) <= 4 * sum(counts.values())
    layers = {
        name: eb.Layer(weights=eb.Weights(bits=bits, rounding=eb.Nearest())) for name, bits in plan.items()
    }
    mixed = replace(four, overrides=layers)
    assert sqnr(model, x, mixed) > sqnr(model, x, four) + 1


def sqnr(model, x, recipe):
    """What is left of the output, in dB."""
    return eb.compare(model, eb.quantize(model, x, recipe), x).outputs[0].sqnr_db
