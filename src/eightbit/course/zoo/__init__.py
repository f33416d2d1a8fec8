"""The course's models: `load("resnet8")` gives a trained torch module, `example("resnet8")` an input for it.

Importing this module needs NumPy only; `load` and `example` need torch and say so where it is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eightbit.course.zoo.catalog import ENTRIES, find, require_torch

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["example", "load", "load_keras", "names", "preprocess_for"]


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


def load_keras(name: str) -> Any:
    """The model called `name` with the same weights as a keras.Model (inputs channels last), if it has such a twin.

    Raises:
        LoadError: no such model, no twin in Keras, or no checkpoint of it.
        MissingExtra: keras is not installed.
    """
    return find(name).load_keras()


def example(name: str, batch: int = 1) -> Tensor:
    """A seeded standard-normal float32 input of `batch` items for the model called `name`, to trace it with."""
    entry = find(name)
    require_torch()
    import torch

    return torch.randn(batch, *entry.shape, generator=torch.Generator().manual_seed(0))


def preprocess_for(name: str, images: Any) -> NDArray[np.float32]:
    """Raw uint8 pictures, batch first, as the float32 input of the model called `name`."""
    return find(name).preprocess(images)
