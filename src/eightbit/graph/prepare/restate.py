"""Nodes that ONNX Runtime computes in float alone as others that do the same, and have kernels for codes, too."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eightbit.graph import moves
from eightbit.graph.model import (
    add_constant,
    constant,
    input_at,
    is_op,
    rank,
    replace_node,
    set_constant,
    sole_consumer,
)
from eightbit.graph.names import unique_name, unique_node_name

AXES_AS_INPUT = 18
"""The opset since which ReduceMax is told its axes so."""


def blocks_to_transpose(model: ir.Model) -> int:
    """Write SpaceToDepth of known lengths as Reshape, Transpose, Reshape; returns how many."""
    graph, count = model.graph, 0
    for node in list(graph):
        found = moves.blocks(node) if is_op(node, "SpaceToDepth") else ""
        if isinstance(found, str) or node.inputs[0] is None or node.inputs[0].dtype != ir.DataType.FLOAT:
            continue
        split, perm, joined = found
        before, after = (
            add_constant(graph, f"{node.name}.{i}", np.array(shape, np.int64))
            for i, shape in enumerate((split, joined))
        )
        names = [unique_node_name(graph, f"{node.name}.{what}") for what in ("split", "turn")]
        first = ir.node("Reshape", [node.inputs[0], before], name=names[0])
        turned = ir.node("Transpose", [first.outputs[0]], {"perm": perm}, name=names[1])
        for made in (first, turned):
            made.outputs[0].name, made.outputs[0].dtype = (
                unique_name(graph, str(made.name)),
                ir.DataType.FLOAT,
            )
        replace_node(node, [first, turned, ir.node("Reshape", [turned.outputs[0], after], name=node.name)])
        count += 1
    return count


def global_pool_to_max(model: ir.Model) -> int:
    """Write GlobalMaxPool as ReduceMax over the spatial axes; returns how many."""
    count = 0
    if model.opset_imports.get("", 0) < AXES_AS_INPUT:
        return count
    for node in list(model.graph):
        axes = rank(input_at(node, 0)) if is_op(node, "GlobalMaxPool") else None
        if axes is None or node.inputs[0] is None or node.inputs[0].dtype != ir.DataType.FLOAT:
            continue
        spatial = add_constant(model.graph, f"{node.name}.1", np.arange(2, axes))
        replace_node(node, ir.node("ReduceMax", [node.inputs[0], spatial], {"keepdims": 1}, name=node.name))
        count += 1
    return count


def one_slope(model: ir.Model) -> int:
    """Write PRelu of one slope, said once or for every channel, as LeakyRelu; returns how many."""
    count = 0
    for node in list(model.graph):
        slope = constant(input_at(node, 1)) if is_op(node, "PRelu") else None
        if slope is None or slope.dtype != np.float32 or not slope.size or np.any(slope != slope.flat[0]):
            continue
        alpha = {"alpha": float(slope.flat[0])}
        replace_node(node, ir.node("LeakyRelu", [node.inputs[0]], alpha, name=node.name))
        count += 1
    return count


def subtract_in_layer(model: ir.Model) -> int:
    """Write Sub of what a layer makes for this node alone as Add, weight and bias of the layer negated.

    Returns how many. Signs cost no rounding: every sum stays what it is.
    """
    count = 0
    for node in list(model.graph):
        if not is_op(node, "Sub") or node.inputs[1] is None or sole_consumer(node.inputs[1]) is not node:
            continue
        layer = node.inputs[1].producer()
        if layer is None or not is_op(layer, "Conv", "Gemm") or constant(node.inputs[0]) is not None:
            continue
        weight, bias = (constant(input_at(layer, i)) for i in (1, 2))
        if weight is None or (input_at(layer, 2) is not None and bias is None):
            continue
        set_constant(layer, 1, -weight)
        if bias is not None:
            set_constant(layer, 2, -bias)
        replace_node(node, ir.node("Add", list(node.inputs), name=node.name))
        count += 1
    return count


def split_to_slices(model: ir.Model) -> int:
    """Write a Split of which an output is left out as Slices of the others; returns how many.

    ONNX Runtime splits codes where it hands out codes everywhere.
    """
    graph, count = model.graph, 0
    for node in list(graph):
        read = [value for value in node.outputs if value.name and (value.uses() or value.is_graph_output())]
        if not is_op(node, "Split") or len(read) == len(node.outputs) or not read:
            continue
        found = moves.parts(node)
        if isinstance(found, str):
            continue
        axis, bounds = found
        name = str(node.name)
        slices = []
        for value, (start, stop) in zip(node.outputs, bounds, strict=True):
            if value not in read:
                continue
            operands = [
                add_constant(graph, f"{name}.{what}", np.array([number], np.int64))
                for what, number in (("start", start), ("stop", stop), ("axis", axis))
            ]
            cut = ir.node("Slice", [node.inputs[0], *operands], name=unique_node_name(graph, name))
            slices.append(cut)
        for value, cut in zip(read, slices, strict=True):
            made = cut.outputs[0]
            made.name, made.type, made.shape = value.name, value.type, value.shape
            value.name = unique_name(graph, f"{value.name}.split")
            ir.convenience.replace_all_uses_with(value, made, replace_graph_outputs=True)
        graph.insert_after(node, slices)
        graph.remove(node, safe=True)
        count += 1
    return count
