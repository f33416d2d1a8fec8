"""Data with labels among them: read once, batch by batch, the labels set aside as they pass.

In: what a caller of `compare` hands over. Out: the batches unchanged, and in the end all labels as one array.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from eightbit.data.feeds import LABELS, TensorSpec
from eightbit.errors import EngineError


class Labelled:
    """Iterates over data as they were given, and keeps the labels that pass by."""

    def __init__(self, data: Any, labels: Any, specs: tuple[TensorSpec, ...]) -> None:
        self.data = [data] if is_one_batch(data, specs) else data
        self.given, self.specs = labels, specs
        self.seen: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches as given. Raises EngineError for data that are none."""
        if not isinstance(self.data, Iterable) or isinstance(self.data, str | bytes):
            raise EngineError(
                f"data of type {type(self.data).__name__} cannot be used; give an array, a dict of arrays, or an "
                "iterable of batches"
            )
        for batch in self.data:
            self.seen.append(_labels_of(batch, self.specs))
            yield batch

    def labels(self) -> np.ndarray | None:
        """All labels (N,), or None if there are none. Raises EngineError for labels that are no integers."""
        found = [self.given] if self.given is not None else [x for x in self.seen if x is not None]
        if not found:
            return None
        if self.given is None and len(found) != len(self.seen):
            raise EngineError(
                f"{len(found)} of {len(self.seen)} batches carry labels; give them with all or with none"
            )
        arrays = [np.asarray(x.detach().cpu() if hasattr(x, "detach") else x) for x in found]
        labels = np.concatenate([a.reshape(1) if a.ndim == 0 else a for a in arrays])
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels  # Keras keeps a column
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise EngineError(
                f"labels have shape {labels.shape} and dtype {labels.dtype}; give one integer class a sample"
            )
        return labels


def is_one_batch(data: Any, specs: tuple[TensorSpec, ...]) -> bool:
    """Whether `data` are one batch and not an iterable of them: an array, a dict, or a pair (x, labels)."""
    if isinstance(data, Mapping) or (hasattr(data, "shape") and hasattr(data, "dtype")):
        return True
    # (x, labels): the second is no input of the model, so this is one batch and not two.
    return (
        isinstance(data, tuple)
        and len(data) == len(specs) + 1
        and all(hasattr(x, "shape") for x in data)
        and len(data[-1].shape) == 1
        and len(specs[0].shape) != 1
    )


def _labels_of(batch: Any, specs: tuple[TensorSpec, ...]) -> Any:
    if isinstance(batch, Mapping):
        return None if any(s.name == LABELS for s in specs) else batch.get(LABELS)
    if isinstance(batch, tuple | list) and batch:
        nested = isinstance(batch[0], Mapping | tuple | list)  # ((a, b), labels)
        inputs = 1 if nested else len(specs)
        return batch[inputs] if len(batch) > inputs else None
    return None
