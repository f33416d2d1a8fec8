"""What a caller hands in, taken apart batch by batch: the inputs of the model here, the labels there.

In: one array (a NumPy array, a tensor, a DataFrame, nested lists of numbers); a dict of arrays by input name, labels
under `labels`; a tuple of arrays, inputs first and labels last; or an iterable of such batches, or of samples without a
batch axis (a list, a generator, a DataLoader, a tf.data.Dataset, a keras.utils.PyDataset). Inputs may be nested in
tuples, as a model's states are, and in dicts, as the model's source takes them (`TensorSpec.place`).
Out: pairs (inputs, labels). Nothing is converted here, and only what would be lost is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from numbers import Number
from typing import Any

import numpy as np

from eightbit.data.specs import Place, TensorSpec
from eightbit.errors import EightbitError

LABELS = "labels"
"""The one key of a batch that is no input of a model."""
MOST_BATCHES = 100_000
"""So many batches may come from data that do not say how many they are: some never end."""


def given(data: Any, specs: Sequence[TensorSpec], error: type[EightbitError]) -> Iterator[tuple[Any, Any]]:
    """The batches of `data` for a model with inputs `specs`, as pairs (inputs, labels or None).

    Inputs are an array, a dict by name or a tuple of arrays. Raises `error` for data that hold no batches, for a batch
    with more entries than inputs and labels, and for data that do not end.
    """
    for batch in _batches(data, specs, error):
        inputs, others = parted(batch, len(specs), specs)
        if len(others) > 1:
            raise error(
                f"a batch holds {len(others) - 1} entries more than the model's {len(specs)} input(s) "
                f"({'; '.join(map(str, specs))}) and labels; give (inputs..., labels), or a dict by input name"
            )
        yield inputs, others[0] if others else None


def parted(batch: Any, count: int, specs: Sequence[TensorSpec] = ()) -> tuple[Any, tuple[Any, ...]]:
    """One batch for a model of `count` inputs as its inputs, and whatever follows them: labels, as a rule.

    A dict names its labels, unless an input in `specs` is called so.
    """
    if isinstance(batch, Mapping):
        if LABELS not in batch or any(s.name == LABELS for s in specs):
            return placed(batch, specs), ()
        inputs = {name: value for name, value in batch.items() if name != LABELS}
        return placed(inputs, specs), (batch[LABELS],)
    if not is_group(batch) or not batch:
        return batch, ()
    first, arguments = batch[0], _arguments(specs)
    for nested, others in ((batch[:arguments], batch[arguments:]), (first, batch[1:])):
        inputs = placed(nested, specs)
        if inputs is not nested:
            return inputs, tuple(others)
    if isinstance(first, Mapping) or (is_group(first) and len([*leaves(first)]) == count):
        inputs, more = parted(first, count, specs)  # ({"a": a}, labels), ((a, b), labels)
        return inputs, (*more, *batch[1:])
    parts = tuple(leaves(batch))
    return parts[:count], parts[count:]


def leaves(value: Any) -> Iterator[Any]:
    """The arrays (or whatever else, dicts too) that lie in tuples and lists, however deep, in order."""
    if not is_group(value):
        yield value
        return
    for part in value:
        yield from leaves(part)


def leaves_at(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """What lies in the tuples, lists and dicts of `value`, in order, and where."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves_at(part, (*place, str(key)))
    elif is_group(value):
        for index, part in enumerate(value):
            yield from leaves_at(part, (*place, index))
    else:
        yield place, value


def placed(value: Any, specs: Sequence[TensorSpec]) -> Any:
    """Arguments as the model's source takes them, dicts in dicts, as one flat dict by input name.

    Whatever else `value` is comes back as it is: so does a structure that lacks an input or holds more.
    """
    if not any(spec.place for spec in specs) or is_whole(value):
        return value
    alone = _arguments(specs) == 1 and isinstance(value, Mapping)  # of one argument no tuple has to be made
    found = dict(leaves_at((value,) if alone else value))
    arrays = {place: leaf for place, leaf in found.items() if is_whole(leaf)}
    if set(arrays) != {spec.place for spec in specs}:
        return value
    return {spec.name: arrays[spec.place] for spec in specs}


def _arguments(specs: Sequence[TensorSpec]) -> int:
    """How many entries a tuple of the source's arguments has, as far as inputs lie in them; 0 if it takes a dict."""
    return 1 + max((s.place[0] for s in specs if s.place and isinstance(s.place[0], int)), default=-1)


def is_array(value: Any) -> bool:
    """Whether `value` is an array or a tensor, of any framework."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def is_whole(value: Any) -> bool:
    """Whether `value` is one array or turns into one: a tensor, a DataFrame, nested lists of numbers."""
    return is_array(value) or hasattr(value, "__array__") or _is_numbers(value)


def is_group(value: Any) -> bool:
    """Whether `value` is a tuple or list of several arrays, and no array of plain numbers itself."""
    return isinstance(value, tuple | list) and not _is_numbers(value)


def one_a_sample(value: Any) -> bool:
    """Whether `value` has the shape of labels: one number a sample, (N,), or (N, 1) as Keras keeps them."""
    shape = _shape(value)
    return shape is not None and (len(shape) <= 1 or (len(shape) == 2 and shape[1] == 1))


def _batches(data: Any, specs: Sequence[TensorSpec], error: type[EightbitError]) -> Iterable[Any]:
    if isinstance(data, Mapping) or is_whole(data):
        return [data]
    if isinstance(data, tuple | list):
        parts = [_fits(batch, specs) for batch in data]
        return [data] if data and not all(parts) and _is_one_batch(data, specs) else data
    return walked(data, error)


def walked(data: Any, error: type[EightbitError]) -> Iterable[Any]:
    """What lies in `data` that are neither an array nor a dict. Raises `error` for what nothing lies in, or no end."""
    if isinstance(data, tuple | list):
        return data
    if not isinstance(data, Iterable) and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[i] for i in range(len(data)))  # keras.utils.PyDataset, torch.utils.data.Dataset
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise error(
            f"data of type {type(data).__name__} cannot be used; give an array, a dict of arrays, "
            "or an iterable of batches (a list, DataLoader or tf.data.Dataset)"
        )
    return _ending(data, error)


def _ending(data: Iterable[Any], error: type[EightbitError]) -> Iterator[Any]:
    """`data`, as long as they say they are, or else up to a limit. Raises `error` where they go on."""
    try:
        length = len(data)  # type: ignore[arg-type]
    except TypeError:
        length = None
    if length is not None:  # Keras' generators begin again after so many
        yield from islice(data, length) if iter(data) is data else data
        return
    cardinality = getattr(data, "cardinality", None)
    endless = isinstance(data, cycle) or (callable(cardinality) and int(cardinality()) == -1)
    count = 0
    for count, batch in enumerate(() if endless else data, start=1):
        if count > MOST_BATCHES:
            endless = True
            break
        yield batch
    if endless:
        after = f" after {MOST_BATCHES:,} batches" if count else ""
        raise error(
            f"the data do not end{after}; give a part of them, such as itertools.islice(data, 100) or data.take(100)"
        )


def _is_one_batch(data: tuple[Any, ...] | list[Any], specs: Sequence[TensorSpec]) -> bool:
    """Whether `data` are one batch: they hold what the model takes, and labels if more. Lists rather hold batches."""
    _, others = parted(data, len(specs), specs)
    return _fits(data, specs) and (isinstance(data, tuple) or all(map(one_a_sample, others)))


def _fits(batch: Any, specs: Sequence[TensorSpec]) -> bool:
    """Whether the inputs of `batch` could be the model's, by number, names, ranks, sizes and kinds of numbers."""
    inputs, others = parted(batch, len(specs), specs)
    if len(others) > 1:
        return False
    if isinstance(inputs, Mapping):
        return {str(name) for name in inputs} == {s.name for s in specs}
    parts = tuple(leaves(inputs))
    return len(parts) == len(specs) and all(map(_fits_input, parts, specs))


def _fits_input(value: Any, spec: TensorSpec) -> bool:
    shape, kind = _shape(value), _kind(value)
    if shape is None or kind not in (None, *spec.kinds):
        return False
    if len(shape) == len(spec.shape) + 1:  # a stack
        shape = shape[1:]
    return len(shape) == len(spec.shape) and all(
        want in (None, got, spec.shape[0]) for want, got in zip(spec.shape, shape, strict=True)
    )


def _is_numbers(value: Any) -> bool:
    """Whether `value` is a list of numbers, or of such lists."""
    if not isinstance(value, list):
        return False
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, Number)


def _shape(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, Number):
        return ()
    if _is_numbers(value):
        try:
            return np.shape(value)
        except ValueError:  # rows of different lengths
            return None
    return tuple(value.shape) if hasattr(value, "shape") else None


def _kind(value: Any) -> str | None:
    """The kind of numbers in an array of any framework, as NumPy's letter: f, i, u or b; None if it does not say."""
    if _is_numbers(value):
        return np.asarray(value).dtype.kind
    dtype = getattr(value, "dtype", "")
    name = str(getattr(dtype, "name", dtype)).rpartition(".")[2]  # torch.float32, or a dtype with a name
    kinds = {"float": "f", "bfloat": "f", "int": "i", "uint": "u", "bool": "b"}
    return kinds.get(name.rstrip("0123456789"))
