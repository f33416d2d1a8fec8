"""Removing units from a graph, and leaving them there without effect.

`cut` makes every tensor shorter; `masked` only zeroes what layers read of the removed channels. Both compute the same,
up to the rounding of sums that are taken in another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from eightbit.graph.model import constant, input_at, set_constant
from eightbit.graph.names import unique_name, unique_node_name
from eightbit.graph.prepare.fold import tidy
from eightbit.pruning.channels import Channels, Keep
from eightbit.pruning.follow import Follow, Use
from eightbit.pruning.shape_rules import constant_entry


def cut(model: ir.Model, channels: Channels, keep: Keep) -> ir.Model:
    """A copy of `model`, whose graph is that of `channels` but for the constants, with the units of `keep` alone."""
    result = model.clone()
    nodes = {str(node.name): node for node in result.graph}
    found = channels.found
    done: dict[tuple[str, int, bytes], ir.Value] = {}
    for use in [*found.uses, *_new_biases(found, nodes)]:
        node = nodes[str(use.node.name)]
        kept = {axis: channels.kept(labels, keep) for axis, labels in use.axes.items()}
        if all(mask.all() for mask in kept.values()):
            continue
        value = node.inputs[use.index]
        array = constant(value)
        assert value is not None and array is not None
        key = str(value.name), array.ndim, b"|".join(b"%d:%s" % (a, m.tobytes()) for a, m in kept.items())
        if key in done:  # two nodes read one constant alike, and still do
            node.replace_input_with(use.index, done[key])
            continue
        for axis, mask in kept.items():
            array = np.compress(mask, array, axis)
        set_constant(node, use.index, array)
        made = node.inputs[use.index]
        assert made is not None
        done[key] = made
    for node, labels in found.grouped:
        nodes[str(node.name)].attributes.add(ir.AttrInt64("group", int(channels.kept(labels, keep).sum())))
    for use in found.targets:
        _lengths(
            nodes[str(use.node.name)], use.index, {i: channels.kept(x, keep) for i, x in use.axes.items()}
        )
    for node, entry, labels in found.bounds:
        _bounds(nodes[str(node.name)], entry, channels.kept(labels, keep))
    values = {str(v.name): v for node in result.graph for v in node.outputs}
    for tensor, axes in found.tensors.items():
        value = values[str(tensor.name)]
        assert value.shape is not None
        shape = list(value.shape)
        for axis, labels in axes.items():
            shape[axis] = int(channels.kept(labels, keep).sum())
        value.shape = ir.Shape(shape)
    tidy(result)
    return result


def masked(model: ir.Model, channels: Channels, keep: Keep) -> ir.Model:
    """A copy of `model` in which no layer reads what `cut` would remove: those weights are zero."""
    result = model.clone()
    nodes = {str(node.name): node for node in result.graph}
    for use in channels.found.uses:
        if use.read is None:
            continue
        kept = channels.kept(use.axes[use.read], keep)
        if not kept.all():
            node = nodes[str(use.node.name)]
            array = constant(node.inputs[use.index])
            assert array is not None
            shape = [-1 if axis == use.read else 1 for axis in range(array.ndim)]
            set_constant(node, use.index, array * kept.reshape(shape).astype(array.dtype))
    return result


def _new_biases(found: Follow, nodes: Mapping[str, ir.Node]) -> Iterator[Use]:
    """Biases that a layer did not have when its channels were followed: they go with the channels that it makes."""
    for use in found.uses:
        bias = constant(input_at(nodes[str(use.node.name)], 2))
        if use.made is not None and input_at(use.node, 2) is None and bias is not None:
            yield Use(use.node, 2, {0: use.axes[use.made]})


def _lengths(node: ir.Node, index: int, kept: dict[int, np.ndarray]) -> None:
    """Put the lengths that are left into a shape; entries that are 0 or -1 follow by themselves."""
    if all(mask.all() for mask in kept.values()):
        return
    target = input_at(node, index)
    if target is not None and constant(target) is None:
        node.replace_input_with(index, _own_concat(node, target))
    for entry, mask in kept.items():
        place = (-1, entry) if target is None else constant_entry(target, entry)
        assert place is not None
        reader, at = (node, index) if place[0] < 0 else (node.inputs[index].producer(), place[0])  # type: ignore[union-attr]
        assert reader is not None
        given = constant(input_at(reader, at))
        lengths = np.array([len(mask) for mask in kept.values()]) if given is None else given.copy()
        if lengths[place[1]] > 0:
            lengths[place[1]] = mask.sum()
        set_constant(reader, at, lengths.astype(np.int64), stem=f"{node.name}.{index}")
    node.attributes.pop("num_outputs", None)


def _own_concat(node: ir.Node, target: ir.Value) -> ir.Value:
    """A copy of the Concat that computes `target`, for `node` alone."""
    graph, shared = node.graph, target.producer()
    assert isinstance(graph, ir.Graph) and shared is not None
    own = ir.node(
        "Concat", list(shared.inputs), {"axis": 0}, name=unique_node_name(graph, f"{node.name}.shape")
    )
    own.outputs[0].name = unique_name(graph, f"{node.name}.shape.out")
    own.outputs[0].type, own.outputs[0].shape = target.type, target.shape
    graph.insert_before(node, [own])
    return own.outputs[0]


def _bounds(node: ir.Node, entry: int, kept: np.ndarray) -> None:
    starts, ends = constant(node.inputs[1]), constant(node.inputs[2])
    assert starts is not None and ends is not None
    start, end, _ = slice(int(starts[entry]), int(min(ends[entry], 2**62))).indices(len(kept))
    for index, place in ((1, start), (2, end)):
        bounds = constant(node.inputs[index])
        assert bounds is not None
        moved = bounds.copy()
        moved[entry] = kept[:place].sum()
        set_constant(node, index, moved)
