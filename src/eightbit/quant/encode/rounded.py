"""The float graph whose activations go through their codes: what a layer of the quantized network sees, in float.

Each tensor t of the placement becomes s · clip(round(t / s), qmin - z, qmax - z), in plain float operations: of Q and
DQ around a float layer ONNX Runtime would make an integer kernel, with weights of its own rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from eightbit.arith.affine import QuantParams, fake_quantize
from eightbit.graph.model import add_constant, constant
from eightbit.graph.names import counted, unique_name, unique_node_name
from eightbit.quant.choose.placement import Placement


def round_activations(
    model: ir.Model, placement: Placement, params: Mapping[str, QuantParams]
) -> dict[str, QuantParams]:
    """Let every tensor of the placement that a node writes go through its codes, in place; its name stays behind them.

    Constants that meet codes become what their codes stand for. Inputs of the graph are what is fed: returns the
    parameters of those that become codes, by name.
    """
    graph = model.graph
    with counted(graph):
        for node in list(graph):
            if node.name in placement.integer:
                _round_constants(graph, node, params)
            for value in node.outputs:
                if placement.sources.get(str(value.name)) == value.name:
                    _round(graph, node, value, params[str(value.name)])
    inputs = [str(value.name) for value in graph.inputs]
    return {name: params[placement.sources[name]] for name in inputs if name in placement.sources}


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value, p: QuantParams) -> None:
    """Four nodes behind `value`, whose name and readers the last of them gets."""
    name, users = str(value.name), list(value.uses())
    scale = add_constant(graph, f"{name}.step", np.asarray(p.scale, np.float32))
    ends = [
        add_constant(graph, f"{name}.{end}", np.asarray(bound - int(p.zero_point), np.float32))
        for end, bound in (("lowest", p.itype.qmin), ("highest", p.itype.qmax))
    ]
    made, last = [], value
    for op, others in (("Div", [scale]), ("Round", []), ("Clip", ends), ("Mul", [scale])):
        out = ir.Value(name=unique_name(graph, f"{name}.{op}"), type=value.type, shape=value.shape)
        made.append(ir.node(op, [last, *others], outputs=[out], name=unique_node_name(graph, f"{name}.{op}")))
        last = out
    value.name, last.name = last.name, name
    for user, index in users:
        user.replace_input_with(index, last)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = last
    graph.insert_after(node, made)


def _round_constants(graph: ir.Graph, node: ir.Node, params: Mapping[str, QuantParams]) -> None:
    for index, value in enumerate(node.inputs):
        array, p = constant(value), params.get("" if value is None else str(value.name))
        if value is not None and array is not None and p is not None:
            near = fake_quantize(array.astype(np.float32), p)
            node.replace_input_with(index, add_constant(graph, f"{value.name}.rounded", near))
