"""Transformer layers in the form that integer kernels know.

A linear layer on a sequence, MatMul of (..., K) by a constant matrix and Add of its bias, becomes a Gemm on rows
between two Reshapes: only Gemm takes the bias into the integer accumulator. The scalar that divides attention scores
moves into the weights of the query, where it costs nothing. Both are exact up to float32 rounding.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eightbit.graph.model import (
    add_constant,
    bypass,
    constant,
    dims,
    is_op,
    rank,
    replace_node,
    sole_consumer,
)
from eightbit.graph.names import unique_name, unique_node_name
from eightbit.graph.prepare.affine_layers import absorb, layer_before

CARRIERS = ("Reshape", "Transpose")


def linear_to_gemm(model: ir.Model) -> int:
    """Write MatMul by a constant matrix plus bias, on tensors of rank 3 and more, as Gemm on rows; how many."""
    count = 0
    shapes: dict[tuple[str, int], ir.Value] = {}
    for node in list(model.graph):
        if not is_op(node, "MatMul") or (rank(node.inputs[0]) or 0) < 3:
            continue
        weight, add = constant(node.inputs[1]), sole_consumer(node.outputs[0])
        if (
            weight is None
            or weight.ndim != 2
            or weight.dtype != np.float32
            or add is None
            or not is_op(add, "Add")
        ):
            continue
        bias = next((array for array in map(constant, add.inputs) if array is not None), None)
        if bias is None or bias.size != weight.shape[1] or bias.shape[-1] != weight.shape[1]:
            continue
        _write_gemm(node, add, weight, bias.reshape(-1), shapes)
        count += 1
    return count


def _write_gemm(
    node: ir.Node, add: ir.Node, weight: np.ndarray, bias: np.ndarray, shapes: dict[tuple[str, int], ir.Value]
) -> None:
    graph, source, name = node.graph, node.inputs[0], node.name or node.outputs[0].name
    assert isinstance(graph, ir.Graph) and source is not None and source.shape is not None
    flat = ir.node(
        "Reshape",
        [source, add_constant(graph, f"{name}.rows", np.array([-1, weight.shape[0]]))],
        name=unique_node_name(graph, f"{name}.flatten"),
    )
    stem = str(node.inputs[1].name)  # type: ignore[union-attr]
    gemm = ir.node(
        "Gemm",
        [
            flat.outputs[0],
            add_constant(graph, f"{stem}.t", np.ascontiguousarray(weight.T)),
            add_constant(graph, f"{name}.bias", bias),
        ],
        {"transB": 1, "alpha": 1.0, "beta": 1.0},
        name=name,
    )
    key = str(list(source.shape)[:-1]), weight.shape[1]
    if key not in shapes:
        shapes[key] = _leading_shape(node, source, weight.shape[1])
    back = ir.node(
        "Reshape", [gemm.outputs[0], shapes[key]], name=unique_node_name(graph, f"{name}.unflatten")
    )
    for part, axes in ((flat, (None, weight.shape[0])), (gemm, (None, weight.shape[1]))):
        value = part.outputs[0]
        value.name = unique_name(graph, f"{part.name}.out")
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(axes)
    replace_node(add, [flat, gemm, back])
    graph.remove(node, safe=True)


def _leading_shape(node: ir.Node, source: ir.Value, last: int) -> ir.Value:
    """A tensor that holds the shape of `source` with another last axis, computed in front of `node`.

    It is read off a graph input with the same free axes where there is one, so that it does not keep `source` alive
    in float.
    """
    graph, known, name = node.graph, dims(source), node.name or node.outputs[0].name
    assert isinstance(graph, ir.Graph) and known is not None and source.shape is not None
    if sum(d is None for d in known[:-1]) <= 1:
        target = [-1 if d is None else d for d in known[:-1]]
        return add_constant(graph, f"{name}.shape", np.array([*target, last]))
    leading = list(source.shape)[:-1]
    same = (v for v in graph.inputs if v.shape is not None and list(v.shape)[: len(leading)] == leading)
    shape = ir.node("Shape", [next(same, source)], {"start": 0, "end": len(leading)})
    tail = add_constant(graph, f"{name}.last", np.array([last]))
    whole = ir.node("Concat", [shape.outputs[0], tail], {"axis": 0})
    for part, ending, length in ((shape, "leading", len(leading)), (whole, "shape", len(leading) + 1)):
        part.name = unique_node_name(graph, f"{name}.{ending}")
        part.outputs[0].name = unique_name(graph, f"{part.name}.out")
        part.outputs[0].dtype, part.outputs[0].shape = ir.DataType.INT64, ir.Shape((length,))
    graph.insert_before(node, [shape, whole])
    return whole.outputs[0]


def fold_score_scale(model: ir.Model) -> int:
    """Move a scalar factor behind a product of two activations into the layer that feeds the product; how many."""
    count = 0
    for node in list(model.graph):
        if not is_op(node, "Mul", "Div"):
            continue
        factor, product = constant(node.inputs[1]), node.inputs[0]
        if factor is None and is_op(node, "Mul"):
            factor, product = constant(node.inputs[0]), node.inputs[1]
        if factor is None or factor.size != 1 or product is None or sole_consumer(product) is None:
            continue
        matmul = product.producer()
        if (
            matmul is None
            or not is_op(matmul, "MatMul")
            or any(constant(v) is not None for v in matmul.inputs)
        ):
            continue
        layer = next((found for found in map(_fed_by, matmul.inputs) if found is not None), None)
        scale = float(factor.item()) if is_op(node, "Mul") else 1 / float(factor.item())
        if layer is None or not np.isfinite(scale) or not bypass(node, product):
            continue
        weight = constant(layer.inputs[1])
        assert weight is not None
        channels = weight.shape[0]
        absorb(layer, np.full(channels, scale), np.zeros(channels))
        count += 1
    return count


def _fed_by(value: ir.Value | None) -> ir.Node | None:
    """The Gemm or Conv behind `value`, seen through Reshape and Transpose that nothing else reads."""
    while value is not None and sole_consumer(value) is not None:
        layer = layer_before(value)
        if layer is not None:
            return layer if is_op(layer, "Gemm", "Conv") else None
        producer = value.producer()
        if producer is None or not is_op(producer, *CARRIERS):
            return None
        value = producer.inputs[0]
    return None
