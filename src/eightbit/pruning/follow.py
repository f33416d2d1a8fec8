"""Where the channels of each layer go: labels on the axes of every tensor, op by op in the order of the graph.

A layer puts fresh labels on the axis of its output channels; an op between layers carries labels on, joins those of its
operands, or fixes what it cannot do without. An op that has no rule fixes all of its inputs, so that what is found to
be removable is so for the whole graph. Source: Fang et al. 2023, arXiv 2301.12900 (DepGraph), whose dependencies
between parameters the labels are, position by position.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

from eightbit.graph.model import constant, dims, is_op, read_by
from eightbit.pruning.units import Axes, Labels, Units


@dataclass(frozen=True, eq=False)
class Use:
    """Input `index` of `node`, a constant, and the labels along its axes.

    Of a layer's weight, `made` is the axis of the channels that it makes, and `read` that of those it sums over.
    """

    node: ir.Node
    index: int
    axes: Axes
    made: int | None = None
    read: int | None = None


@dataclass(eq=False)
class Follow:
    """The labels found so far.

    `targets` are inputs that hold a shape or a list of lengths: entry i is the length of what `labels[i]` marks.
    `grouped` are convolutions whose number of groups is the number of labels that are kept. `bounds` are Slices of a
    labelled axis, and which input entry holds its bounds.
    """

    units: Units = field(default_factory=Units)
    tensors: dict[ir.Value, Axes] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    targets: list[Use] = field(default_factory=list)
    grouped: list[tuple[ir.Node, Labels]] = field(default_factory=list)
    bounds: list[tuple[ir.Node, int, Labels]] = field(default_factory=list)

    def of(self, value: ir.Value | None) -> Axes:
        """The labelled axes of a tensor."""
        return {} if value is None else self.tensors.get(value, {})

    def use(
        self,
        node: ir.Node,
        index: int,
        axes: dict[int, Labels | None],
        *,
        made: int | None = None,
        read: int | None = None,
    ) -> None:
        """Note that positions of a constant input go with these labels; see `Use`."""
        known = {axis: labels for axis, labels in axes.items() if labels is not None}
        if known:
            own = (axis if axis in known else None for axis in (made, read))
            self.uses.append(Use(node, index, known, *own))

    def fix(self, node: ir.Node, axes: Axes, why: str, *, but: tuple[int, ...] = ()) -> None:
        """Fix the labels of `axes`, those of the axes `but` excepted."""
        for axis, labels in axes.items():
            if axis not in but:
                self.units.fix(labels, f"node {node.name!r} ({node.op_type}) {why}")


Rule = Callable[[Follow, ir.Node], list[Axes] | None]
"""Notes what a node does and gives the labels of its outputs; None if it does not cover the node."""


def follow(model: ir.Model, rules: dict[str, Rule]) -> Follow:
    """The labels of all tensors of a prepared graph, by `rules` for its ops."""
    found = Follow()
    for node in model.graph:
        outer = [v for v in read_by(node) if v not in node.inputs]
        for value in outer:
            found.fix(node, found.of(value), "reads it inside a branch or a loop")
        rule = rules.get(node.op_type) if is_op(node, node.op_type) else None
        known = all(dims(v) is not None for v in (*node.inputs, *node.outputs) if v is not None and v.name)
        made = rule(found, node) if rule is not None and known and not outer else None
        if made is None:
            for read in node.inputs:
                found.fix(node, found.of(read), "has no rule for removing channels")
            continue
        for value, axes in zip(node.outputs, made, strict=False):
            if axes:
                found.tensors[value] = axes
    for value in model.graph.outputs:
        for labels in found.of(value).values():
            found.units.fix(labels, f"it is output {value.name!r} of the model")
    return found


def data_of(node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that are no constants."""
    return [value for value in node.inputs if value is not None and constant(value) is None]


def shape_of(value: ir.Value) -> tuple[int | None, ...]:
    """The shape of a value whose rank is known, None for a free dimension."""
    found = dims(value)
    assert found is not None
    return found
