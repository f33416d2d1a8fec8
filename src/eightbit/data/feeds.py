"""What the caller hands in, checked once and turned into `{input name: array}`.

In: arrays, tensors, tuples, dicts, or an iterable of them (a list, a DataLoader, a tf.data.Dataset).
Out: dicts of NumPy arrays with the names, dtypes and shapes that the graph's inputs ask for, without NaN.
Infinities pass: attention masks hold them, and whoever turns a tensor into codes looks for them there.
Everything downstream (calibration, engines, comparison) sees only these dicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.errors import EightbitError, LoadError

Feeds = dict[str, np.ndarray]
LABELS = "labels"  # the one key of a batch that is not a model input
BATCH_AXIS = "eightbit.batch_axis"
"""Under this key, an input of a graph in memory knows its batch axis, once that has been found."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one graph input; `None` in the shape is a free dimension.

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

    def symbol(self, axis: int) -> str | None:
        """The file's name for an axis, or None."""
        return self.symbols[axis] if axis < len(self.symbols) else None

    def __str__(self) -> str:
        dims = ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype} ({dims}{',' if len(self.shape) == 1 else ''})"


def specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """The inputs that a caller of `model` must supply, in graph order.

    Raises LoadError if an input has no dtype or no rank (sequence and map inputs included).
    """
    found = []
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue  # IR version 3 files list weights among the inputs
        if value.dtype is None or value.shape is None or not isinstance(value.type, ir.TensorType):
            raise LoadError(
                f"graph input '{value.name}' has no dtype or rank; export the model with typed tensor inputs"
            )
        shape = tuple(d if isinstance(d, int) else None for d in value.shape)
        symbols = tuple(None if isinstance(d, int) else d.value for d in value.shape)
        axis = value.meta.get(BATCH_AXIS)
        found.append(TensorSpec(str(value.name), value.dtype.numpy(), shape, symbols, axis))
    return tuple(found)


def feed(value: Any, specs: Sequence[TensorSpec], error: type[EightbitError], *, nan: bool = False) -> Feeds:
    """Check one set of inputs against `specs` and return it as `{name: array}`.

    `value` is an array or tensor (models with one input), a tuple or list with one entry per input,
    or a dict by input name. Floats may be narrowed or widened to the input's float dtype and integers
    to its integer dtype if every value survives; nothing else is converted.
    Raises `error`, naming the input, on a wrong name, count, dtype or shape, an axis of size 0 where the
    spec has another size or none, and NaN unless `nan` lets it through.
    """
    arrays = _named(value, specs, error)
    for spec in specs:
        _check_rank(arrays[spec.name], spec, error)
    check_shapes(arrays, specs, error)
    if not nan:
        _refuse_nan(arrays, error)
    return {s.name: _converted(arrays[s.name], s, error) for s in specs}


def _refuse_nan(arrays: Feeds, error: type[EightbitError]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            where = np.argwhere(np.isnan(array))
            raise error(
                f"input '{name}' holds {len(where)} value(s) that are NaN (first at "
                f"{tuple(int(i) for i in where[0])}); remove them"
            )


def batches(data: Any, specs: Sequence[TensorSpec], error: type[EightbitError]) -> Iterator[Feeds]:
    """Iterate over `data` as checked batches.

    One array or tensor, or one dict of arrays, is one batch. Anything else iterable yields batches:
    arrays, dicts (key `labels` ignored) or tuples (inputs first, what follows them, labels, ignored).
    Arrays with one axis more than their input has are stacks of batches, along their first axis. Lengths of axes that
    may be cut to the graph's (`samples`) are not checked yet.
    Raises `error` if `data` is not iterable, is empty, or a batch does not fit `specs`.
    """
    count = 0
    for batch in _raw_batches(data, error):
        for arrays in _unstacked(_named(_inputs_of(batch, specs), specs, error), specs, error):
            check_shapes(arrays, specs, error, early=True)
            _refuse_nan(arrays, error)
            yield {s.name: _converted(arrays[s.name], s, error) for s in specs}
            count += 1
    if count == 0:
        raise error(f"the data hold no batch; give at least one for input(s) {'; '.join(map(str, specs))}")


def check_shapes(
    arrays: Feeds,
    specs: Sequence[TensorSpec],
    error: type[EightbitError],
    *,
    free: Mapping[str, int] | None = None,
    early: bool = False,
) -> None:
    """Raise `error` for an array that has another shape than its input; `free` are axes on which it may.

    `early`, it is not known yet where the data will be cut for a graph of a fixed batch: on first axes, and on others
    of their length.
    """
    cuts = {s.shape[0] for s in specs if s.shape} if early else set()
    for spec in specs:
        shape, cut = arrays[spec.name].shape, (free or {}).get(spec.name)
        for axis, (want, got) in enumerate(zip(spec.shape, shape, strict=True)):
            if want in (None, got) or axis == cut or want in cuts:
                continue
            raise error(f"input '{spec.name}' has shape {shape}, expected {spec}")
        if any(got == 0 and want != 0 for got, want in zip(shape, spec.shape, strict=True)):
            raise error(f"input '{spec.name}' has shape {shape}: an axis of size 0 holds no data")


def _raw_batches(data: Any, error: type[EightbitError]) -> Iterable[Any]:
    if isinstance(data, Mapping) or is_array(data):
        return [data]
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise error(
            f"data of type {type(data).__name__} cannot be used; give an array, a dict of arrays, "
            "or an iterable of batches (a list, DataLoader or tf.data.Dataset)"
        )
    return data


def _inputs_of(batch: Any, specs: Sequence[TensorSpec]) -> Any:
    """The model's part of a batch: labels dropped."""
    if isinstance(batch, Mapping):
        return {k: v for k, v in batch.items() if k != LABELS or any(s.name == LABELS for s in specs)}
    if isinstance(batch, tuple | list):
        if batch and isinstance(batch[0], Mapping | tuple | list):
            return _inputs_of(batch[0], specs)  # ((a, b), labels) and ({"a": a}, labels)
        return tuple(batch[: len(specs)])
    return batch


def is_array(value: Any) -> bool:
    """Whether a value is an array or tensor of some framework."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _as_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # torch: a tensor that requires grad refuses __array__
        value = value.detach().cpu()
    return np.asarray(value)


def _named(value: Any, specs: Sequence[TensorSpec], error: type[EightbitError]) -> Feeds:
    """One array for each input, of whatever rank and dtype."""
    if isinstance(value, Mapping):
        parts = {str(k): v for k, v in value.items()}
        wanted = [s.name for s in specs]
        if set(parts) != set(wanted):
            raise error(f"inputs given: {sorted(parts)}; inputs of the model: {wanted}; use those names")
    else:
        listed = list(value) if isinstance(value, tuple | list) else [value]
        if len(listed) != len(specs):
            raise error(
                f"{len(listed)} input(s) given, the model takes {len(specs)}: {'; '.join(map(str, specs))}; "
                "pass a tuple in this order or a dict by name"
            )
        parts = {s.name: part for s, part in zip(specs, listed, strict=True)}
    return {s.name: _array(parts[s.name], s, error) for s in specs}


def _array(value: Any, spec: TensorSpec, error: type[EightbitError]) -> np.ndarray:
    try:
        return _as_numpy(value)
    except Exception as cause:
        raise error(f"input '{spec.name}' of type {type(value).__name__} is not an array: {cause}") from cause


def _unstacked(arrays: Feeds, specs: Sequence[TensorSpec], error: type[EightbitError]) -> Iterator[Feeds]:
    """The batches of a stack, or the one batch that `arrays` are."""
    deep = [s.name for s in specs if arrays[s.name].ndim == len(s.shape) + 1]
    for spec in specs:
        if spec.name not in deep:
            _check_rank(arrays[spec.name], spec, error)
    if not deep:
        yield arrays
        return
    lengths = {name: len(arrays[name]) for name in deep}
    if len(set(lengths.values())) > 1:
        raise error(f"inputs of one stack hold different numbers of samples: {lengths}; make them equal")
    for i in range(lengths[deep[0]]):
        yield {n: a[i] if n in deep else a for n, a in arrays.items()}


def _check_rank(array: np.ndarray, spec: TensorSpec, error: type[EightbitError]) -> None:
    if array.ndim != len(spec.shape):
        short = len(spec.shape) - array.ndim
        hint = "; add a batch axis" if short == 1 else "; give one sample a call" if short == -1 else ""
        raise error(
            f"input '{spec.name}' has shape {array.shape} of rank {array.ndim}, "
            f"expected rank {len(spec.shape)} ({spec}){hint}"
        )


def _converted(array: np.ndarray, spec: TensorSpec, error: type[EightbitError]) -> np.ndarray:
    same_family = {array.dtype.kind, spec.dtype.kind} <= {"i", "u"} or array.dtype.kind == spec.dtype.kind
    if not same_family:
        raise error(
            f"input '{spec.name}' has dtype {array.dtype}, expected {spec.dtype}; "
            f"preprocess it and convert with .astype({str(spec.dtype)!r})"
        )
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=spec.dtype).reshape(array.shape)
    if array.dtype.kind == "f":
        survived = (np.isfinite(converted) == np.isfinite(array)).all()
    else:
        survived = (converted == array).all()
    if not survived:
        raise error(f"input '{spec.name}' of dtype {array.dtype} holds values too large for {spec.dtype}")
    return converted
