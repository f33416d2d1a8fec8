"""Whole networks in C: not one integer differs from the NumPy engine's, and the arena is smaller than what is alive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import eightbit as eb
from tests.deploy.networks import NETWORKS, case

pytestmark = pytest.mark.usefixtures("cc")
INPUTS = 200


@pytest.mark.parametrize("arithmetic", ["tflite", "single"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_no_integer_differs(name: str, arithmetic: str) -> None:
    made = case(name)
    x = made.inputs(INPUTS)
    expected = made.q.run(x, engine="numpy", arithmetic=arithmetic)
    np.testing.assert_array_equal(made.q.run(x, engine="native", arithmetic=arithmetic), expected)
    assert len(np.unique(expected)) > 10


@pytest.mark.slow
def test_the_arena_of_resnet8(tmp_path: Path) -> None:
    """A residual block takes three images of 12,544 bytes, or two and a few rows where outputs slide into inputs."""
    arena = eb.export(case("resnet8").q, tmp_path / "c").arena
    assert arena.most_live >= 3 * 28 * 28 * 16
    assert arena.size <= 0.7 * arena.most_live
