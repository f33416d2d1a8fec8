"""Branches of residual connections, removed whole: y = x + f(x) becomes y = x.

In: a prepared graph and data. Out: the graph without the branches whose loss costs its outputs least for each
multiplication saved. Where the kernels of a processor take many channels at once, fewer of a narrow layer save no time
there; a layer that is not there always does. Source: Veit et al. 2016, arXiv 1605.06431, whose residual networks bear
the loss of single branches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.errors import QuantizationError
from eightbit.graph.model import add_constant, bypass, constant, dims, is_op, read_by, title
from eightbit.graph.names import unique_name, unique_node_name
from eightbit.graph.prepare.constants import drop_no_ops
from eightbit.graph.prepare.fold import tidy
from eightbit.pruning.compensate import fit_layers
from eightbit.pruning.effect import output_error, outputs, probes
from eightbit.pruning.follow import data_of
from eightbit.pruning.macs import LayerCost, layer_costs, sample_shapes
from eightbit.quant.observe.calibrate import Progress


@dataclass(frozen=True)
class Branch:
    """The `layers` that only input `side` of the Add `add` is made by; the other input stays."""

    add: str
    side: int
    layers: tuple[str, ...]


def without_branches(
    model: ir.Model, count: int, data: Any, *, compensate: bool, progress: Progress | None = None
) -> ir.Model:
    """A copy of `model` without `count` of its branches, chosen one after the other.

    With `compensate` the layers behind one make up for it, before what is lost is measured. `data` must bear being read
    more than once. Raises QuantizationError where there are fewer, with the sums that cannot lose a side and why.
    """
    batches = probes(model, data)
    exact, work = outputs(model, batches), model
    for number in range(count):
        layers = layer_costs(work, sample_shapes(work, data))
        found, refused = branches(work, layers)
        if not found:
            more = "; ".join(refused[:3]) or "it has no sum of two tensors that are computed"
            raise QuantizationError(
                f"branches={count}: only {number} of this model can be removed, then none: {more}"
            )
        least, before = np.inf, work
        for branch in found:
            trial = _without(before, branch, data if compensate else None, progress)
            lost = output_error(outputs(trial, batches), exact)
            lost /= sum(layers[name].macs for name in branch.layers)
            if lost < least:
                least, work = lost, trial
    return work


def branches(model: ir.Model, layers: Mapping[str, LayerCost]) -> tuple[list[Branch], list[str]]:
    """What can be removed of a graph with these `layers`, and of the other sums of two tensors why they stay.

    Of two sides that could go, the one with more multiplications is the branch, the other its shortcut.
    """
    found, refused = [], []
    for node in model.graph:
        if not is_op(node, "Add") or len(data_of(node)) < 2:
            continue
        one, other = node.inputs
        own = [_made_for(model, node, side) for side in (0, 1)]
        sides = [tuple(str(n.name) for n in nodes if n.name in layers) for nodes in own]
        free = [s for s in (0, 1) if sides[s] and _reads(own[s]) & _behind(node.inputs[1 - s])]
        if dims(one) is None or dims(one) != dims(other):
            refused.append(f"{title(node)!r} adds shapes {dims(one)} and {dims(other)}")
        elif node.outputs[0].is_graph_output() and any(_is_bound(value) for value in node.inputs):
            refused.append(f"{title(node)!r} makes an output of the model of an input or another output")
        elif not any(sides):
            refused.append(f"the layers behind each side of {title(node)!r} are read elsewhere, too")
        elif not free:
            refused.append(
                f"the sides of {title(node)!r} have nothing in common, and neither can stand for both"
            )
        else:
            side = max(free, key=lambda side: sum(layers[name].macs for name in sides[side]))
            found.append(Branch(str(node.name), side, sides[side]))
    return found, refused


def _made_for(model: ir.Model, add: ir.Node, side: int) -> list[ir.Node]:
    """The nodes that nothing but input `side` of `add` needs, in the order of the graph."""
    made: dict[ir.Node, None] = {}
    for node in reversed(model.graph):
        uses = [use for value in node.outputs for use in value.uses()]
        if (
            uses
            and all(use.node in made or (use.node is add and use.idx == side) for use in uses)
            and not any(value.is_graph_output() for value in node.outputs)
        ):
            made[node] = None
    return list(made)[::-1]


def _reads(nodes: list[ir.Node]) -> set[ir.Value]:
    """What the nodes read of the rest of the graph."""
    return {x for node in nodes for x in read_by(node)} - {x for node in nodes for x in node.outputs}


def _behind(value: ir.Value | None) -> set[ir.Value]:
    """A tensor, and every tensor but constants that it is computed from."""
    found: set[ir.Value] = set()
    rest = [value]
    while rest:
        value = rest.pop()
        if value is not None and value not in found and constant(value) is None:
            found.add(value)
            maker = value.producer()
            rest += [] if maker is None else read_by(maker)
    return found


def _after(model: ir.Model, name: str) -> set[str]:
    """The names of the nodes that what node `name` makes goes into."""
    reached = set(_node(model, name).outputs)
    found = set()
    for node in model.graph:
        if read_by(node) & reached:
            reached.update(node.outputs)
            found.add(str(node.name))
    return found


def _is_bound(value: ir.Value | None) -> bool:
    return value is not None and (value.is_graph_input() or value.is_graph_output())


def _without(model: ir.Model, branch: Branch, data: Any, progress: Progress | None) -> ir.Model:
    """A copy of the graph in which the other input stands for the sum, without the activation that now repeats.

    With data the layers behind make up for the branch.
    """
    if data is None:
        result = model.clone()
    else:
        whole, result = (_gated(model, branch, gate) for gate in (1.0, 0.0))
        fit_layers(whole, result, data, only=_after(model, branch.add), progress=progress)
    add = _node(result, branch.add)
    other = add.inputs[1 - branch.side]
    assert other is not None
    bypass(add, other)
    tidy(result)
    if drop_no_ops(result):
        tidy(result)
    return result


def _gated(model: ir.Model, branch: Branch, gate: float) -> ir.Model:
    """A copy of the graph in which the branch counts `gate` times."""
    result = model.clone()
    add, graph = _node(result, branch.add), result.graph
    value = add.inputs[branch.side]
    assert value is not None
    scale = add_constant(graph, f"{branch.add}.gate", np.array(gate, np.float32))
    mul = ir.node("Mul", [value, scale], name=unique_node_name(graph, f"{branch.add}.gated"))
    mul.outputs[0].name = unique_name(graph, f"{branch.add}.gated.out")
    mul.outputs[0].type, mul.outputs[0].shape = value.type, value.shape
    graph.insert_before(add, [mul])
    add.replace_input_with(branch.side, mul.outputs[0])
    return result


def _node(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)
