"""What callers hand in becomes checked dicts of arrays, whatever its form, and bad input says why."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightbit.data.feeds import TensorSpec, batches, feed, samples, side_by_side
from eightbit.errors import CalibrationError

F32, I64 = np.dtype("float32"), np.dtype("int64")
ONE = (TensorSpec("x", F32, (None, 3)),)
TWO = (TensorSpec("ids", I64, (None, None)), TensorSpec("mask", F32, (None, None)))


def arange(n: int) -> np.ndarray:
    return np.arange(3 * n, dtype=F32).reshape(n, 3)


def test_array_tuple_and_dict_are_the_same_feed() -> None:
    x = arange(2)
    for value in (x, (x,), [x], {"x": x}, x.astype(np.float64)):
        (name, array), *rest = feed(value, ONE, CalibrationError).items()
        assert (name, array.dtype, rest) == ("x", F32, [])
        np.testing.assert_array_equal(array, x)


def test_torch_tensors_are_accepted_even_with_gradients() -> None:
    torch = pytest.importorskip("torch")
    x = torch.ones(2, 3, requires_grad=True)
    np.testing.assert_array_equal(feed(x, ONE, CalibrationError)["x"], np.ones((2, 3), F32))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"y": arange(1)}, r"inputs given: \['y'\]; inputs of the model: \['x'\]"),
        ((arange(1), arange(1)), r"2 input\(s\) given, the model takes 1: x: float32 \(\?, 3\)"),
        (np.zeros((2, 4), F32), r"input 'x' has shape \(2, 4\), expected x: float32 \(\?, 3\)"),
        (np.zeros(3, F32), r"rank 1, expected rank 2 .*; add a batch axis"),
        (np.zeros((0, 3), F32), r"an axis of size 0"),
        (np.zeros((1, 3), np.uint8), r"input 'x' has dtype uint8, expected float32; .*astype"),
        (
            np.array([[0, np.nan, np.inf]], F32),
            r"input 'x' holds 2 value\(s\) that are NaN or Inf \(first at \(0, 1\)\)",
        ),
        (np.array([[0, 0, 1e300]]), r"too large for float32"),
        ("text", r"input 'x' has shape \(\) of rank 0"),
    ],
)
def test_bad_input_names_the_input_and_the_remedy(value: object, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        feed(value, ONE, CalibrationError)


def test_integers_are_narrowed_only_if_every_value_survives() -> None:
    spec = (TensorSpec("i", np.dtype("int32"), (None,)),)
    assert feed(np.array([7], np.int64), spec, CalibrationError)["i"].dtype == np.int32
    with pytest.raises(CalibrationError, match="too large for int32"):
        feed(np.array([2**31]), spec, CalibrationError)


@pytest.mark.parametrize(
    "data",
    [
        arange(2),
        {"x": arange(2), "labels": np.zeros(2)},
        [arange(2)],
        [(arange(2), np.zeros(2))],
        [[arange(2), np.zeros(2)]],
        [{"x": arange(2), "labels": np.zeros(2)}],
        [({"x": arange(2)}, np.zeros(2))],
        (b for b in [arange(2)]),
    ],
)
def test_every_form_of_data_is_the_same_single_batch(data: object) -> None:
    (only,) = batches(data, ONE, CalibrationError)
    assert list(only) == ["x"]
    np.testing.assert_array_equal(only["x"], arange(2))


def test_two_inputs_come_as_tuples_or_dicts_and_labels_are_dropped() -> None:
    ids, mask = np.ones((2, 5), I64), np.ones((2, 5), F32)
    for data in ([(ids, mask, np.zeros(2))], [((ids, mask), np.zeros(2))], {"ids": ids, "mask": mask}):
        (only,) = batches(data, TWO, CalibrationError)
        assert {n: a.shape for n, a in only.items()} == {"ids": (2, 5), "mask": (2, 5)}


def test_data_loader_is_iterated() -> None:
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(arange(4)), torch.zeros(4))
    got = list(batches(torch.utils.data.DataLoader(dataset, batch_size=3), ONE, CalibrationError))
    assert [b["x"].shape for b in got] == [(3, 3), (1, 3)]


@pytest.mark.parametrize("data", [[], {}, iter(())])
def test_empty_data_are_an_error(data: object) -> None:
    with pytest.raises(CalibrationError, match=r"hold no batch|inputs given: \[\]"):
        list(batches(data, ONE, CalibrationError))


@pytest.mark.parametrize("data", ["calib.npz", 7, print])
def test_data_that_hold_no_batches_say_what_to_give(data: object) -> None:
    with pytest.raises(CalibrationError, match="give an array, a dict of arrays, or an iterable"):
        list(batches(data, ONE, CalibrationError))


@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6), size=st.sampled_from([None, 1, 2, 3]))
def test_samples_do_not_depend_on_the_batch_split(cuts: list[int], size: int | None) -> None:
    total = sum(cuts)
    spec = (TensorSpec("x", F32, (size, 3)),)
    data = np.split(arange(total), np.cumsum(cuts)[:-1])
    if total % (size or 1):
        with pytest.raises(CalibrationError, match=f"fixed at {size} and {total % (size or 1)} sample"):
            list(samples(data, spec, CalibrationError))
        return
    got = [s["x"] for s in samples(data, spec, CalibrationError)]
    assert {g.shape for g in got} == {(size or 1, 3)}
    np.testing.assert_array_equal(np.concatenate(got), arange(total))


def test_samples_refuse_inputs_of_unequal_length() -> None:
    data = {"ids": np.ones((2, 5), I64), "mask": np.ones((3, 5), F32)}
    with pytest.raises(CalibrationError, match=r"different numbers of samples: {'ids': 2, 'mask': 3}"):
        list(samples(data, TWO, CalibrationError))


def test_an_input_without_the_batch_axis_goes_with_every_sample() -> None:
    spec = (TensorSpec("x", F32, (None, 3)), TensorSpec("bias", F32, (1, 3)))
    got = list(samples({"x": arange(2), "bias": np.ones((1, 3), F32)}, spec, CalibrationError))
    assert [(s["x"].shape, s["bias"].shape) for s in got] == [((1, 3), (1, 3))] * 2


@given(lengths=st.lists(st.integers(1, 3), min_size=1, max_size=12), size=st.integers(1, 5))
def test_samples_lie_side_by_side_as_long_as_their_shapes_agree(lengths: list[int], size: int) -> None:
    data = [{"ids": np.full((1, n), i, I64), "mask": np.ones((1, n), F32)} for i, n in enumerate(lengths)]
    got = list(side_by_side(samples(data, TWO, CalibrationError), TWO, size))
    assert [int(row[0]) for batch in got for row in batch["ids"]] == list(range(len(lengths)))
    assert max(len(batch["ids"]) for batch in got) <= size
    for batch, later in itertools.pairwise(got):  # a batch ends where it is full or a new shape begins
        assert len(batch["ids"]) == size or batch["ids"].shape[1] != later["ids"].shape[1]


@pytest.mark.parametrize("spec", [(TensorSpec("x", F32, (2, 3)),), (TensorSpec("x", F32, ()),)])
def test_samples_of_a_fixed_size_pass_as_they_are(spec: tuple[TensorSpec, ...]) -> None:
    given_ones = [{"x": np.zeros(spec[0].shape, F32)} for _ in range(3)]
    assert list(side_by_side(given_ones, spec, 4)) == given_ones


def test_samples_that_share_no_whole_input_stay_apart() -> None:
    spec = (TensorSpec("x", F32, (None, 3)), TensorSpec("bias", F32, (1, 3)))
    data = [{"x": arange(2), "bias": np.full((1, 3), i, F32)} for i in range(2)]
    got = list(side_by_side(samples(data, spec, CalibrationError), spec, 4))
    assert [(len(b["x"]), float(b["bias"][0, 0])) for b in got] == [(2, 0.0), (2, 1.0)]
