"""The example inputs that a module is loaded with, taken out of the data that come with it.

In: what the module takes, and data as `quantize` takes them. Out: the inputs of the first batch, and the data, which
still begin with it. What of a batch are inputs, the module's forward tells (a Keras model's call): entries of a tuple
go to its parameters in their order. An entry that is not required is an input, too, unless it can only be the labels:
it is the last one, and the module takes no more, or calls the parameter so, or the entry holds one number a sample.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from itertools import chain
from math import inf
from typing import Any

from eightbit.data.given import LABELS, is_group, is_whole, one_a_sample, walked
from eightbit.data.replay import once
from eightbit.errors import CalibrationError
from eightbit.graph.source.keras_model import is_keras, needs_example
from eightbit.graph.source.torch_module import is_torch, unwrapped

LABEL_NAMES = (LABELS, "label", "targets", "target", "y")


@dataclass(frozen=True)
class Takes:
    """How many inputs a forward function requires and can take by place, and its parameters' names."""

    least: int
    most: float
    names: tuple[str, ...]

    @classmethod
    def of(cls, forward: Any, *, settings: tuple[str, ...] = ()) -> Takes:
        """What `forward` takes; `settings` are parameters that are no inputs."""
        parameters = [
            p
            for p in signature(forward).parameters.values()
            if p.kind is not Parameter.KEYWORD_ONLY and p.name not in settings
        ]
        by_place = []
        for p in parameters:
            if p.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) or p.default not in (
                p.empty,
                None,
            ):
                break  # what follows a setting that is no tensor is none either
            by_place.append(p)
        least = sum(p.default is p.empty for p in by_place)
        free = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)
        return cls(max(1, least), inf if free else max(1, len(by_place)), tuple(p.name for p in by_place))


def takes(source: Any) -> Takes | None:
    """What an example for `source` must hold; None for one that is loaded without an example."""
    if is_torch(source):
        return Takes.of(unwrapped(source).forward)
    if is_keras(source) and needs_example(source):
        return Takes.of(source.call, settings=("training", "mask"))
    return None


def example_from(takes: Takes, data: Any) -> tuple[Any, Any]:
    """The inputs of the first batch of `data`, and data that still begin with it. Raises CalibrationError."""
    first, data = _peek(data, takes)
    return _inputs(first, takes), data


def _peek(data: Any, takes: Takes) -> tuple[Any, Any]:
    """The first batch of `data`, and data that still begin with it."""
    if isinstance(data, Mapping) or is_whole(data) or _is_batch(data, takes):
        return data, data
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(data, torch.utils.data.Dataset) and not isinstance(data, Iterable):
        raise CalibrationError(
            f"a {type(data).__name__} holds single samples, and an example needs a batch axis; give a DataLoader of it"
        )
    batches = iter(walked(data, CalibrationError))
    try:
        first = next(batches)
    except StopIteration:
        raise CalibrationError("the calibration data hold no batch; give at least one") from None
    return first, chain([first], batches) if once(data) else data


def _is_batch(data: Any, takes: Takes) -> bool:
    """Whether a tuple or list is one batch: its first entry alone would not do, or others follow it in a tuple."""
    if not is_group(data) or len(data) < 2:
        return False
    if all(map(is_whole, data)):
        return takes.least > 1 or (isinstance(data, tuple) and takes.most > 1)
    return is_group(data[0]) != is_group(data[1]) or (isinstance(data[0], Mapping) and is_whole(data[1]))


def _inputs(batch: Any, takes: Takes) -> Any:
    """What of a batch are inputs: an array, a tuple or a dict. Raises CalibrationError for more than there can be."""
    if isinstance(batch, Mapping):
        return {name: value for name, value in batch.items() if name != LABELS}
    if not is_group(batch) or not batch:
        return batch
    first, count = batch[0], len(batch)
    if isinstance(first, Mapping) or (
        is_group(first) and count <= 2 and takes.least <= len(first) <= takes.most
    ):
        return _inputs(first, takes) if isinstance(first, Mapping) else tuple(first)  # (inputs, labels)
    if count > takes.most + 1:
        raise CalibrationError(
            f"a batch holds {count} entries, and the module takes {takes.most} input(s) and labels beside them; "
            "give (inputs..., labels), or a dict by name"
        )
    last = count - 1
    called = takes.names[last] if last < len(takes.names) else ""
    labels = count > takes.least and (
        count > takes.most or called in LABEL_NAMES or one_a_sample(batch[last])
    )
    return tuple(batch[: count - labels])
