"""An If whose condition is known has one branch: its nodes move to where it stands, and the other branch goes."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
import onnx_ir.passes.common as passes

from eightbit.graph.model import attribute, constant, is_op
from eightbit.graph.names import node_names, tensor_names, unique_name, unique_node_name


def take_known_branches(model: ir.Model) -> int:
    """Write the branch that is taken where an If of the main graph has a constant condition; returns how many went.

    Nodes and tensors keep their names where no other has the same.
    """
    count = 0
    for node in list(model.graph):
        condition = constant(node.inputs[0]) if is_op(node, "If") else None
        if condition is not None and condition.size == 1:
            _replace(node, attribute(node, "then_branch" if condition.any() else "else_branch"))
            count += 1
    if count:
        _give_ranges_scalars(model)
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return count


def _give_ranges_scalars(model: ir.Model) -> None:
    """Squeeze what a Range reads, in place, for ONNX Runtime takes one-element tensors there only unawares.

    It does not know the shapes of what comes out of an If, and now it will.
    """
    for node in list(model.graph):
        if is_op(node, "Range"):
            for index, value in enumerate(node.inputs):
                scalar = ir.node(
                    "Squeeze", [value], name=unique_node_name(model.graph, f"{node.name}.{index}")
                )
                scalar.outputs[0].name = unique_name(model.graph, f"{node.name}.{index}")
                model.graph.insert_before(node, scalar)
                node.replace_input_with(index, scalar.outputs[0])


def _replace(node: ir.Node, branch: ir.Graph) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    results, nodes, weights = list(branch.outputs), list(branch), list(branch.initializers.values())
    branch.outputs.clear()
    branch.initializers.clear()
    branch.remove(nodes)
    taken = set(tensor_names(graph))
    for weight in weights:
        if weight.name in taken:
            weight.name = unique_name(graph, str(weight.name))
        graph.register_initializer(weight)
    graph.insert_before(node, nodes)
    handed = [ir.node("Identity", [value], name=unique_node_name(graph, str(node.name))) for value in results]
    made = [identity.outputs[0] for identity in handed]
    ir.convenience.replace_nodes_and_values(graph, node, [node], handed, node.outputs, made)
    tensors, called = Counter(tensor_names(graph)), Counter(node_names(graph))
    for moved in nodes:
        if called[str(moved.name)] > 1:
            moved.name = unique_node_name(graph, str(moved.name))
        for value in moved.outputs:
            if tensors[str(value.name)] > 1:
                value.name = unique_name(graph, str(value.name))
