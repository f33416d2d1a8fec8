"""Two networks of one shape walked through side by side, a few layers further at each turn.

Layers are encoded in waves: those of one wave do not feed one another, so one pass finds the inputs of all of them. A
pass starts where the last one stopped: of every sample, both networks' tensors that later nodes still read are kept,
and only what lies between those and the next wave's inputs is computed. A whole walk so costs little more than
running each network once.

What is kept stays below KEPT bytes. Where the tensors at the border of a wave are larger, the older ones stay, and the
next pass starts from those and computes some nodes again: wide tensors pass soon, and narrow ones follow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from eightbit.arith.affine import QuantParams, fake_quantize
from eightbit.data.feeds import Feeds
from eightbit.data.specs import specs
from eightbit.errors import CalibrationError
from eightbit.graph.model import read_by
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples

Pair = tuple[Feeds, Feeds]

KEPT = 2**28
"""Bytes of tensors kept between two passes. While a pass gathers the next ones, there are two such sets."""


def waves(model: ir.Model, layers: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """The named layers in the order of the graph, cut wherever one needs what another of the same wave has made."""
    behind: dict[ir.Value, frozenset[str]] = {}  # for every tensor the layers that it was made by
    found: list[list[str]] = [[]]
    for node in model.graph:
        above = frozenset[str]().union(*(behind.get(value, frozenset()) for value in read_by(node)))
        if node.name in layers:
            if above.intersection(found[-1]):
                found.append([])
            found[-1].append(str(node.name))
            above |= {str(node.name)}
        behind.update(dict.fromkeys(node.outputs, above))
    return tuple(tuple(wave) for wave in found if wave)


class Walk:
    """The way of `data` through `exact` and `work`, which differ in the constants of their layers only.

    `data` must bear being read more than once; `keep` is the bound on what is kept between passes, in bytes.
    """

    def __init__(
        self,
        exact: ir.Model,
        work: ir.Model,
        layers: Collection[str],
        data: Any,
        *,
        keep: int = KEPT,
        rounded: Mapping[str, QuantParams] | None = None,
    ) -> None:
        self.waves = waves(exact, layers)
        self._models, self._data, self._keep = (exact, work), data, keep
        self._rounded = rounded or {}
        nodes = {str(node.name): node for node in exact.graph}
        read = [dict.fromkeys(nodes[name].inputs[0] for name in wave) for wave in self.waves]
        self._targets = [[value for value in values if value is not None] for values in read]
        self._turns = _turns(self._targets)
        self._start = tuple(spec.name for spec in specs(exact))
        self._held: list[Pair] | None = None  # tensors `_start` of every sample; None: read the data

    def inputs(self, wave: int) -> Iterator[Pair]:
        """The inputs of a wave's layers by name, sample by sample, in the exact network and in the other.

        Waves are asked for in order and to the end, each after the constants of those before it are in place.
        Raises CalibrationError for data that do not fit.
        """
        targets = [str(value.name) for value in self._targets[wave]]
        border = self._border(wave)
        wanted = tuple(dict.fromkeys([*targets, *border]))
        runs = [_part(model, self._start, wanted) for model in self._models]
        kept: list[Pair] | None = [] if border and not set(border) <= set(self._start) else None
        size = 0
        for pair in self._pairs():
            one, other = (run(feeds) for run, feeds in zip(runs, pair, strict=True))
            yield _of(one, targets), _of(other, targets)
            if kept is not None:
                kept.append((_of(one, border), _of(other, border)))
                size += sum(array.nbytes for feeds in kept[-1] for array in feeds.values())
                kept = kept if size <= self._keep else None
        if kept is not None:
            self._start, self._held = border, kept

    def _pairs(self) -> Iterator[Pair]:
        if self._held is not None:
            yield from self._held
            return
        for sample in samples(self._models[0], self._data, CalibrationError):
            yield (
                sample,
                {
                    n: fake_quantize(x, self._rounded[n]) if n in self._rounded else x
                    for n, x in sample.items()
                },
            )

    def _border(self, wave: int) -> tuple[str, ...]:
        """What there is after a wave's pass that later ones read; nothing if one of them is no plain tensor."""
        read = {value for targets in self._targets[wave + 1 :] for value in targets}
        read.update(v for node, turn in self._turns.items() if turn > wave for v in read_by(node))
        there = {output for node, turn in self._turns.items() if turn <= wave for output in node.outputs}
        found = [value for value in read if value in there or value.is_graph_input()]
        if any(value.dtype is None or not isinstance(value.type, ir.TensorType) for value in found):
            return ()
        return tuple(sorted(str(value.name) for value in found))


def _turns(targets: Sequence[Sequence[ir.Value]]) -> dict[ir.Node, int]:
    """For every node that a target needs, the first of the passes that does."""
    found: dict[ir.Node, int] = {}
    for turn, values in enumerate(targets):
        rest = list(values)
        while rest:
            node = rest.pop().producer()
            if node is not None and node not in found:
                found[node] = turn
                rest.extend(read_by(node))
    return found


def _part(model: ir.Model, start: Sequence[str], wanted: Sequence[str]) -> Callable[[Feeds], Feeds]:
    """What computes the tensors `wanted` of a graph from the tensors `start`."""
    if set(wanted) <= set(start):
        return lambda feeds: _of(feeds, wanted)
    cut = ir.convenience.extract(model.graph, start, [name for name in wanted if name not in start])
    return FloatSession(ir.Model(cut, ir_version=model.ir_version), wanted).run


def _of(feeds: Feeds, names: Sequence[str]) -> Feeds:
    return {name: feeds[name] for name in names}
