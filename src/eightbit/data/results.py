"""What comes back to the caller: the outputs of a graph, as arrays of the kind that the inputs were.

In: what a caller handed in, and the arrays of a run. Out: NumPy arrays, or PyTorch or TensorFlow tensors if
tensors were given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.data.given import leaves

Array = NDArray[np.generic]
TEXT = "OSU"
"""Kinds of arrays that no tensor can hold."""


def like(given: Any) -> Callable[[Array], Any]:
    """A function that turns an array into what `given` is: a tensor if a tensor lies in it, else the array itself.

    `given` is what a model was called with: arrays and tensors, in tuples, lists and dicts. A PyTorch tensor comes
    back on the device of the first one given. Arrays of text, which no tensor can hold, stay arrays.
    """
    torch: Any = sys.modules.get("torch")
    tf: Any = sys.modules.get("tensorflow")

    def to_torch(array: Array, device: Any) -> Any:
        return array if array.dtype.kind in TEXT else torch.from_numpy(_writable(array)).to(device)

    def to_tensorflow(array: Array) -> Any:
        return array if array.dtype.kind in TEXT else tf.convert_to_tensor(array)

    for value in _tensors(given):
        if torch is not None and isinstance(value, torch.Tensor):
            return partial(to_torch, device=value.device)
        if tf is not None and isinstance(value, tf.Tensor | tf.Variable):
            return to_tensorflow
    return lambda array: array


def _tensors(given: Any) -> Iterator[Any]:
    """What lies in `given`, and in dicts in it."""
    for part in leaves(given):
        if isinstance(part, Mapping):
            yield from _tensors(tuple(part.values()))
        else:
            yield part


def _writable(array: Array) -> Array:
    """The array itself, or a copy of one that is read-only: a tensor could be used to write into it."""
    return array if array.flags.writeable else array.copy()
