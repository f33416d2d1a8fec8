"""Float operators that pick elements and put them elsewhere."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eightbit.deploy.layout.views import View, in_order
from eightbit.deploy.tflite import movement
from eightbit.deploy.tflite.build import Builder
from eightbit.deploy.tflite.islands import FloatNode, Floats
from eightbit.deploy.tflite.layers import raised
from eightbit.graph.model import attribute, constant, input_at
from eightbit.graph.names import Names
from eightbit.integer import program as p
from eightbit.integer.lower.movement import pad as lower_pad


def gather(op: FloatNode, b: Builder) -> None:
    """Rows along an axis, by their numbers."""
    x, places = (b.views[name] for name in op.inputs)
    axis = attribute(op.node, "axis", 0) % len(x.shape)
    y = b.make(op.outputs[0], in_order(len(b.shapes[op.outputs[0]])))
    operands = b.laid(b.reordered(x, in_order(len(x.shape)))), _places(places, x.shape[axis], b)
    b.add("GATHER", operands, y.buffer, axis=axis, batchDims=0)


def gather_nd(op: FloatNode, b: Builder) -> None:
    """Elements, or parts, by the numbers of their places."""
    x, places = (b.views[name] for name in op.inputs)
    y = b.make(op.outputs[0], in_order(len(b.shapes[op.outputs[0]])))
    lengths = np.array(x.shape[: places.shape[-1]])
    b.add(
        "GATHER_ND", (b.laid(b.reordered(x, in_order(len(x.shape)))), _places(places, lengths, b)), y.buffer
    )


def _places(places: View, lengths: int | np.ndarray, b: Builder) -> str:
    """Numbers of places; constant ones below zero count from the end, which TensorFlow Lite's do not."""
    data = b.tensors[places.buffer].data
    if data is None:
        return b.laid(b.reordered(places, in_order(len(places.shape))))
    numbers = data.astype(np.int32)
    return b.constant(np.where(numbers < 0, numbers + lengths, numbers).astype(np.int32))


def batches(node: ir.Node) -> str | None:
    """Refuses batches of places."""
    return "it has batch_dims" if attribute(node, "batch_dims", 0) else None


def pad(op: FloatNode, b: Builder) -> None:
    """More numbers around, of any value; codes have only zero."""
    made = lower_pad(op.node, Floats(Names(), Names()))
    value = constant(input_at(op.node, 2))
    assert (
        not isinstance(made, str) and isinstance(made[0], p.Pad) and value is not None
    )  # or it were not refused
    movement.pad(made[0], b, float(value.item()))


def pads_known(node: ir.Node) -> str | None:
    """Refuses pads that are computed as the node runs."""
    given = [value for value in node.inputs[1:] if value is not None]
    return None if all(constant(value) is not None for value in given) else "its pads are not constant"


def expand(op: FloatNode, b: Builder) -> None:
    """BROADCAST_TO a shape that is known by now."""
    shape = b.shapes[op.outputs[0]]
    x = raised(b.views[op.inputs[0]], len(shape))
    y = b.make(op.outputs[0], x.order)
    b.add("BROADCAST_TO", (b.laid(x), b.constant(np.array(y.laid, np.int32))), y.buffer)


def split(op: FloatNode, b: Builder) -> None:
    """Part after part along an axis."""
    x = b.views[op.inputs[0]]
    axis, start = attribute(op.node, "axis", 0) % len(x.shape), 0
    for name in op.outputs:
        stop = start + b.shapes[name][axis]
        slices = [slice(start, stop) if i == axis else slice(None) for i in range(len(x.shape))]
        movement.strided(b, x, slices, b.make(name, x.order).buffer)
        start = stop
