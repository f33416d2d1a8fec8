"""What comes back to the caller: the outputs of a graph, as arrays of the kind that the inputs were.

In: a graph, what a caller handed in, and the arrays of a run. Out: NumPy arrays, or PyTorch or TensorFlow tensors if
tensors were given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.data.feeds import TensorSpec
from eightbit.errors import LoadError

Array = NDArray[np.generic]
TEXT = "OSU"
"""Kinds of arrays that no tensor can hold."""


def output_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """Name, dtype and shape of each output of `model`, in graph order.

    Raises LoadError if an output has no dtype or no rank (sequence and map outputs included).
    """
    found = []
    for value in model.graph.outputs:
        if value.dtype is None or value.shape is None or not isinstance(value.type, ir.TensorType):
            raise LoadError(
                f"graph output '{value.name}' has no dtype or rank; export the model with typed tensor outputs"
            )
        shape = tuple(d if isinstance(d, int) else None for d in value.shape)
        found.append(TensorSpec(str(value.name), value.dtype.numpy(), shape))
    return tuple(found)


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

    for value in _leaves(given):
        if torch is not None and isinstance(value, torch.Tensor):
            return partial(to_torch, device=value.device)
        if tf is not None and isinstance(value, tf.Tensor | tf.Variable):
            return to_tensorflow
    return lambda array: array


def _leaves(given: Any) -> Iterator[Any]:
    if isinstance(given, Mapping):
        given = tuple(given.values())
    if isinstance(given, tuple | list):
        for part in given:
            yield from _leaves(part)
    else:
        yield given


def _writable(array: Array) -> Array:
    """The array itself, or a copy of one that is read-only: a tensor could be used to write into it."""
    return array if array.flags.writeable else array.copy()
