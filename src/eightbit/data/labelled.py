"""Data with labels among them: read once, batch by batch, the labels set aside as they pass.

In: what a caller hands over, and labels if they lie apart. Out: the inputs, and in the end all labels as one array,
which is checked here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.data.feeds import as_numpy
from eightbit.data.given import given
from eightbit.data.replay import Replay, once
from eightbit.data.specs import TensorSpec
from eightbit.errors import EightbitError, EngineError


class Labelled:
    """Iterates over the inputs of `data`, and keeps the labels that pass by; `labels`, if given, stand in their place.

    Raises `error` for data that are none.
    """

    def __init__(
        self,
        data: Any,
        labels: Any,
        specs: Sequence[TensorSpec],
        error: type[EightbitError] = EngineError,
    ) -> None:
        self.data, self.apart, self.specs, self.error = data, labels, tuple(specs), error
        self._seen: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        self._seen = []
        for inputs, labels in given(self.data, self.specs, self.error):
            self._seen.append(labels)
            yield inputs

    def gathered(self) -> NDArray[Any] | None:
        """All labels in one array, whatever they are, or None if there are none. Raises EngineError."""
        if self.apart is not None:
            return _array([self.apart])
        found = [labels for labels in self._seen if labels is not None]
        if found and len(found) != len(self._seen):
            raise EngineError(
                f"{len(found)} of {len(self._seen)} batches carry labels; give them with all or with none"
            )
        return _array(found) if found else None

    def labels(self, samples: int, classes: int) -> NDArray[np.int64] | None:
        """The class of each of so many samples, (samples,), or None if there are no labels.

        Raises EngineError for labels that are no integers from 0 to `classes` - 1, one a sample.
        """
        found = self.gathered()
        if found is None:
            return None
        if found.ndim != 1 or found.dtype.kind not in "iu":
            hot = found.shape == (samples, classes)
            raise EngineError(
                f"labels have shape {found.shape} and dtype {found.dtype}; give one integer class a sample"
                + (", such as labels.argmax(axis=1)" if hot else "")
            )
        if len(found) != samples:
            raise EngineError(f"{len(found)} labels were given for {samples} samples; give one a sample")
        wrong = np.flatnonzero((found < 0) | (found >= classes))
        if wrong.size:
            first = int(wrong[0])
            counted = found.min() == 1 and found.max() == classes
            remedy = (
                "subtract 1 from all"
                if counted
                else "leave such samples out, or give the model's own classes"
            )
            raise EngineError(
                f"label {found[first]} of sample {first} is no class of the model, whose first output names "
                f"0 to {classes - 1}; {remedy}"
            )
        return found.astype(np.int64)


def replayed(data: Any, labels: Any, specs: Sequence[TensorSpec]) -> tuple[Any, Any]:
    """`data` and `labels` themselves, or of data that can be read only once a `Replay` and the labels among them."""
    if not once(data):
        return data, labels
    stream = Labelled(data, labels, specs)
    return Replay(stream, specs, EngineError), stream.gathered()


def _array(labels: list[Any]) -> NDArray[Any]:
    """Labels of batches in one array; (N, 1), as Keras keeps them, is (N,). Raises EngineError."""
    try:
        arrays = [as_numpy(part) for part in labels]
        found = np.concatenate([a.reshape(1) if a.ndim == 0 else a for a in arrays])
    except Exception as cause:
        raise EngineError(f"labels of type {type(labels[0]).__name__} are no array: {cause}") from cause
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
