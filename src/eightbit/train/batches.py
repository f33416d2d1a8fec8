"""What `fit` is handed -> batches of tensors, the labels apart, and what a teacher has said of them before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eightbit.data.given import is_array
from eightbit.errors import QuantizationError
from eightbit.train.training import Training


@dataclass(frozen=True)
class Batch:
    """Samples of one step; `labels` int64 and `told`, the teacher's noted answers, are None where there are none."""

    inputs: tuple[Tensor, ...]
    labels: Tensor | None
    told: Tensor | None = None


class Batches:
    """Data batch by batch, in a new order every epoch where they are arrays.

    `told` are a teacher's answers, sample by sample, for data that are arrays.
    """

    def __init__(self, data: Any, training: Training, *, labelled: bool, told: Any = None) -> None:
        self.data, self.training, self.labelled, self.told = data, training, labelled, told
        if not is_array(data) and not is_pair(data) and iter(data) is data:
            raise QuantizationError(
                "training reads the data once an epoch; give arrays, a list or a DataLoader, not a generator"
            )
        first = data[0] if is_pair(data) else data
        if is_array(first):
            self.length = math.ceil(len(first) / training.batch)
        else:
            self.length = len(data) if hasattr(data, "__len__") else sum(1 for _ in data)
        if told is None:
            return
        if not is_array(first):
            raise QuantizationError(
                "a teacher's answers as an array go with inputs that are an array, sample by sample; for batches give "
                "the teacher itself"
            )
        if len(told) != len(first):
            raise QuantizationError(
                f"inputs and the teacher's answers differ in number: {len(first)} and {len(told)}"
            )

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`. Raises QuantizationError for batches without what the loss needs."""
        for batch, told in self._raw(number):
            parts = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
            if self.labelled and len(parts) < 2:
                raise QuantizationError("a batch has no labels; give (inputs, labels), or a teacher")
            *inputs, last = parts
            if self.labelled or (len(parts) > 1 and _integers(last)):
                yield Batch(tuple(map(torch.as_tensor, inputs)), torch.as_tensor(last).long(), told)
            else:
                yield Batch(tuple(map(torch.as_tensor, parts)), None, told)

    def _raw(self, number: int) -> Iterable[tuple[Any, Tensor | None]]:
        arrays = self.data if is_pair(self.data) else (self.data,)
        if not all(map(is_array, arrays)):
            yield from ((batch, None) for batch in self.data)
            return
        if len({len(a) for a in arrays}) > 1:
            raise QuantizationError(f"inputs and labels differ in number: {[len(a) for a in arrays]}")
        random = np.random.default_rng([self.training.seed, number])
        order = random.permutation(len(arrays[0]))
        for start in range(0, len(order), self.training.batch):
            chosen = order[start : start + self.training.batch]
            told = None if self.told is None else torch.as_tensor(self.told[chosen])
            yield tuple(a[chosen] for a in arrays), told


def is_pair(data: Any) -> bool:
    """Whether `data` are two arrays: inputs, and labels."""
    return isinstance(data, tuple) and len(data) == 2 and all(map(is_array, data))


def _integers(value: Any) -> bool:
    kind = torch.as_tensor(value)
    return not kind.is_floating_point() and kind.ndim == 1
