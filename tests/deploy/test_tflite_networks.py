"""Whole networks as .tflite: TFLite Micro, the NumPy engine and C give the same integers; XNNPACK the same classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from eightbit.deploy.engines import Engine
from eightbit.deploy.tflite.prepare import net_of
from tests.deploy.networks import NETWORKS, case

INPUTS, CLASSES = 50, 200


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_no_integer_differs(engine: Callable[[str], Engine], name: str) -> None:
    engine("tflm")
    made = case(name)
    x = made.inputs(INPUTS)
    expected = made.q.run(x, engine="numpy", arithmetic="tflite")
    np.testing.assert_array_equal(made.q.run(x, engine="tflm"), expected)
    assert "TRANSPOSE" not in {operator.kind for operator in net_of(made.q.program).operators}


@pytest.mark.slow
def test_lite0(engine: Callable[[str], Engine]) -> None:
    """A crop of a photograph: TFLite Micro takes seconds for it."""
    engine("tflm")
    made = case("lite0")
    x = made.inputs(1)
    expected = made.q.run(x, engine="numpy", arithmetic="tflite")
    np.testing.assert_array_equal(made.q.run(x, engine="tflm"), expected)
    np.testing.assert_array_equal(made.q.run(x, engine="native"), expected)
    assert np.ptp(expected) > 0 and "TRANSPOSE" not in {o.kind for o in net_of(made.q.program).operators}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["litert", "litert-builtin"])
@pytest.mark.parametrize("name", ["resnet8", "mobilenet"])
def test_litert_gives_the_same_classes(engine: Callable[[str], Engine], name: str, which: str) -> None:
    engine(which)
    made = case(name)
    x = made.inputs(CLASSES)
    expected, found = made.q.run(x, engine="numpy", arithmetic="tflite"), made.q.run(x, engine=which)
    assert np.mean(found.argmax(-1) == expected.argmax(-1)) >= 0.995
