"""Small questions put to an `onnx_ir.Model`, and the edits that every pass needs.

The graph is an `onnx_ir.Model` from end to end; nothing here is a second representation of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.errors import LoadError
from eightbit.graph.names import unique_name

OURS = "eightbit."
"""How the metadata begin that this package writes into a graph; others are dropped at loading."""
MAX_BYTES = 2**31 - 2**20  # protobuf stops at 2 GiB; leave room for the nodes beside the weights
WEIGHTED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array behind `value` if it is an initializer or comes from a Constant node, else None."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def fixed_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a constant, or of the constant codes that `value` is dequantized from; None for what is computed."""
    source = None if value is None else value.producer()
    if source is not None and is_op(source, "DequantizeLinear"):
        value = source.inputs[0]
    array = constant(value)
    return None if array is None else array.shape


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The Python value of an attribute, or `default` where the node does not carry it."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def ints(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """An INTS attribute as a tuple, or None where the node does not carry it."""
    found = attribute(node, name)
    return None if found is None else tuple(int(i) for i in found)


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index` of `node`, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether `node` is one of `op_types` of the standard ONNX domain."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def title(node: ir.Node) -> str:
    """The name of a node; of one without, its op and what it writes."""
    return node.name or f"{node.op_type} -> {node.outputs[0].name}"


def first_codes(model: ir.Model) -> ir.Node | None:
    """The first node that takes codes of weights or activations; None for a float model.

    A product of integers that a caller hands in is no quantized layer: its weights are.
    """
    for node in model.graph:
        if is_op(node, "DequantizeLinear") or (
            is_op(node, "MatMulInteger") and constant(node.inputs[1]) is not None
        ):
            return node
    return None


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value` on one edge; None if there are more or it is a graph output."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def read_by(node: ir.Node) -> set[ir.Value]:
    """Every tensor that a node reads, those in the graphs of its branches and loops included."""
    inner = (
        graph
        for attribute in node.attributes.values()
        for graph in (
            [attribute.as_graph()]
            if attribute.type == ir.AttributeType.GRAPH
            else attribute.as_graphs()
            if attribute.type == ir.AttributeType.GRAPHS
            else []
        )
    )
    nodes = [node, *(n for graph in inner for n in ir.traversal.RecursiveGraphIterator(graph))]
    return {value for n in nodes for value in n.inputs if value is not None}


def rank(value: ir.Value | None) -> int | None:
    """Number of axes of `value`, or None if unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Shape of `value` with None for a free dimension; None if even the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else None for d in value.shape)


def add_constant(graph: ir.Graph, stem: str, array: np.ndarray) -> ir.Value:
    """Register `array` as a new initializer named after `stem` and return its value."""
    return register_constant(graph, unique_name(graph, stem), array)


def register_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register `array` as an initializer called `name`, which is free, and return its value."""
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def make_constant(node: ir.Node, arrays: Sequence[np.ndarray]) -> None:
    """Put initializers that hold `arrays` where `node` computes its outputs; they take over the names and the uses."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    for value, array in zip(node.outputs, arrays, strict=True):
        name, value.name = str(value.name), None
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
        shape = ir.Shape(array.shape)
        fresh = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        graph.register_initializer(fresh)
        ir.convenience.replace_all_uses_with(value, fresh)
    graph.remove(node, safe=True)


def replace_node(old: ir.Node, new: ir.Node | Sequence[ir.Node]) -> None:
    """Put one or more nodes where `old` stands; the last one's outputs take over name, type and uses."""
    nodes = [new] if isinstance(new, ir.Node) else list(new)
    graph = old.graph
    assert isinstance(graph, ir.Graph)
    ir.convenience.replace_nodes_and_values(graph, old, [old], nodes, old.outputs, nodes[-1].outputs)


def bypass(node: ir.Node, value: ir.Value) -> bool:
    """Remove `node` and let its readers read `value` instead; False (and no change) if it cannot go.

    A node between a graph input or an initializer and a graph output must stay: both names are fixed.
    """
    graph, output = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    if output.is_graph_output():
        if value.is_graph_input() or value.is_initializer() or value.is_graph_output():
            return False
        if value.graph is not graph:
            return False
        value.name, value.type, value.shape = (
            output.name,
            value.type or output.type,
            output.shape or value.shape,
        )
    ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True


def drop_unread(graph: ir.Graph) -> None:
    """Remove, in place, the initializers that no node reads and that are no output of the graph."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def initializer_bytes(model: ir.Model) -> int:
    """Bytes of all initializers of the main graph."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def check_weights(model: ir.Model) -> None:
    """Raise LoadError, naming the tensor, on NaN anywhere, or Inf or no element in a layer's weights.

    Infinity is legal elsewhere: attention masks use it.
    """
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None:
                raise LoadError(f"initializer '{name}' has no data; save the model with its weights")
            layer = next(
                (u.node for u in value.uses() if is_op(u.node, *WEIGHTED_OPS, "BatchNormalization")), None
            )
            if layer is not None and tensor.size == 0:
                shape = tuple(tensor.shape.numpy())
                raise LoadError(f"weight '{name}' of node '{layer.name}' has shape {shape}: no element")
            if not tensor.dtype.is_floating_point():
                continue
            array = tensor.numpy()
            finite = np.isfinite(array)
            if finite.all():
                continue
            if np.isnan(array).any() or layer is not None:
                bad = int(array.size - np.count_nonzero(finite))
                raise LoadError(
                    f"weight '{name}' holds {bad} value(s) that are NaN or Inf; retrain or re-save it"
                )


def set_constant(node: ir.Node, index: int, array: np.ndarray, *, stem: str | None = None) -> None:
    """Make the constant `array` input `index` of `node`; what other nodes read there stays as it is.

    The tensor keeps its name if `node` is its only reader; a new one is named `stem` or after the old.
    """
    graph, value = node.graph, input_at(node, index)
    assert isinstance(graph, ir.Graph)
    if (
        value is not None
        and value.is_initializer()
        and len(value.uses()) == 1
        and not value.is_graph_output()
    ):
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=value.name)
        value.const_value, value.shape, value.dtype = tensor, ir.Shape(array.shape), tensor.dtype
        return
    name = stem or (f"{node.name}.{index}" if value is None else str(value.name))
    fresh = add_constant(graph, name, array)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, fresh)
