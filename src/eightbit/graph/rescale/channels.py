"""Which tensors of a graph carry the same channels, from the layers that make them to the layers that read them.

Between a convolution and the next one, ReLU, pooling and residual additions treat each channel by itself. So the
tensors in between form a *group*: multiply channel c by s[c] in all layers that write to the group, divide it by s[c]
in all layers that read from it, and the network computes what it did. `equalize` chooses s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.errors import CalibrationError
from eightbit.graph.forms import channel_axis, refusal
from eightbit.graph.model import constant, dims, input_at, is_op, sole_consumer
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples

POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")
CHANNEL_AXIS = 1


@dataclass(frozen=True)
class ChannelGroup:
    """Names of tensors that carry the same `channels`, of the layers that write to them and that read from them.

    `hidden` are those of the tensors that only a clamp reads: the clamp becomes one with the layer before it.
    `ceiling` is the smallest upper bound of a Clip inside the group, infinity where there is none.
    """

    tensors: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    channels: int
    ceiling: float = math.inf
    hidden: tuple[str, ...] = ()

    @property
    def seen(self) -> tuple[str, ...]:
        """The tensors that become codes."""
        return tuple(name for name in self.tensors if name not in self.hidden)


def channel_groups(model: ir.Model) -> tuple[ChannelGroup, ...]:
    """The groups of a prepared graph whose channels may be rescaled.

    A group is left out if it touches an input or output of the graph, or an op that is not positively homogeneous
    in each channel alone (Sigmoid, Softmax, Concat, an addition of a constant, ...).
    """
    tensors = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    tensors += [v for node in model.graph for v in node.outputs]
    sets = _DisjointSets(tensors)
    closed = {id(v) for v in tensors if v.is_graph_input() or v.is_graph_output()}
    hidden: set[int] = set()
    ceilings: list[tuple[ir.Value, float]] = []
    writers: list[tuple[ir.Value, ir.Node]] = []
    readers: list[tuple[ir.Value, ir.Node]] = []
    for node in model.graph:
        data = [v for v in node.inputs if v is not None and constant(v) is None]
        bound = _clamp(node)
        if _is_layer(node) and data:
            readers.append((data[0], node))
            writers.append((node.outputs[0], node))
        elif bound is not None or is_op(node, *POOLS) or _keeps_channels(node):
            sets.join([data[0], node.outputs[0]])
            if bound is not None and sole_consumer(data[0]) is node:
                hidden.add(id(data[0]))
            closed.update(id(v) for v in node.outputs[1:])
            if bound is not None:
                ceilings.append((node.outputs[0], bound))
        elif is_op(node, "Add") and len(data) == 2 and dims(data[0]) == dims(data[1]) != None:  # noqa: E711
            sets.join([*data, node.outputs[0]])
        else:
            closed.update(id(v) for v in [*data, *node.outputs])
    shut = {sets.root(v) for v in tensors if id(v) in closed}
    found = []
    for root, members in sets.sets().items():
        into = tuple(str(node.name) for value, node in writers if sets.root(value) == root)
        out = tuple(str(node.name) for value, node in readers if sets.root(value) == root)
        shape = dims(members[0])
        channels = shape[CHANNEL_AXIS] if shape is not None and len(shape) > CHANNEL_AXIS else None
        if root in shut or not into or not out or channels is None:
            continue
        ceiling = min((b for value, b in ceilings if sets.root(value) == root), default=math.inf)
        names = tuple(str(v.name) for v in members)
        covered = tuple(str(v.name) for v in members if id(v) in hidden)
        found.append(ChannelGroup(names, into, out, channels, ceiling, covered))
    return tuple(found)


def channel_peaks(
    model: ir.Model, tensors: Iterable[str], data: Any, *, axis: int = CHANNEL_AXIS
) -> dict[str, np.ndarray]:
    """The largest magnitude of each channel, (C,) float32, of each of `tensors` over `data` (see `graph.samples`).

    Channels lie along `axis`: 1 in convolutional networks, -1 in transformers. A maximum depends neither on the order
    nor on the batching of the data. Raises CalibrationError for data that do not fit or a value that is not finite.
    """
    names = tuple(tensors)
    session = FloatSession(model, names)
    peaks: dict[str, np.ndarray] = {}
    for sample in samples(model, data, CalibrationError):
        for name, x in session.each(sample):
            axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
            peak = np.maximum(x.max(axis=axes), -x.min(axis=axes))
            if not np.isfinite(peak).all():
                remedy = (
                    "remove it from the data" if name in sample else "look for an overflow in the float model"
                )
                raise CalibrationError(f"tensor {name!r} takes a value that is NaN or Inf; {remedy}")
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
    return peaks


def _is_layer(node: ir.Node) -> bool:
    """A Conv or Gemm that can be a layer on codes, and whose output channels are the rows of its weight."""
    return is_op(node, "Conv", "Gemm") and refusal(node) is None and channel_axis(node) == 0


def _clamp(node: ir.Node) -> float | None:
    """The upper bound of a Relu, or of a Clip from 0; None for any other node."""
    if is_op(node, "Relu"):
        return math.inf
    if not is_op(node, "Clip"):
        return None
    lo, hi = (constant(input_at(node, i)) for i in (1, 2))
    if lo is None or lo != 0 or (input_at(node, 2) is not None and hi is None):
        return None
    return math.inf if hi is None else float(hi)


def _keeps_channels(node: ir.Node) -> bool:
    """A Reshape or Flatten from (N, C, 1, 1) to (N, C)."""
    if not is_op(node, "Reshape", "Flatten"):
        return False
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if before is None or after is None or len(before) < 2 or len(after) != 2:
        return False
    return before[1] is not None and before[1] == after[1] and all(d == 1 for d in before[2:])


class _DisjointSets:
    """Union-find over values."""

    def __init__(self, values: Iterable[ir.Value]) -> None:
        self._values = list(values)
        self._parent = {id(v): id(v) for v in self._values}

    def root(self, value: ir.Value) -> int:
        at = id(value)
        while self._parent[at] != at:
            at = self._parent[at]
        return at

    def join(self, values: list[ir.Value]) -> None:
        for value in values[1:]:
            self._parent[self.root(value)] = self.root(values[0])

    def sets(self) -> dict[int, list[ir.Value]]:
        found: dict[int, list[ir.Value]] = {}
        for value in self._values:
            found.setdefault(self.root(value), []).append(value)
        return found
