"""Inputs that always hold the same, as the sampling rate of a voice detector does, become constants of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.data.feeds import feed
from eightbit.data.specs import TensorSpec, specs
from eightbit.errors import LoadError


def hold_constant(model: ir.Model, constants: Mapping[str, Any]) -> None:
    """Make the inputs named in `constants` initializers that hold the values given, in place.

    A single number fits any shape of one element, and a whole number any type that holds it.
    Raises LoadError for a name that is no input, a value that does not fit, or if no input would be left.
    """
    known = {spec.name: spec for spec in specs(model)}
    for name, given in constants.items():
        if name not in known:
            raise LoadError(
                f"'{name}' is no input of the model; its inputs are {', '.join(map(str, known.values()))}"
            )
        array = _array(known[name], given)
        value = next(v for v in model.graph.inputs if v.name == name)
        model.graph.inputs.remove(value)
        value.const_value, value.shape = ir.tensor(array, name=name), ir.Shape(array.shape)
        model.graph.register_initializer(value)
    if constants and len(constants) == len(known):
        raise LoadError(
            "every input is held constant, and nothing is left to ask of the model; leave one free"
        )


def _array(spec: TensorSpec, given: Any) -> np.ndarray:
    array = np.asarray(given)
    if array.size == 1 and all(length in (None, 1) for length in spec.shape):
        array = array.reshape((1,) * len(spec.shape))
    with np.errstate(over="ignore", invalid="ignore"):
        if array.dtype.kind in "iu" and np.array_equal(array.astype(spec.dtype), array):
            array = array.astype(spec.dtype)
    return feed({spec.name: array}, [spec], LoadError)[spec.name]
