"""No timer may fail a test: neither a deadline of a property test nor an assertion about seconds."""

from pathlib import Path

import hypothesis
import pytest

from tests.clocks import timed_asserts

TESTS = Path(__file__).parent
OWN_CLOCK = {TESTS / "report" / "test_timing.py"}  # they run by one that stands still


@pytest.mark.parametrize(
    "path", sorted({*TESTS.rglob("*.py")} - OWN_CLOCK), ids=lambda p: str(p.relative_to(TESTS))
)
def test_no_assertion_is_about_a_time(path: Path):
    assert timed_asserts(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "start = time.perf_counter()\nrun()\nassert time.perf_counter() - start < 1",
        "(a, b), n = interleaved(calls)\nassert a < 0.8 * b",
        "seconds, _ = timing.interleaved(calls)\nratio = seconds[0] / seconds[1]\nassert ratio < 1 and done",
        "seconds, _ = interleaved(calls)\nfor s in seconds:\n    assert s < 3",
        "best = min(timeit.repeat(f))\nassert best < 0.3",
    ],
)
def test_an_assertion_about_a_time_is_found(source: str):
    assert len(timed_asserts(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "times, rounds = interleaved(calls)\nassert all(t >= 0 for t in times)",
        "times, rounds = interleaved(calls)\nassert rounds == 6 and len(times) == 2",
        "start = time.time()\nassert answer == 4",
        "seconds = read()\nassert seconds == 3",
    ],
)
def test_other_assertions_are_left_alone(source: str):
    assert timed_asserts(source) == []


def test_property_tests_have_no_deadline():
    settings = hypothesis.settings()
    assert settings.deadline is None
    assert hypothesis.HealthCheck.too_slow in settings.suppress_health_check
