"""Sequences and optionals keep their types where shape inference takes every value for a tensor.

onnx-ir's pass gives a value the element type and the shape that ONNX inferred, and makes a tensor of it by that.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from eightbit.graph.model import attribute, input_at, is_op


def restore_types(model: ir.Model) -> int:
    """Set the types of values that are no tensors, in place; returns how many were taken for one."""
    count = 0
    for graph in model.graphs():
        for node in graph:
            for index, value in enumerate(node.outputs):
                kind = _kind(node, index, model.opset_imports.get("", 1))
                if kind is not None and value.type != kind:
                    value.type, value.shape = kind, None
                    count += 1
    return count


def _kind(node: ir.Node, index: int, opset: int) -> ir.TypeProtocol | None:
    """The type of an output that is no tensor; None for a tensor, and for what cannot be told."""
    given: ir.Value | None = None
    if is_op(node, "If"):
        given = attribute(node, "then_branch").outputs[index]
    elif is_op(node, "Loop"):
        given = attribute(node, "body").outputs[index + 1]  # the first is the condition
    elif is_op(node, "Identity"):
        given = input_at(node, 0)
    if given is not None:
        return None if isinstance(given.type, ir.TensorType) else given.type
    if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
        return None
    try:
        told = onnx.defs.get_schema(node.op_type, opset).outputs
    except onnx.defs.SchemaError:
        return None
    types = told[min(index, len(told) - 1)].types
    if is_op(node, "Optional"):
        content = input_at(node, 0)
        return None if content is None or content.type is None else ir.OptionalType(content.type)
    dtype = node.outputs[index].dtype
    if dtype is None or not all(name.startswith("seq(") for name in types):
        return None
    return ir.SequenceType(ir.TensorType(dtype))
