"""Functions of one number that a graph spells out: trees of element-by-element ops on one tensor and single constants.

    x -> Add 3 -> Clip [0, 6] -> Mul x -> Mul 1/6        (HardSwish)

Between codes such a tree needs one rounding, at its end: the integer program makes it one table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from eightbit.graph.forms import ELEMENTWISE
from eightbit.graph.model import constant, is_op, rank
from eightbit.graph.run import FloatSession


@dataclass(frozen=True, eq=False)
class Function:
    """A tree: the tensor of which it is a function, its nodes in graph order, and the one tensor that others read."""

    root: ir.Value
    nodes: tuple[ir.Node, ...]
    end: ir.Value

    @property
    def reads_alone(self) -> bool:
        """Whether nothing but the function reads its root."""
        return not _leaves(self.root, {*self.nodes})

    def at(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Its values (N,) at `x` (N,). Raises EngineError where ONNX Runtime does not run it."""
        graph = self.nodes[0].graph
        assert isinstance(graph, ir.Graph)
        root, end = str(self.root.name), str(self.end.name)
        read = [value for node in self.nodes for value in node.inputs if value is not None]
        fixed = {str(value.name): array for value in read if (array := constant(value)) is not None}
        body = helper.make_graph(
            [ir.serde.serialize_node(node) for node in self.nodes],
            "function",
            [helper.make_tensor_value_info(root, TensorProto.FLOAT, [None])],
            [helper.make_tensor_value_info(end, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in fixed.items()],
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in graph.opset_imports.items()]
        model = helper.make_model(body, opset_imports=opsets, ir_version=10)
        return FloatSession(ir.from_proto(model)).run({root: x})[end].ravel()


def functions(model: ir.Model, starts: Collection[str]) -> Iterator[Function]:
    """The trees of a graph that others read at one end; one begins at each of the tensors named in `starts`."""
    trees: dict[ir.Value, list[ir.Node]] = {}
    for node, root in function_roots(model, starts=starts).items():
        trees.setdefault(root, []).append(node)
    for root, nodes in trees.items():
        inside = set(nodes)
        ends = [node.outputs[0] for node in nodes if _leaves(node.outputs[0], inside)]
        if len(ends) == 1:
            yield Function(root, tuple(nodes), ends[0])


def _leaves(value: ir.Value, inside: Collection[ir.Node]) -> bool:
    return value.is_graph_output() or any(use.node not in inside for use in value.uses())


def function_roots(
    model: ir.Model, *, apart: Collection[ir.Node] = (), starts: Collection[str] = ()
) -> dict[ir.Node, ir.Value]:
    """The tensor of which each node that computes a function of one number is one; nodes that do not are left out.

    Nodes `apart` belong to no tree; another one begins behind them, and behind each of the tensors named in `starts`.
    """
    roots: dict[ir.Value, ir.Value] = {}
    found: dict[ir.Node, ir.Value] = {}
    for node in model.graph:
        if node in apart or not is_op(node, *ELEMENTWISE) or len(node.outputs) != 1:
            continue
        moving = [value for value in node.inputs if value is not None and constant(value) is None]
        fixed = [array for value in node.inputs if (array := constant(value)) is not None]
        sources = {roots.get(value, value) for value in moving}
        if len(sources) == 1 and all(single(array, moving[0]) for array in fixed):
            (root,) = sources
            found[node] = root
            if node.outputs[0].name not in starts:
                roots[node.outputs[0]] = root
    return found


def single(array: np.ndarray, beside: ir.Value) -> bool:
    """Whether a constant is one number, and adds no axis to what it meets."""
    return array.size == 1 and (array.ndim == 0 or array.ndim <= (rank(beside) or 0))
