"""What `fit` is handed -> batches of tensors, the labels apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eightbit.data.given import is_array
from eightbit.errors import QuantizationError
from eightbit.train.training import Training


class Batches:
    """Data as batches of (inputs, labels or None), in a new order every epoch where they are arrays."""

    def __init__(self, data: Any, training: Training, *, labelled: bool) -> None:
        self.data, self.training, self.labelled = data, training, labelled
        if not is_array(data) and not is_pair(data) and iter(data) is data:
            raise QuantizationError(
                "training reads the data once an epoch; give arrays, a list or a DataLoader, not a generator"
            )
        first = data[0] if is_pair(data) else data
        if is_array(first):
            self.length = math.ceil(len(first) / training.batch)
        else:
            self.length = len(data) if hasattr(data, "__len__") else sum(1 for _ in data)

    def epoch(self, number: int) -> Iterator[tuple[tuple[Tensor, ...], Tensor | None]]:
        """The batches of epoch `number`. Raises QuantizationError for batches without what the loss needs."""
        for batch in self._raw(number):
            parts = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
            if self.labelled and len(parts) < 2:
                raise QuantizationError("a batch has no labels; give (inputs, labels), or a teacher")
            *inputs, last = parts
            if self.labelled or (len(parts) > 1 and _integers(last)):
                yield tuple(map(torch.as_tensor, inputs)), torch.as_tensor(last).long()
            else:
                yield tuple(map(torch.as_tensor, parts)), None

    def _raw(self, number: int) -> Iterable[Any]:
        arrays = self.data if is_pair(self.data) else (self.data,)
        if not all(map(is_array, arrays)):
            yield from self.data
            return
        if len({len(a) for a in arrays}) > 1:
            raise QuantizationError(f"inputs and labels differ in number: {[len(a) for a in arrays]}")
        random = np.random.default_rng([self.training.seed, number])
        order = random.permutation(len(arrays[0]))
        for start in range(0, len(order), self.training.batch):
            chosen = order[start : start + self.training.batch]
            yield tuple(a[chosen] for a in arrays)


def is_pair(data: Any) -> bool:
    """Whether `data` are two arrays: inputs, and labels."""
    return isinstance(data, tuple) and len(data) == 2 and all(map(is_array, data))


def _integers(value: Any) -> bool:
    kind = torch.as_tensor(value)
    return not kind.is_floating_point() and kind.ndim == 1
