"""Data that can be walked through more than once, in memory that does not grow with them."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from eightbit.data.feeds import Feeds, batches
from eightbit.data.specs import TensorSpec
from eightbit.errors import CalibrationError, EightbitError

MOST_BYTES = 4 * 2**30
"""What is kept of data that can be read only once, in a file or in memory; some of those never end."""


class Replay:
    """The batches of `data`, kept in a temporary file that vanishes with this object.

    Raises `error` for data that do not fit `specs`, or take more than `MOST_BYTES`.
    """

    def __init__(
        self, data: Any, specs: Sequence[TensorSpec], error: type[EightbitError] = CalibrationError
    ) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._names = [spec.name for spec in specs]
        self._count = 0
        for batch in bounded(batches(data, specs, error), error):
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


def bounded(kept: Iterable[Feeds], error: type[EightbitError]) -> Iterator[Feeds]:
    """What is kept of data that can be read only once. Raises `error` where it takes more than `MOST_BYTES`."""
    size = 0
    for count, batch in enumerate(kept, start=1):
        size += sum(array.nbytes for array in batch.values())
        if size > MOST_BYTES:
            raise error(
                f"data that can be read only once take more than {MOST_BYTES:,} bytes, after {count:,} batches; "
                "give a part of them, such as itertools.islice(data, 100), or what can be read again"
            )
        yield batch


def once(data: Any) -> bool:
    """Whether `data` can be walked through only once, as a generator can."""
    return isinstance(data, Iterable) and iter(data) is data


def replayable(data: Any, specs: Sequence[TensorSpec]) -> Any:
    """`data` themselves, or a `Replay` of them if they can be walked through only once. Raises as `Replay` does."""
    return Replay(data, specs) if once(data) else data
