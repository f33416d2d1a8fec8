"""Float operators over axes: sums, means and extremes, and the norms that are made of them."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from eightbit.deploy.layout.views import View, in_order
from eightbit.deploy.tflite.build import Builder
from eightbit.deploy.tflite.elementwise import Write, between, broadcast, chain, scalar
from eightbit.deploy.tflite.islands import FloatNode
from eightbit.deploy.tflite.movement import reduced
from eightbit.graph.model import attribute, constant, input_at


def reduce(kind: str) -> Write:
    """An operator over some axes."""

    def write(op: FloatNode, b: Builder) -> None:
        _reduced(kind, b.views[op.inputs[0]], op, b)

    return write


def _reduced(kind: str, x: View, op: FloatNode, b: Builder, name: str = "") -> View:
    """`kind` over the node's axes; into its output, or with the axes kept, into a tensor called `name`."""
    axes = _axes(op.node, len(x.shape))
    keep = bool(name) or bool(attribute(op.node, "keepdims", 1))
    if name:
        b.shapes[name] = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    return reduced(kind, b, x, axes, name or op.outputs[0], keep=keep)


def _axes(node: ir.Node, rank: int) -> tuple[int, ...]:
    """Those that a node reduces: LayerNormalization from `axis` on, the others as they list them, or all."""
    if node.op_type == "LayerNormalization":
        return tuple(range(attribute(node, "axis", -1) % rank, rank))
    if node.op_type == "InstanceNormalization":
        return tuple(range(2, rank))
    given = constant(input_at(node, 1))
    listed = attribute(node, "axes", ()) if given is None else given.reshape(-1)
    if not len(listed) and not attribute(node, "noop_with_empty_axes", 0):
        return tuple(range(rank))
    return tuple(int(axis) % rank for axis in listed)


def axes_known(node: ir.Node) -> str | None:
    """Refuses axes that are computed as the node runs."""
    given = input_at(node, 1)
    return None if given is None or constant(given) is not None else "its axes are not constant"


def length(op: FloatNode, b: Builder) -> None:
    """ReduceL2: the root of the sum of squares."""
    x = b.views[op.inputs[0]]
    squares = between("MUL", [x, x], f"{op.name}.squares", b)
    total = f"{op.name}.sum"
    b.shapes[total] = b.shapes[op.outputs[0]]
    found = _reduced("SUM", squares, replace(op, outputs=(total,)), b)
    broadcast("SQRT", [found], op.outputs[0], b)


def norm(op: FloatNode, b: Builder) -> None:
    """(x - mean) / sqrt(var + epsilon) * scale + bias over the axes of a Layer- or InstanceNormalization."""
    x, node = b.views[op.inputs[0]], op.node
    average = _reduced("MEAN", x, op, b, f"{op.name}.mean")
    spread = between("SQUARED_DIFFERENCE", [x, average], f"{op.name}.squares", b)
    variance = _reduced("MEAN", spread, op, b, f"{op.name}.variance")
    moved = between("ADD", [variance, scalar(attribute(node, "epsilon", 1e-5), b)], f"{op.name}.moved", b)
    root = between("RSQRT", [moved], f"{op.name}.root", b)
    centred = between("SUB", [x, average], f"{op.name}.centred", b)
    operands = [root, *(b.views[name] for name in op.inputs[1:] if name)]
    if node.op_type == "InstanceNormalization":  # one scale and bias a channel
        room = (1,) * (len(x.shape) - 2)
        operands[1:] = [View(v.buffer, (*v.shape, *room), in_order(1 + len(room))) for v in operands[1:]]
    chain(centred, list(zip(("MUL", "MUL", "ADD"), operands, strict=False)), op, b)


def one_output(node: ir.Node) -> str | None:
    """Refuses a norm whose mean or deviation is read, too."""
    used = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    return "its second output is used" if used else None
