"""The dynamic layers of a graph: what DynamicQuantizeLinear and MatMulInteger compute, as operations of the program.

    x -> DynamicQuantizeLinear -> q, s, z
    y = Cast(MatMulInteger(q, w, z)) * (s * s_w)  [+ bias]

`eightbit.quantize` writes this with `Activations(dynamic=True)`; ONNX Runtime's `quantize_dynamic` writes the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.graph.model import attribute, constant, input_at, is_op, sole_consumer
from eightbit.integer import program as p


def dynamic_layers(qdq: ir.Model) -> tuple[list[p.Op], set[ir.Node]]:
    """The operations of every dynamic layer of the graph, and the nodes that they stand for.

    A DynamicQuantizeLinear with a reader that is no such layer, or with an output that is one of the graph, is left,
    with all its readers, to the float islands.
    """
    ops: list[p.Op] = []
    covered: set[ir.Node] = set()
    for node in qdq.graph:
        if not is_op(node, "DynamicQuantizeLinear"):
            continue
        products = [use.node for use in node.outputs[0].uses()]
        layers = [layer for product in products if (layer := _layer(node, product)) is not None]
        nodes = {node}.union(*(nodes for _, nodes in layers))
        readers = {use.node for value in node.outputs for use in value.uses()}
        given_away = any(value.is_graph_output() for value in node.outputs)
        if len(layers) < len(products) or not readers <= nodes or not layers or given_away:
            continue
        codes, scale, zero_point = (str(value.name) for value in node.outputs)
        ops.append(p.DynamicQuantize(str(node.name), (str(node.inputs[0].name),), (codes, scale, zero_point)))  # type: ignore[union-attr]
        ops.extend(op for op, _ in layers)
        covered |= nodes
    return ops, covered


def _layer(source: ir.Node, product: ir.Node) -> tuple[p.DynamicGemm, set[ir.Node]] | None:
    """One layer that reads the codes of `source`: its operation and its nodes; None if it is built otherwise."""
    codes, s_x, z_x = source.outputs
    if not is_op(product, "MatMulInteger") or (product.inputs[0], input_at(product, 2)) != (codes, z_x):
        return None
    weight = _weight(product)
    cast = sole_consumer(product.outputs[0])
    if (
        weight is None
        or cast is None
        or not is_op(cast, "Cast")
        or attribute(cast, "to", 0) != ir.DataType.FLOAT
    ):
        return None
    scaled = sole_consumer(cast.outputs[0])
    if scaled is None or not is_op(scaled, "Mul"):
        return None
    scales = _other(scaled, cast.outputs[0])
    scaling = scales.producer()
    if (
        scaling is None
        or not is_op(scaling, "Mul")
        or s_x not in scaling.inputs
        or sole_consumer(scales) is None
    ):
        return None
    channels = weight.shape[1]
    s_w = constant(_other(scaling, s_x))
    if s_w is None or s_w.dtype != np.float32 or s_w.ndim > 1 or s_w.size not in (1, channels):
        return None
    nodes, last = {product, cast, scaling, scaled}, scaled
    bias = None
    after = sole_consumer(scaled.outputs[0])
    if after is not None and is_op(after, "Add"):
        array = constant(_other(after, scaled.outputs[0]))
        if array is not None and array.shape == (channels,) and array.dtype == np.float32:
            bias, last = array, after
            nodes.add(after)
    inputs = tuple(str(value.name) for value in (codes, s_x, z_x))
    scale = np.broadcast_to(s_w.reshape(-1), (channels,)).astype(np.float32)
    return p.DynamicGemm(str(product.name), inputs, (str(last.outputs[0].name),), weight, scale, bias), nodes


def _weight(product: ir.Node) -> p.Codes | None:
    """The constant weight (K, N) of a MatMulInteger as symmetric int8 codes, else None."""
    codes, zero = constant(product.inputs[1]), constant(input_at(product, 3))
    if codes is None or codes.ndim != 2 or codes.dtype not in (np.int8, np.uint8):
        return None
    if input_at(product, 3) is not None and zero is None:
        return None
    offset = 128 if codes.dtype == np.uint8 else 0
    zeros: NDArray[np.generic] | Sequence[int] = [0] if zero is None else zero
    return p.canonical(codes) if np.all(np.asarray(zeros) == offset) else None


def _other(node: ir.Node, value: ir.Value) -> ir.Value:
    """The operand of a node of two inputs that is not `value`."""
    first, second = node.inputs
    other = second if first is value else first
    assert other is not None
    return other
