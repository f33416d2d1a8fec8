"""Name, dtype and shape of a graph's inputs and outputs: what a caller must hand in, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from eightbit.errors import LoadError

BATCH_AXIS = "eightbit.batch_axis"
"""Under this key, an input of a graph in memory knows its batch axis, once that has been found."""

CASTS = "eightbit.casts"
"""Under this key, the metadata of a graph say that its source made floats of integers itself, as Keras does."""

PLACES = "eightbit.places"
"""Under this key, the metadata of a graph say where in its source's arguments each input lies, as JSON."""
Place = tuple[str | int, ...]
"""Keys of dicts and numbers of entries, from the outside in: ("batch", "ids"), or (1, "ids")."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one input or output of a graph; `None` in the shape is a free dimension.

    >>> str(TensorSpec("x", np.dtype("float32"), (None, 3, 32, 32)))
    'x: float32 (?, 3, 32, 32)'
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]
    symbols: tuple[str | None, ...] = field(default=(), compare=False, repr=False)
    """What the file calls its axes, where it gives them names."""
    batch: int | None = field(default=None, compare=False, repr=False)
    """The axis that counts the samples, once it is known (see `batch_axis`); -1 for an input that has none."""

    casts: bool = field(default=False, compare=False, repr=False)
    """Whether integers and booleans are taken for floats."""
    place: Place = field(default=(), compare=False, repr=False)
    """Where in nested arguments the input lies; () for a model that takes arrays, or one dict of them."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """NumPy's letters for the kinds of numbers that are converted to this one's: floats to floats, say."""
        if self.casts and self.dtype.kind == "f":
            return ("f", "i", "u", "b")
        return ("i", "u") if self.dtype.kind in "iu" else (self.dtype.kind,)

    def symbol(self, axis: int) -> str | None:
        """The file's name for an axis, or None."""
        return self.symbols[axis] if axis < len(self.symbols) else None

    def __str__(self) -> str:
        dims = ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype} ({dims}{',' if len(self.shape) == 1 else ''})"


def specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """The inputs that a caller of `model` must supply, in graph order.

    Raises LoadError if an input has no dtype or no rank (sequence and map inputs included), or metadata are damaged.
    """
    weights = model.graph.initializers  # IR version 3 files list them among the inputs
    inputs = [value for value in model.graph.inputs if value.name not in weights]
    casts, places = CASTS in model.metadata_props, _places(model)
    return tuple(
        _spec(value, "input", casts=casts, place=places.get(str(value.name), ())) for value in inputs
    )


def _places(model: ir.Model) -> dict[str, Place]:
    """What `set_places` noted; the metadata of a file may say anything."""
    try:
        found = json.loads(model.metadata_props.get(PLACES, "{}"))
    except (ValueError, RecursionError):
        found = None
    places = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(p, list) and all(isinstance(key, str | int) for key in p) for p in places):
        raise LoadError(f"the entry '{PLACES}' of the model's metadata is damaged; save the model again")
    return {name: tuple(place) for name, place in found.items()}


def set_places(model: ir.Model, places: Mapping[str, Place]) -> None:
    """Note in `model`, in place, where in nested arguments its inputs lie; nothing, if there is no dict among those."""
    if any(len(place) > 1 and any(isinstance(key, str) for key in place) for place in places.values()):
        model.metadata_props[PLACES] = json.dumps(places)


def output_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """The outputs of `model`, in graph order. Raises LoadError as `specs` does."""
    return tuple(_spec(value, "output") for value in model.graph.outputs)


def _spec(value: ir.Value, kind: str, *, casts: bool = False, place: Place = ()) -> TensorSpec:
    typed = isinstance(value.type, ir.TensorType) and value.dtype not in (None, ir.DataType.UNDEFINED)
    if not typed or value.dtype is None or value.shape is None:
        raise LoadError(
            f"graph {kind} '{value.name}' has no dtype or rank; export the model with typed tensor {kind}s"
        )
    shape = tuple(d if isinstance(d, int) else None for d in value.shape)
    symbols = tuple(None if isinstance(d, int) else d.value for d in value.shape)
    batch = value.meta.get(BATCH_AXIS)
    return TensorSpec(str(value.name), value.dtype.numpy(), shape, symbols, batch, casts, place)
