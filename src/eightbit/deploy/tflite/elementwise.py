"""Float operators on single elements, and on tensors that broadcast.

A tensor lies as its node's inputs do: an image whose channels are last keeps them there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from eightbit.deploy.layout.views import View, in_order
from eightbit.deploy.tflite.build import Builder
from eightbit.deploy.tflite.islands import FloatNode
from eightbit.deploy.tflite.layers import raised
from eightbit.graph.model import attribute, constant, input_at

Write = Callable[[FloatNode, Builder], None]


def broadcast(kind: str, views: Sequence[View], output: str, b: Builder, **options: object) -> View:
    """An operator on tensors that broadcast; its output, a tensor of the program, lies as the first of its shape."""
    shape = b.shapes[output]
    full = next((v for v in views if v.shape == shape), None)
    y = b.make(output, in_order(len(shape)) if full is None else full.order)
    operands = [b.laid(b.reordered(raised(view, len(shape)), y.order)) for view in views]
    b.add(kind, operands, y.buffer, **options)
    return y


def between(kind: str, views: Sequence[View], name: str, b: Builder, **options: object) -> View:
    """The same for an output that the program knows nothing of; the first operand has its shape."""
    b.shapes[name] = views[0].shape
    return broadcast(kind, views, name, b, **options)


def chain(x: View, steps: Sequence[tuple[str, View]], op: FloatNode, b: Builder) -> None:
    """Operators one after another, each on what the one before made and another operand; the last makes the output."""
    for i, (kind, operand) in enumerate(steps, start=1):
        if i < len(steps):
            x = between(kind, [x, operand], f"{op.name}.step{i}", b)
        else:
            broadcast(kind, [x, operand], op.outputs[0], b)


def scalar(number: float, b: Builder) -> View:
    """A constant of one number."""
    return View(b.constant(np.array(number, np.float32)), (), ())


def function(kind: str, **options: str) -> Write:
    """An operator on one tensor, or on several that broadcast; `options` are taken from the node's attributes."""

    def write(op: FloatNode, b: Builder) -> None:
        given = {name: attribute(op.node, attr, 0.01) for name, attr in options.items()}
        broadcast(kind, [b.views[name] for name in op.inputs], op.outputs[0], b, **given)

    return write


def power(op: FloatNode, b: Builder) -> None:
    """A power; a constant exponent may be an integer in ONNX."""
    x, exponent = (b.views[name] for name in op.inputs)
    data = b.tensors[exponent.buffer].data
    if data is not None:
        exponent = View(b.constant(data.astype(np.float32)), exponent.shape, exponent.order)
    broadcast("POW", [x, exponent], op.outputs[0], b)


def gelu(op: FloatNode, b: Builder) -> None:
    """GELU, by tanh where the node says so."""
    tanh = attribute(op.node, "approximate", "none") == "tanh"
    broadcast("GELU", [b.views[op.inputs[0]]], op.outputs[0], b, approximate=tanh)


def clip(op: FloatNode, b: Builder) -> None:
    """RELU6 where it is that, else MAXIMUM and MINIMUM."""
    x = b.views[op.inputs[0]]
    lo, hi = (constant(input_at(op.node, i)) for i in (1, 2))
    if lo is not None and hi is not None and (float(lo), float(hi)) == (0, 6):
        broadcast("RELU6", [x], op.outputs[0], b)
        return
    bounds = [
        (kind, scalar(float(bound), b))
        for kind, bound in (("MAXIMUM", lo), ("MINIMUM", hi))
        if bound is not None
    ]
    if bounds:
        chain(x, bounds, op, b)
    else:
        same(op, b)


def hard_sigmoid(op: FloatNode, b: Builder) -> None:
    """max(0, min(1, alpha x + beta))."""
    alpha, beta = (float(attribute(op.node, *pair)) for pair in (("alpha", 0.2), ("beta", 0.5)))
    steps = (("MUL", alpha), ("ADD", beta), ("MAXIMUM", 0), ("MINIMUM", 1))
    chain(b.views[op.inputs[0]], [(kind, scalar(number, b)) for kind, number in steps], op, b)


def reciprocal(op: FloatNode, b: Builder) -> None:
    """1 / x."""
    broadcast("DIV", [scalar(1, b), b.views[op.inputs[0]]], op.outputs[0], b)


def same(op: FloatNode, b: Builder) -> None:
    """Nothing: another name."""
    b.views[op.outputs[0]] = b.views[op.inputs[0]]


def cast(op: FloatNode, b: Builder) -> None:
    """Numbers of one type as those of another."""
    x = b.views[op.inputs[0]]
    if b.dtype(op.outputs[0]) == b.tensors[x.buffer].dtype:
        same(op, b)
    else:
        b.add("CAST", (b.laid(x),), b.make(op.outputs[0], x.order).buffer)


def total(op: FloatNode, b: Builder) -> None:
    """The sum of one or two."""
    views = [b.views[name] for name in op.inputs]
    b.views[op.outputs[0]] = views[0] if len(views) == 1 else broadcast("ADD", views, op.outputs[0], b)


def two(node: ir.Node) -> str | None:
    """Refuses more operands than an operator has."""
    return None if len(node.inputs) <= 2 else f"it reads {len(node.inputs)} tensors"


def elu(node: ir.Node) -> str | None:
    """Refuses other slopes than 1."""
    alpha = attribute(node, "alpha", 1.0)
    return None if alpha == 1 else f"it is Elu with alpha {alpha}"


def bounds_known(node: ir.Node) -> str | None:
    """Refuses bounds that are computed as the node runs."""
    bounds = [input_at(node, i) for i in (1, 2)]
    return (
        "its bounds are not constant" if any(v is not None and constant(v) is None for v in bounds) else None
    )
