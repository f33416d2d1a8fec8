"""What callers hand in becomes checked dicts of arrays, whatever its form, and bad input says why."""

import numpy as np
import pytest

from eightbit.data.feeds import batches, feed
from eightbit.data.specs import TensorSpec
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
            r"input 'x' holds 1 value\(s\) that are NaN \(first at \(0, 1\)\)",
        ),
        (np.array([[0, 0, 1e300]]), r"too large for float32"),
        ("text", r"input 'x' has shape \(\) of rank 0"),
    ],
)
def test_bad_input_names_the_input_and_the_remedy(value: object, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        feed(value, ONE, CalibrationError)


def test_infinities_pass_and_nan_where_it_is_let_through() -> None:
    """Masks hold minus infinity; a model in float takes whatever float32 can be."""
    x = np.array([[0, -np.inf, np.inf]], F32)
    np.testing.assert_array_equal(feed(x, ONE, CalibrationError)["x"], x)
    np.testing.assert_array_equal(feed(x.astype(np.float64), ONE, CalibrationError)["x"], x)
    x[0, 0] = np.nan
    np.testing.assert_array_equal(feed(x, ONE, CalibrationError, nan=True)["x"], x)


def test_an_axis_of_size_zero_passes_where_the_model_fixes_it_at_that() -> None:
    spec = (TensorSpec("axes", I64, (0,)), *ONE)
    assert feed((np.zeros(0, np.int64), arange(2)), spec, CalibrationError)["axes"].shape == (0,)
    with pytest.raises(CalibrationError, match=r"'x' has shape \(0, 3\): an axis of size 0"):
        feed((np.zeros(0, np.int64), arange(0)), spec, CalibrationError)


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


@pytest.mark.parametrize(
    ("shape", "specs", "sample"),
    [
        ((3,), ONE, True),
        ((4,), ONE, False),
        ((5,), TWO[1:], False),  # a sequence of a batch of sequences, or one number of each?
        ((3, 4, 4), (TensorSpec("x", F32, (None, 3, None, None)),), True),
        ((3, 4), (TensorSpec("x", F32, (4, 3, 4)),), True),
        ((3,), (TensorSpec("x", F32, (None, 3), batch=-1),), False),  # no batch axis at all
    ],
)
def test_a_sample_may_lack_the_batch_axis_where_no_other_can_be_meant(shape, specs, sample) -> None:  # type: ignore[no-untyped-def]
    x = np.zeros(shape, F32)
    if sample:
        assert [b[specs[0].name].shape for b in batches([x, x], specs, CalibrationError)] == [(1, *shape)] * 2
    else:
        with pytest.raises(CalibrationError, match="add a batch axis"):
            list(batches([x, x], specs, CalibrationError))


def test_in_a_list_the_second_of_two_arrays_is_a_batch_and_no_labels() -> None:
    with pytest.raises(CalibrationError, match=r"'x' has shape \(2, 4\), expected"):
        list(batches([arange(2), np.zeros((2, 4), F32)], ONE, CalibrationError))
