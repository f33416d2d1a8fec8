"""Calibration data that can be read once become data that can be read again, on disk and not in memory."""

import numpy as np
import pytest

from eightbit.data.replay import Replay, replayable
from eightbit.data.specs import TensorSpec
from eightbit.errors import CalibrationError

SPECS = (TensorSpec("x", np.dtype("float32"), (None, 3)), TensorSpec("ids", np.dtype("int64"), (None,)))


def pairs(count):
    rng = np.random.default_rng(0)
    for n in range(1, count + 1):
        yield {"x": rng.normal(size=(n, 3)).astype(np.float32), "ids": np.arange(n)}


def test_a_generator_is_read_once_and_gives_its_batches_again_and_again():
    read = []
    replay = replayable((read.append(1) or batch for batch in pairs(4)), SPECS)
    assert isinstance(replay, Replay)
    for walk in (list(replay), list(replay), [a for a, _ in zip(replay, replay, strict=True)]):
        for got, given in zip(walk, pairs(4), strict=True):
            assert got.keys() == given.keys()
            for name, array in given.items():
                np.testing.assert_array_equal(got[name], array)
                assert got[name].dtype == array.dtype
    assert len(read) == 4


@pytest.mark.parametrize("data", [list(pairs(2)), next(pairs(1)), None], ids=["list", "one batch", "none"])
def test_what_can_be_read_again_is_left_alone(data):
    assert replayable(data, SPECS) is data


def test_data_that_do_not_fit_are_named_at_once():
    with pytest.raises(CalibrationError, match="input 'x' has shape"):
        replayable(({"x": np.zeros((1, 4), np.float32), "ids": np.zeros(1, int)} for _ in range(2)), SPECS)
    with pytest.raises(CalibrationError, match="the data hold no batch"):
        replayable(iter(()), SPECS)
