"""Sequences and optionals keep their types where shape inference takes every value for a tensor.

onnx-ir's pass gives a value the element type and the shape that ONNX inferred, and makes a tensor of it by that.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from eightbit.graph.model import attribute, input_at, is_op


def restore_types(model: ir.Model) -> int:
    """Set the types of values that are no tensors, in place; returns how many were taken for one.

    Types go from an inner graph out and from an outer one in, so that it takes a sweep for each level.
    """
    total, sweeps = 0, 1 + sum(1 for _ in model.graphs())
    for _ in range(sweeps):
        count = sum(_set(value, kind) for value, kind in _told(model))
        total += count
        if not count:
            break
    return total


def _set(value: ir.Value, kind: ir.TypeProtocol | None) -> bool:
    if kind is None or value.type == kind:
        return False
    value.type, value.shape = kind, None
    return True


def _told(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TypeProtocol | None]]:
    """Values, and the types that nodes give them."""
    opset = model.opset_imports.get("", 1)
    for graph in model.graphs():
        for node in graph:
            yield from ((value, _kind(node, index, opset)) for index, value in enumerate(node.outputs))
            if is_op(node, "Loop"):
                inside = attribute(node, "body").inputs[2:]  # after the count and the condition
                for value, begins in zip(inside, node.inputs[2:], strict=True):
                    known = None if begins is None else begins.type
                    yield value, (None if isinstance(known, ir.TensorType) else known)


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
