"""Calibration data that can be walked through more than once, in memory that does not grow with them."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from eightbit.data.feeds import Feeds, TensorSpec, batches
from eightbit.errors import CalibrationError


class Replay:
    """The batches of `data`, kept in a temporary file that vanishes with this object. Raises CalibrationError."""

    def __init__(self, data: Any, specs: Sequence[TensorSpec]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._names = [spec.name for spec in specs]
        self._count = 0
        for batch in batches(data, specs, CalibrationError):
            for name in self._names:
                np.save(self._file, batch[name], allow_pickle=False)
            self._count += 1

    def __iter__(self) -> Iterator[Feeds]:
        position = 0
        for _ in range(self._count):
            self._file.seek(position)
            batch = {name: np.load(self._file, allow_pickle=False) for name in self._names}
            position = self._file.tell()
            yield batch


def replayable(data: Any, specs: Sequence[TensorSpec]) -> Any:
    """`data` themselves, or a `Replay` of them if they can be walked through only once (a generator)."""
    once = isinstance(data, Iterable) and iter(data) is data
    return Replay(data, specs) if once else data
