"""Rules for ops that have weights: where labels begin, and which axes of the weights go with them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eightbit.graph.model import attribute, constant, input_at
from eightbit.pruning.follow import Follow, Rule, data_of, shape_of
from eightbit.pruning.units import Axes, Labels


def _conv(found: Follow, node: ir.Node) -> list[Axes] | None:
    """One group reads all channels; a depthwise convolution passes them on; otherwise every group loses the same ones.

    With g groups of I inputs and O outputs each, input i of every group is one unit, and so is output o.
    """
    x, weight = node.inputs[0], constant(node.inputs[1])
    if weight is None or len(data_of(node)) > 1:
        return None
    axes, groups = found.of(x), int(attribute(node, "group", 1))
    found.fix(node, axes, "mixes positions along this axis", but=(1,))
    inputs, outputs = axes.get(1), len(weight)
    read: Labels | None = inputs
    made: Labels | None
    if groups > 1 and weight.shape[1] == 1:  # depthwise
        made, read = None, None
        if inputs is not None:
            made = np.repeat(inputs, outputs // groups)
            found.grouped.append((node, inputs))
    elif groups > 1:
        read = None if inputs is None else found.units.join_rows(inputs.reshape(groups, -1))
        made = np.tile(found.units.fresh(outputs // groups), groups)
    else:
        made = found.units.fresh(outputs)
    found.use(node, 1, {0: made, 1: read}, made=0, read=1)
    if input_at(node, 2) is not None:
        found.use(node, 2, {0: made})
    return [{} if made is None else {1: made}]


def _conv_transpose(found: Follow, node: ir.Node) -> list[Axes] | None:
    weight = constant(node.inputs[1])
    if weight is None or len(data_of(node)) > 1 or attribute(node, "group", 1) != 1:
        return None
    axes = found.of(node.inputs[0])
    found.fix(node, axes, "mixes positions along this axis", but=(1,))
    made = found.units.fresh(weight.shape[1])
    found.use(node, 1, {0: axes.get(1), 1: made}, made=1, read=0)
    if input_at(node, 2) is not None:
        found.use(node, 2, {0: made})
    return [{1: made}]


def _gemm(found: Follow, node: ir.Node) -> list[Axes] | None:
    weight, bias = constant(node.inputs[1]), constant(input_at(node, 2))
    if weight is None or len(data_of(node)) > 1 or attribute(node, "transA", 0):
        return None
    axes, rows = found.of(node.inputs[0]), bool(attribute(node, "transB", 0))
    out, into = (0, 1) if rows else (1, 0)
    made = found.units.fresh(weight.shape[out])
    found.use(node, 1, {out: made, into: axes.get(1)}, made=out, read=into)
    if bias is not None and bias.ndim and bias.shape[-1] == len(made):
        found.use(node, 2, {bias.ndim - 1: made})
    return [{axis: labels for axis, labels in axes.items() if axis == 0} | {1: made}]


def _matmul(found: Follow, node: ir.Node) -> list[Axes] | None:
    a, b = node.inputs[:2]
    assert a is not None and b is not None
    weight, last = constant(b), len(shape_of(a)) - 1
    if constant(a) is not None or last < 1 or len(shape_of(b)) < 2:
        return None
    if weight is None:
        return _product(found, node, a, b)
    if weight.ndim != 2:
        return None
    axes = found.of(a)
    made = found.units.fresh(weight.shape[1])
    found.use(node, 1, {0: axes.get(last), 1: made}, made=1, read=0)
    return [{axis: labels for axis, labels in axes.items() if axis != last} | {last: made}]


def _product(found: Follow, node: ir.Node, a: ir.Value, b: ir.Value) -> list[Axes]:
    """Activations times activations: leading axes go together, as the heads of attention do."""
    rank = len(shape_of(node.outputs[0]))
    sides = []
    for value in (a, b):
        shape, axes = shape_of(value), found.of(value)
        more = rank - len(shape)
        sides.append(((1,) * more + shape, {axis + more: x for axis, x in axes.items()}))
    (shape_a, axes_a), (shape_b, axes_b) = sides
    made: Axes = {}
    for axis in range(rank - 2):
        labels = aligned(found, node, [(shape_a[axis], axes_a.get(axis)), (shape_b[axis], axes_b.get(axis))])
        if labels is not None:
            made[axis] = labels
    for axes, summed, kept in ((axes_a, rank - 1, rank - 2), (axes_b, rank - 2, rank - 1)):
        if summed in axes:
            found.fix(node, {summed: axes[summed]}, "sums over them")
        if kept in axes:
            made[kept] = axes[kept]
    return [made]


def aligned(found: Follow, node: ir.Node, operands: list[tuple[int | None, Labels | None]]) -> Labels | None:
    """The labels of an axis on which operands of these lengths and labels meet, joined; None where it must stay."""
    wide = []
    for length, labels in operands:
        if length != 1:
            wide.append(labels)
        elif labels is not None:
            found.fix(node, {0: labels}, "repeats it along an axis")
    known = [labels for labels in wide if labels is not None]
    if not known:
        return None
    if len(known) < len(wide):
        for labels in known:
            found.fix(node, {0: labels}, "combines them with a tensor that is not made by a layer")
        return None
    for labels in known[1:]:
        found.units.join(known[0], labels)
    return known[0]


def _per_channel(found: Follow, node: ir.Node) -> list[Axes] | None:
    """BatchNormalization, InstanceNormalization: parameters for each channel, which is axis 1."""
    if len(data_of(node)) > 1:
        return None
    axes = found.of(node.inputs[0])
    found.fix(node, axes, "normalizes over this axis", but=(0, 1))
    for index in range(1, len(node.inputs)):
        found.use(node, index, {0: axes.get(1)})
    return [{axis: labels for axis, labels in axes.items() if axis < 2}]


def _gather(found: Follow, node: ir.Node) -> list[Axes] | None:
    """A table's columns are made here; of an activation, axes beside the one that is read from are passed on."""
    data, index = node.inputs[:2]
    assert data is not None and index is not None
    shape, rank = shape_of(data), len(shape_of(index))
    at = int(attribute(node, "axis", 0)) % len(shape)
    table = constant(data)
    if table is not None:
        if table.ndim != 2 or at != 0 or table.dtype.kind != "f":
            return None
        made = found.units.fresh(table.shape[1])
        found.use(node, 0, {1: made}, made=1)
        return [found.of(index) | {rank: made}]
    axes = found.of(data)
    if at in axes or found.of(index):
        return None
    return [{axis if axis < at else axis + rank - 1: labels for axis, labels in axes.items()}]


LAYER_RULES: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _per_channel,
    "InstanceNormalization": _per_channel,
    "Gather": _gather,
}
