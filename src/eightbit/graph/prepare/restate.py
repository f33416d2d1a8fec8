"""Nodes that ONNX Runtime computes in float alone, as others that do the same and run on codes, too."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eightbit.graph import moves
from eightbit.graph.model import add_constant, input_at, is_op, rank, replace_node
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
