"""A limit on time: measured here for every trial, and kept or missed like any other."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import eightbit as eb
from eightbit.cli import main
from eightbit.tuning import search
from eightbit.tuning.trial import stored_bits
from tests.small_net import images, small_net, write_small_net


@pytest.fixture(scope="module")
def model():
    return eb.load(small_net())


def test_a_limit_that_everything_keeps_is_met_and_every_trial_was_timed(model, monkeypatch):
    monkeypatch.setattr(search, "measure", lambda *given, **limits: SimpleNamespace(ratio=99.5))
    result = eb.tune(model, images(16), target=eb.Target(latency=100, bits=5))
    assert result.met and result.chosen.bits <= 5
    assert {t.latency for t in result.trials} == {99.5}
    assert "latency <= 100" in str(result)
    assert result.to_dict()["chosen"]["latency"] == result.chosen.latency


def test_no_time_is_taken_where_no_limit_asks_for_it(model, monkeypatch):
    monkeypatch.setattr(search, "measure", None)  # a call would raise
    result = eb.tune(model, images(16), target=eb.Target(bits=5))
    assert {t.latency for t in result.trials} == {None}


def test_a_limit_that_nothing_keeps_is_missed_and_said_so(model):
    result = eb.tune(model, images(16), target=eb.Target(latency=1e-6))
    assert not result.met
    assert [miss.split()[0] for miss in result.misses] == ["latency"]
    assert "NOT met: latency" in str(result)


def test_the_limit_decides_between_trials(model, monkeypatch):
    """On a made-up machine where only narrow weights are fast."""

    def clock(model, q, sample, **limits):
        return SimpleNamespace(ratio=0.5 if stored_bits(q.ir) < 6 else 1.5)

    monkeypatch.setattr(search, "measure", clock)
    free = eb.tune(model, images(16), target=eb.Target(latency=2, bits=8))
    bound = eb.tune(model, images(16), target=eb.Target(latency=1, bits=8))
    assert free.met and free.chosen.bits == 8
    assert bound.met and bound.chosen.bits < 6 and bound.chosen.latency == 0.5


def test_trials_run_anywhere_but_the_clock_is_that_of_this_process(model, monkeypatch):
    seen = []

    def clock(model, q, sample, **limits):
        seen.append(threading.current_thread())
        return SimpleNamespace(ratio=float(len(seen)))

    monkeypatch.setattr(search, "measure", clock)
    with ThreadPoolExecutor(2) as pool:
        result = eb.tune(model, images(16), target=eb.Target(latency=100, bits=5), executor=pool)
    assert set(seen) == {threading.main_thread()}
    assert [t.latency for t in result.trials] == [1.0 + i for i in range(len(result.trials))]


def test_the_command_takes_the_limit(tmp_path):
    net = write_small_net(tmp_path)
    np.savez(tmp_path / "c.npz", image=images(16))
    arguments = ["tune", str(net), "-c", str(tmp_path / "c.npz"), "-o", str(tmp_path / "q.onnx")]
    done = CliRunner().invoke(main, [*arguments, "--latency", "0.000001"])
    assert done.exit_code == 1 and "NOT met: latency" in done.stdout
