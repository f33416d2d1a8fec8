"""Calls take turns, in bursts if asked, and what warms up is not counted."""

import pytest

from eightbit.report.timing import interleaved


@pytest.mark.parametrize(("burst", "row"), [(1, "ab"), (3, "aaabbb")])
def test_calls_take_turns(burst: int, row: str):
    made: list[str] = []
    times, rounds = interleaved([lambda: made.append("a"), lambda: made.append("b")], rounds=6, burst=burst)
    assert rounds == 6
    assert "".join(made) == "ab" * 3 + row * 6
    assert len(times) == 2
    assert all(t >= 0 for t in times)
