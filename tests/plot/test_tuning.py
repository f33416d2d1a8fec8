"""The plots of tuning show what was tried and what was chosen."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest

import eightbit as eb
from eightbit import plot
from eightbit.tuning.sensitivity import Sensitivity
from eightbit.tuning.target import Target, Trial, Tuned
from tests.small_net import images, small_net


def _trial(size: float, agreement: float, drop: float | None = None) -> Trial:
    return Trial(eb.Recipe(), f"{size}", size, 8.0, agreement, 20.0, drop)


def _tuned(target: Target, *trials: Trial) -> Tuned:
    q = eb.quantize(eb.load(small_net()), images(2))
    return Tuned(eb.Recipe(), q, target, trials[-1], trials, Sensitivity((), eb.Recipe(), 0))


@pytest.mark.parametrize("by_drop", [False, True])
def test_the_front_is_a_line_through_what_no_trial_beats(by_drop: bool):
    drops = (0.02, 0.05, 0.01) if by_drop else (None,) * 3
    trials = [_trial(s, a, d) for s, a, d in zip((0.2, 0.25, 0.3), (0.9, 0.8, 0.95), drops, strict=True)]
    axes = plot.front(_tuned(Target(size=0.28, drop=0.03, agreement=0.9), *trials))
    line = next(x for x in axes.lines if x.get_label() == "front")
    np.testing.assert_allclose(line.get_xdata(), [0.2, 0.3])  # the same floats, through a list
    np.testing.assert_allclose(line.get_ydata(), [2.0, 1.0] if by_drop else [90.0, 95.0])
    ringed = next(x for x in axes.lines if x.get_label() == "chosen")
    assert list(ringed.get_xdata()) == [0.3]
    assert bool(axes.yaxis_inverted()) is by_drop


def test_the_noisiest_sources_carry_their_names():
    found = eb.sensitivity(eb.load(small_net()), images(8), samples=2)
    axes = plot.sensitivity(found)
    assert [t.get_text() for t in axes.texts] == [s.node for s in found.ordered()[:3]]
    points = sum(len(line.get_xdata()) for line in axes.lines)
    assert points == sum(s.noise[8] > 0 for s in found.sources)
