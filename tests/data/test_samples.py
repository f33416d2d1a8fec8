"""Data become samples, whatever the caller's batches, on whatever axis the batch lies."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightbit.data.batch_axis import batch_axes
from eightbit.data.feeds import Feeds
from eightbit.data.samples import Samples
from eightbit.data.specs import TensorSpec
from eightbit.errors import CalibrationError, EngineError

F32, I64 = np.dtype("float32"), np.dtype("int64")
ONE = (TensorSpec("x", F32, (None, 3)),)
TWO = (TensorSpec("ids", I64, (None, None)), TensorSpec("mask", F32, (None, None)))


def arange(n: int) -> np.ndarray:
    return np.arange(3 * n, dtype=F32).reshape(n, 3)


def rowwise(feeds: Feeds) -> Feeds:
    """A network on the first axis: one number a row of all inputs that have rows."""
    long = max(len(a) for a in feeds.values())
    if any(len(a) not in (1, long) for a in feeds.values()):
        raise EngineError("cannot be broadcast")
    return {"y": sum(a.reshape(len(a), -1).sum(axis=1) for a in feeds.values())}


def samples(data: Any, specs: tuple[TensorSpec, ...], run: Any = rowwise) -> Samples:
    return Samples(
        data, specs, CalibrationError, lambda batch, before: batch_axes(specs, batch, run, before=before)
    )


@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6), size=st.sampled_from([None, 1, 2, 3]))
def test_samples_do_not_depend_on_the_batch_split(cuts: list[int], size: int | None) -> None:
    total = sum(cuts)
    spec = (TensorSpec("x", F32, (size, 3)),)
    data = np.split(arange(total), np.cumsum(cuts)[:-1])
    if total % (size or 1):
        with pytest.raises(CalibrationError, match=f"fixed at {size} and {total % (size or 1)} sample"):
            list(samples(data, spec))
        return
    got = [s["x"] for s in samples(data, spec)]
    assert {g.shape for g in got} == {(size or 1, 3)}
    np.testing.assert_array_equal(np.concatenate(got), arange(total))


def test_an_input_without_the_batch_axis_goes_with_every_sample() -> None:
    spec = (TensorSpec("x", F32, (None, 3)), TensorSpec("bias", F32, (1, 3)))
    got = list(samples({"x": arange(2), "bias": np.ones((1, 3), F32)}, spec))
    assert [(s["x"].shape, s["bias"].shape) for s in got] == [((1, 3), (1, 3))] * 2


@given(lengths=st.lists(st.integers(1, 3), min_size=1, max_size=12), size=st.integers(1, 5))
def test_samples_lie_side_by_side_as_long_as_their_shapes_agree(lengths: list[int], size: int) -> None:
    data = [{"ids": np.full((1, n), i, I64), "mask": np.ones((1, n), F32)} for i, n in enumerate(lengths)]
    got = list(samples(data, TWO).side_by_side(size))
    assert [int(row[0]) for batch in got for row in batch["ids"]] == list(range(len(lengths)))
    assert max(len(batch["ids"]) for batch in got) <= size
    for batch, later in itertools.pairwise(got):  # a batch ends where it is full or a new shape begins
        assert len(batch["ids"]) == size or batch["ids"].shape[1] != later["ids"].shape[1]


@pytest.mark.parametrize("spec", [(TensorSpec("x", F32, (2, 3)),), (TensorSpec("x", F32, ()),)])
def test_samples_of_a_fixed_size_pass_as_they_are(spec: tuple[TensorSpec, ...]) -> None:
    given_ones = [{"x": np.zeros(spec[0].shape, F32)} for _ in range(3)]
    got = list(samples(given_ones, spec).side_by_side(4))
    assert [g["x"].shape for g in got] == [spec[0].shape] * 3


def test_samples_that_share_no_whole_input_stay_apart() -> None:
    spec = (TensorSpec("x", F32, (None, 3)), TensorSpec("bias", F32, (1, 3)))
    data = [{"x": arange(2), "bias": np.full((1, 3), i, F32)} for i in range(2)]
    got = list(samples(data, spec).side_by_side(4))
    assert [(len(b["x"]), float(b["bias"][0, 0])) for b in got] == [(2, 0.0), (2, 1.0)]
