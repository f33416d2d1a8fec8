"""The course's models: `load("resnet8")` gives a trained torch module, `example("resnet8")` an input for it.

Importing this module needs NumPy only; `load` and `example` need torch and say so where it is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eightbit.course.zoo.catalog import ENTRIES, find, require_torch
from eightbit.course.zoo.learned import find_learned

if TYPE_CHECKING:
    from torch import Tensor, nn

    from eightbit.model import QuantizedModel

__all__ = ["example", "load", "load_int8", "load_keras", "load_students", "names", "preprocess_for"]


def names() -> tuple[str, ...]:
    """The names that `load` knows."""
    return tuple(ENTRIES)


def load(name: str) -> nn.Module:
    """The model called `name` with its weights, in eval mode.

    Raises:
        LoadError: no such model, or no checkpoint of it.
        MissingExtra: torch, or the package that holds the weights, is not installed.
    """
    return find(name).load()


def load_int8(name: str) -> QuantizedModel:
    """The int8 model called `name`, which the course trained in its own integers.

    Raises:
        LoadError: no such model, or no checkpoint of it.
    """
    return find_learned(name).load()


def load_students(lesson: str) -> tuple[nn.Module, ...]:
    """The narrow students of the ResNet-8 that were taught by `lesson`, one of each beginning, in eval mode.

    Lessons are "few", "labels", "choices" and "doubts" (`zoo.students.LESSONS`).

    Raises:
        LoadError: no such lesson, or no checkpoint.
        MissingExtra: torch is not installed.
    """
    require_torch()
    from eightbit.course.zoo.students import load_students as load_all

    return load_all(lesson)


def load_keras(name: str) -> Any:
    """The model called `name` with the same weights as a keras.Model (inputs channels last), if it has such a twin.

    Raises:
        LoadError: no such model, no twin in Keras, or no checkpoint of it.
        MissingExtra: keras is not installed.
    """
    return find(name).load_keras()


def example(name: str, batch: int = 1) -> Tensor | dict[str, Tensor]:
    """A seeded input of `batch` items for the model called `name`, to trace it with.

    Pictures are standard-normal float32 numbers; sentences are random token ids and a mask of ones, by input name.
    """
    entry = find(name)
    require_torch()
    import torch

    shape, generator = (batch, *entry.shape), torch.Generator().manual_seed(0)
    if not entry.vocabulary:
        return torch.randn(shape, generator=generator)
    ids = torch.randint(entry.vocabulary, shape, generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def preprocess_for(name: str, raw: Any) -> Any:
    """Raw data, batch first, as the model called `name` takes them.

    Pictures uint8 become one float32 array; a list of texts becomes {"input_ids", "attention_mask"} int64 (N, T).
    """
    return find(name).preprocess(raw)
