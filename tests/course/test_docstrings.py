"""The snapshot of docstrings: the same on every Python, split without overlap, and made by the function beside it."""

import hashlib
from importlib.resources import files

import pytest

from eightbit.course import docstrings as module
from eightbit.course.datasets import docstring_split, docstrings
from eightbit.errors import LoadError


def test_snapshot_is_in_the_order_of_digests_and_within_its_limits():
    every = docstrings()
    assert len(every) > 1000
    assert len({d.name for d in every}) == len({d.text for d in every}) == len(every)
    digests = [hashlib.sha256(d.name.encode()).hexdigest() for d in every]
    assert digests == sorted(digests)
    assert all(module.SHORTEST <= len(d.text) <= module.LONGEST for d in every)
    assert all(d.name.startswith(module.MODULES) for d in every)
    folder = files("eightbit.course")
    assert len(folder.joinpath("docstrings.jsonl").read_bytes()) < 250_000
    assert "Python Software Foundation" in folder.joinpath("docstrings_license.txt").read_text("utf-8")


def test_this_python_still_says_most_of_it():
    """Other versions rename, reword and drop: nine in ten names of the snapshot are left, and say much the same."""
    known = {d.name: d.text for d in docstrings()}
    here = {d.name: d.text for d in module.collect()}
    kept = known.keys() & here.keys()
    assert len(kept) > 0.9 * len(known)
    assert sum(known[name][:30] == here[name][:30] for name in kept) > 0.9 * len(kept)
    assert list(here) == sorted(here, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def test_split_has_no_overlap_and_grows_without_changing():
    small, large = docstring_split(8, 20), docstring_split()
    assert (len(large.calibration), len(large.test)) == (64, 400)
    assert (small.calibration, small.test) == (large.calibration[:8], large.test[:20])
    assert not {d.name for d in large.calibration} & {d.name for d in large.test}
    entry = small.test[0]
    assert entry.passage == f"{entry.name}: {entry.text}"


def test_split_refuses_more_than_there_are():
    with pytest.raises(
        LoadError, match=r"2000 docstrings for calibration and 400 for test; there are \d+ in all"
    ):
        docstring_split(2000)
    with pytest.raises(LoadError, match="-1 docstrings for calibration"):
        docstring_split(-1, 3)
