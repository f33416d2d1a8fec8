"""What the caller hands in, checked once and turned into `{input name: array}`.

In: arrays, tensors, tuples, dicts, or an iterable of them (a list, a DataLoader, a tf.data.Dataset).
Out: dicts of NumPy arrays with the names, dtypes and shapes that the graph's inputs ask for, without NaN.
Infinities pass: attention masks hold them, and whoever turns a tensor into codes looks for them there.
Everything downstream (calibration, engines, comparison) sees only these dicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eightbit.data.given import LABELS, given, leaves, placed
from eightbit.data.specs import TensorSpec
from eightbit.errors import EightbitError

Feeds = dict[str, np.ndarray]


def feed(value: Any, specs: Sequence[TensorSpec], error: type[EightbitError], *, nan: bool = False) -> Feeds:
    """Check one set of inputs against `specs` and return it as `{name: array}`.

    `value` is an array or tensor (models with one input), a tuple or list with one entry per input, nested or not,
    a dict by input name, or nested as the model's source takes it. Floats may be narrowed or widened to the input's
    float dtype and integers to its integer dtype if every value survives, and integers to floats where the model's
    source does so itself; nothing else is converted.
    Raises `error`, naming the input, on a wrong name, count, dtype or shape, an axis of size 0 where the
    spec has another size or none, and NaN unless `nan` lets it through.
    """
    arrays = _named(placed(value, specs), specs, error)
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

    What they may be is said in `given`; labels are left out. Arrays with one axis more than their input has are
    stacks of batches, along their first axis; those that lack the first are one sample, if the second has a known
    size that agrees. Lengths of axes that may be cut to the graph's (`samples`) are not
    checked yet.
    Raises `error` as `given` does, if `data` are empty, or if a batch does not fit `specs`.
    """
    count = 0
    for inputs, _ in given(data, specs, error):
        for arrays in _batched(_named(inputs, specs, error), specs, error):
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


def as_numpy(value: Any) -> np.ndarray:
    """`value`, an array or a tensor of any framework, as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    if hasattr(value, "detach"):  # torch: a tensor that requires grad refuses __array__
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _named(value: Any, specs: Sequence[TensorSpec], error: type[EightbitError]) -> Feeds:
    """One array for each input, of whatever rank and dtype."""
    if isinstance(value, Mapping):
        parts = {str(k): v for k, v in value.items()}
        wanted = [s.name for s in specs]
        if set(parts) != set(wanted):
            hint = f"; labels go under '{LABELS}'" if set(wanted) < set(parts) else ""
            if any(s.place for s in specs):
                hint = ", or arguments nested as the model was loaded with"
            raise error(
                f"inputs given: {sorted(parts)}; inputs of the model: {wanted}; use those names{hint}"
            )
    else:
        listed = [*leaves(value)]
        if any(isinstance(part, Mapping) for part in listed):
            hint = ", or arguments nested as the model was loaded with" if any(s.place for s in specs) else ""
            raise error(
                f"some inputs are given by place and some by name; give all of them in one dict{hint}"
            )
        if len(listed) != len(specs):
            raise error(
                f"{len(listed)} input(s) given, the model takes {len(specs)}: {'; '.join(map(str, specs))}; "
                "pass a tuple in this order or a dict by name"
            )
        parts = {s.name: part for s, part in zip(specs, listed, strict=True)}
    return {s.name: _array(parts[s.name], s, error) for s in specs}


def _array(value: Any, spec: TensorSpec, error: type[EightbitError]) -> np.ndarray:
    try:
        return as_numpy(value)
    except Exception as cause:
        raise error(f"input '{spec.name}' of type {type(value).__name__} is not an array: {cause}") from cause


def _batched(arrays: Feeds, specs: Sequence[TensorSpec], error: type[EightbitError]) -> Iterator[Feeds]:
    """The batches of a stack, or the one batch or sample that `arrays` are."""
    if all(_is_sample(arrays[s.name], s) for s in specs):
        yield {name: array[None] for name, array in arrays.items()}
        return
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


def _is_sample(array: np.ndarray, spec: TensorSpec) -> bool:
    """Whether `array` lacks the batch axis alone: with two free axes in front it might as well lack the other."""
    inner = spec.shape[1:]
    return (
        spec.batch in (None, 0)
        and array.ndim == len(inner) > 0
        and inner[0] is not None
        and all(want in (None, got) for want, got in zip(inner, array.shape, strict=True))
    )


def _check_rank(array: np.ndarray, spec: TensorSpec, error: type[EightbitError]) -> None:
    if array.ndim != len(spec.shape):
        short = len(spec.shape) - array.ndim
        hint = "; add a batch axis" if short == 1 else "; give one sample a call" if short == -1 else ""
        raise error(
            f"input '{spec.name}' has shape {array.shape} of rank {array.ndim}, "
            f"expected rank {len(spec.shape)} ({spec}){hint}"
        )


def _converted(array: np.ndarray, spec: TensorSpec, error: type[EightbitError]) -> np.ndarray:
    if array.dtype.kind not in spec.kinds:
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
