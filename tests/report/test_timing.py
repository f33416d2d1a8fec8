"""Calls take turns, in bursts if asked, and what warms up is not counted. The clock is a made-up one."""

import pytest

from eightbit.report import timing
from eightbit.report.timing import interleaved


class Clock:
    """Stands still but where a call takes its time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, made: list[str], *seconds: float):
        """A function that takes these times, one a call, and the last of them for the rest."""
        taken = list(seconds)

        def run() -> None:
            made.append(name)
            self.now += taken.pop(0) if len(taken) > 1 else taken[0]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "perf_counter", made)
    return made


@pytest.mark.parametrize(("burst", "row"), [(1, "ab"), (3, "aaabbb")])
def test_calls_take_turns(clock: Clock, burst: int, row: str):
    made: list[str] = []
    calls = [clock.call("a", made, 0.0), clock.call("b", made, 0.0)]
    medians, rounds = interleaved(calls, rounds=6, burst=burst)
    assert rounds == 6
    assert "".join(made) == "ab" * 3 + row * 6
    assert len(medians) == 2


def test_the_median_of_each_call_without_its_warm_up(clock: Clock):
    quick = clock.call("a", [], 9, 9, 9, 1, 8, 1, 1, 8, 1, 1)  # three rounds of warm-up, two disturbed ones
    slow = clock.call("b", [], 2)
    assert interleaved([quick, slow], rounds=7, seconds=1e9) == ([1, 2], 7)


def test_a_burst_leaves_out_its_first_call(clock: Clock):
    """Which finds another model's data in the caches."""
    first = clock.call("a", [], 0, 0, 0, *[5, 1, 1] * 6)
    assert interleaved([first], rounds=6, seconds=1e9, burst=3) == ([1], 6)


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 5), (7, 7), (6.5, 7), (1e9, 20)])
def test_time_ends_the_rounds_but_not_before_five(clock: Clock, seconds: float, rounds: int):
    told: list[int] = []
    found = interleaved([clock.call("a", [], 1)], rounds=20, seconds=seconds, tick=told.append)
    assert found == ([1], rounds)
    assert told == list(range(1, rounds + 1))
