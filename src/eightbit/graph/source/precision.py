"""Models in half or double precision -> the same in float32, the one float that is quantized.

float16 and bfloat16 fit float32 exactly, so nothing is lost but the rounding of each result to so few bits. float64
is narrowed where it is what the model computes in: its inputs or its weights.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eightbit.graph.model import WEIGHTED_OPS, attribute, is_op
from eightbit.graph.notes import note

HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
NAMES = {
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.DOUBLE: "float64",
}
TYPED = ("to", "dtype", "output_dtype", "softmax_precision", "stash_type")
"""Attributes that hold the type of a result."""


def to_float32(model: ir.Model) -> None:
    """Make every half of `model` a float32, and every double if it computes in doubles, in place, with a note.

    A graph that looks at the bits of its numbers (BitCast) stays as it is.
    """
    if any(is_op(node, "BitCast") for graph in model.graphs() for node in graph):
        return
    narrow = HALVES | {ir.DataType.DOUBLE} if _computes_in_doubles(model) else HALVES
    found: set[ir.DataType] = set()
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.initializers.values()):
            _retype(value, narrow, found)
        for node in graph:
            for value in node.outputs:
                _retype(value, narrow, found)
            for name, held in tuple(node.attributes.items()):
                if held.type is ir.AttributeType.TENSOR and held.value.dtype in narrow:
                    found.add(held.value.dtype)
                    node.attributes[name] = ir.AttrTensor(name, _widened(held.value))
                elif held.type is ir.AttributeType.INT and name in TYPED and held.value in narrow:
                    found.add(ir.DataType(held.value))
                    node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    if found:
        names = " and ".join(sorted(NAMES[dtype] for dtype in found))
        note(model, f"what is {names} in the model is float32 here, inputs and outputs included")


def _computes_in_doubles(model: ir.Model) -> bool:
    if any(value.dtype == ir.DataType.DOUBLE for value in model.graph.inputs):
        return True
    weights = (
        n.inputs[1] for g in model.graphs() for n in g if is_op(n, *WEIGHTED_OPS) and len(n.inputs) > 1
    )
    return any(w is not None and _dtype(w) == ir.DataType.DOUBLE for w in weights)


def _dtype(value: ir.Value) -> ir.DataType | None:
    if value.const_value is not None:
        return value.const_value.dtype
    node = value.producer()
    held = attribute(node, "value") if node is not None and is_op(node, "Constant") else None
    return value.dtype if held is None else held.dtype


def _retype(value: ir.Value, narrow: frozenset[ir.DataType], found: set[ir.DataType]) -> None:
    if value.const_value is not None and value.const_value.dtype in narrow:
        found.add(value.const_value.dtype)
        value.const_value = _widened(value.const_value)
        value.dtype = ir.DataType.FLOAT
    elif value.dtype in narrow:
        found.add(value.dtype)
        value.dtype = ir.DataType.FLOAT


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """A tensor in float32; doubles beyond its range become its largest numbers, as masks mean them."""
    array, largest = tensor.numpy(), np.finfo(np.float32).max
    finite = np.isfinite(array)
    limited = np.where(finite, np.clip(array.astype(np.float64), -largest, largest), array.astype(np.float64))
    return ir.tensor(limited.astype(np.float32), name=tensor.name)
