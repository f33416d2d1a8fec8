"""What the caller hands in, checked once and turned into `{input name: array}`.

In: arrays, tensors, tuples, dicts, or an iterable of them (a list, a DataLoader, a tf.data.Dataset).
Out: dicts of NumPy arrays with the names, dtypes and shapes that the graph's inputs ask for, every
value finite. Everything downstream (calibration, engines, comparison) sees only these dicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.errors import EightbitError, LoadError

Feeds = dict[str, np.ndarray]
LABELS = "labels"  # the one key of a batch that is not a model input


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one graph input; `None` in the shape is a free dimension.

    >>> str(TensorSpec("x", np.dtype("float32"), (None, 3, 32, 32)))
    'x: float32 (?, 3, 32, 32)'
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]

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
        found.append(TensorSpec(str(value.name), value.dtype.numpy(), shape))
    return tuple(found)


def feed(value: Any, specs: Sequence[TensorSpec], error: type[EightbitError]) -> Feeds:
    """Check one set of inputs against `specs` and return it as `{name: array}`.

    `value` is an array or tensor (models with one input), a tuple or list with one entry per input,
    or a dict by input name. Floats may be narrowed or widened to the input's float dtype and integers
    to its integer dtype if every value survives; nothing else is converted.
    Raises `error`, naming the input, on a wrong name, count, dtype or shape, an empty axis, NaN or Inf.
    """
    if isinstance(value, Mapping):
        by_name = {str(k): v for k, v in value.items()}
        wanted = [s.name for s in specs]
        missing = [n for n in wanted if n not in by_name]
        extra = [n for n in by_name if n not in wanted]
        if missing or extra:
            raise error(f"inputs given: {sorted(by_name)}; inputs of the model: {wanted}; use those names")
        return {s.name: _checked(by_name[s.name], s, error) for s in specs}
    parts = list(value) if isinstance(value, tuple | list) else [value]
    if len(parts) != len(specs):
        raise error(
            f"{len(parts)} input(s) given, the model takes {len(specs)}: {'; '.join(map(str, specs))}; "
            "pass a tuple in this order or a dict by name"
        )
    return {s.name: _checked(p, s, error) for s, p in zip(specs, parts, strict=True)}


def batches(data: Any, specs: Sequence[TensorSpec], error: type[EightbitError]) -> Iterator[Feeds]:
    """Iterate over `data` as checked batches.

    One array or tensor, or one dict of arrays, is one batch. Anything else iterable yields batches:
    arrays, dicts (key `labels` ignored) or tuples (inputs first, what follows them, labels, ignored).
    Raises `error` if `data` is not iterable, is empty, or a batch does not fit `specs`.
    """
    count = 0
    for batch in _raw_batches(data, error):
        yield feed(_inputs_of(batch, specs), specs, error)
        count += 1
    if count == 0:
        raise error(f"the data hold no batch; give at least one for input(s) {'; '.join(map(str, specs))}")


def samples(data: Any, specs: Sequence[TensorSpec], error: type[EightbitError]) -> Iterator[Feeds]:
    """Iterate over `data` (as in `batches`) one sample at a time: axis 0 of every batched input is 1.

    So a result that is gathered sample by sample cannot depend on how the caller cut the batches.
    A model whose batch axis is fixed at n > 1 is fed chunks of n consecutive samples instead, re-cut
    across batch borders. An input is batched if its axis 0 is free or, in a graph with no free axis 0,
    as long as the first input's; the others are passed on whole with every sample.
    Raises `error` as `batches` does, if batched inputs disagree on the number of samples, or if the
    number of samples is not a multiple of n.
    """
    batched = _batched(specs)
    if not batched:
        yield from batches(data, specs, error)
        return
    size = next(s.shape[0] for s in specs if s.name in batched) or 1
    free = [replace(s, shape=(None, *s.shape[1:])) if s.name in batched else s for s in specs]
    held: list[Feeds] = []
    for batch in batches(data, free, error):
        lengths = {n: batch[n].shape[0] for n in sorted(batched)}
        if len(set(lengths.values())) > 1:
            raise error(f"inputs of one batch hold different numbers of samples: {lengths}; make them equal")
        for i in range(next(iter(lengths.values()))):
            held.append({n: a[i : i + 1] if n in batched else a for n, a in batch.items()})
            if len(held) == size:
                yield _joined(held, batched)
                held = []
    if held:
        raise error(
            f"the model's batch size is fixed at {size} and {len(held)} sample(s) are left over; "
            f"give a multiple of {size}, or export the model with a dynamic batch"
        )


def side_by_side(stream: Iterable[Feeds], specs: Sequence[TensorSpec], size: int) -> Iterator[Feeds]:
    """Joins consecutive samples of `samples` into batches of at most `size`; samples of other shapes begin a new one.

    Where the model fixes its batch axis, or has none, the samples pass as they are.
    """
    batched = _batched(specs)
    if not batched or any(s.shape[0] is not None for s in specs if s.name in batched):
        yield from stream
        return
    held: list[Feeds] = []
    for sample in stream:
        if held and (len(held) == size or not _fits(held[0], sample, batched)):
            yield _joined(held, batched)
            held = []
        held.append(sample)
    if held:
        yield _joined(held, batched)


def _fits(first: Feeds, sample: Feeds, batched: frozenset[str]) -> bool:
    """Whether two samples can lie in one batch: equal shapes, and inputs without a batch axis shared by both."""
    return all(a.shape == first[n].shape if n in batched else a is first[n] for n, a in sample.items())


def _batched(specs: Sequence[TensorSpec]) -> frozenset[str]:
    ranked = [s for s in specs if s.shape]
    free = [s.name for s in ranked if s.shape[0] is None]
    return frozenset(free or [s.name for s in ranked if s.shape[0] == ranked[0].shape[0]])


def _joined(parts: list[Feeds], batched: frozenset[str]) -> Feeds:
    if len(parts) == 1:
        return parts[0]
    return {n: np.concatenate([p[n] for p in parts]) if n in batched else a for n, a in parts[0].items()}


def _raw_batches(data: Any, error: type[EightbitError]) -> Iterable[Any]:
    if isinstance(data, Mapping) or _is_array(data):
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


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _as_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # torch: a tensor that requires grad refuses __array__
        value = value.detach().cpu()
    return np.asarray(value)


def _checked(value: Any, spec: TensorSpec, error: type[EightbitError]) -> np.ndarray:
    try:
        array = _as_numpy(value)
    except Exception as cause:
        raise error(f"input '{spec.name}' of type {type(value).__name__} is not an array: {cause}") from cause
    if len(array.shape) != len(spec.shape):
        hint = "; add a batch axis" if len(array.shape) == len(spec.shape) - 1 else ""
        raise error(
            f"input '{spec.name}' has shape {array.shape} of rank {len(array.shape)}, "
            f"expected rank {len(spec.shape)} ({spec}){hint}"
        )
    if any(want is not None and got != want for got, want in zip(array.shape, spec.shape, strict=True)):
        raise error(f"input '{spec.name}' has shape {array.shape}, expected {spec}")
    if math.prod(array.shape) == 0:
        raise error(f"input '{spec.name}' has shape {array.shape}: an axis of size 0 holds no data")
    return _converted(array, spec, error)


def _converted(array: np.ndarray, spec: TensorSpec, error: type[EightbitError]) -> np.ndarray:
    same_family = {array.dtype.kind, spec.dtype.kind} <= {"i", "u"} or array.dtype.kind == spec.dtype.kind
    if not same_family:
        raise error(
            f"input '{spec.name}' has dtype {array.dtype}, expected {spec.dtype}; "
            f"preprocess it and convert with .astype({str(spec.dtype)!r})"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise error(
            f"input '{spec.name}' holds {bad} value(s) that are NaN or Inf (first at {where}); remove them"
        )
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=spec.dtype).reshape(array.shape)
    survived = np.isfinite(converted).all() if array.dtype.kind == "f" else (converted == array).all()
    if not survived:
        raise error(f"input '{spec.name}' of dtype {array.dtype} holds values too large for {spec.dtype}")
    return converted
