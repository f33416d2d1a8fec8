"""A Swish between codes as a product of two codes, x and its gate (`quant.observe.gates`).

    x_q -> DequantizeLinear -> x_dq -> Sigmoid -> QuantizeLinear -> gate_q -> DequantizeLinear -> Mul -> y
    x_q -> Clip -> gate_q -> DequantizeLinear -> Mul -> y        (HardSwish)

The Mul's other factor is x_dq.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from eightbit.arith.affine import QuantParams
from eightbit.graph.model import add_constant, constant, drop_unread, is_op, replace_node, sole_consumer
from eightbit.graph.names import counted, unique_name, unique_node_name
from eightbit.quant.choose.placement import Placement
from eightbit.quant.observe.gates import Gate, Swish, gate, on_codes


def write_gates(
    model: ir.Model, found: Iterable[Swish], placement: Placement, params: Mapping[str, QuantParams]
) -> list[str]:
    """Replace, in place, every Swish whose two ends `insert_qdq` made 8-bit codes, where its gate has codes.

    Returns the names of the nodes that were replaced.
    """
    written: list[str] = []
    nodes = {str(node.name): node for node in model.graph}
    with counted(model.graph):
        for swish in on_codes(found, placement):
            own = gate(swish, params[placement.sources[swish.root]])
            spelled = [nodes[name] for name in swish.nodes]
            x, reader = _read(spelled), sole_consumer(spelled[-1].outputs[0])
            if own is None or params[placement.sources[swish.end]].itype.bits != 8:
                continue
            # A float op may hand it what it reads, or read what it writes beside the codes: then it stays as it is.
            if is_op(x.producer(), "DequantizeLinear") and is_op(reader, "QuantizeLinear"):
                _write(model.graph, spelled, x, own, swish.root)
                written += swish.nodes
    if written:
        drop_unread(model.graph)
    return written


def _read(nodes: list[ir.Node]) -> ir.Value:
    """The one tensor of which the nodes make a function."""
    made = {node.outputs[0] for node in nodes}
    (x,) = {v for node in nodes for v in node.inputs if v is not None and constant(v) is None} - made
    return x


def _write(graph: ir.Graph, nodes: list[ir.Node], x: ir.Value, own: Gate, stem: str) -> None:
    """Put the product where the last of `nodes` stands, and take the others away; `x` comes from codes."""
    dq = x.producer()
    assert dq is not None
    codes = dq.inputs[0]
    assert codes is not None
    name, dtype = f"{stem}_gate", own.params.itype.dtype
    scale = add_constant(graph, f"{name}_s", own.params.scale)
    zero = add_constant(graph, f"{name}_z", own.params.zero_point.astype(dtype))

    def step(op: str, inputs: list[ir.Value], ending: str, like: ir.Value) -> ir.Node:
        out = ir.Value(name=unique_name(graph, name + ending), type=like.type, shape=like.shape)
        return ir.node(op, inputs, outputs=[out], name=unique_node_name(graph, f"{name}_{op}"))

    if own.bounds is None:
        opened = step("Sigmoid", [x], "", x)
        added = [opened, step("QuantizeLinear", [opened.outputs[0], scale, zero], "_q", codes)]
    else:
        ends = zip(("lowest", "highest"), own.bounds, strict=True)
        bounds = [add_constant(graph, f"{name}_{end}", np.asarray(bound, dtype)) for end, bound in ends]
        added = [step("Clip", [codes, *bounds], "_q", codes)]
    added.append(step("DequantizeLinear", [added[-1].outputs[0], scale, zero], "_dq", x))
    added.append(ir.node("Mul", [x, added[-1].outputs[0]], name=nodes[-1].name))
    replace_node(nodes[-1], added)
    for node in reversed(nodes[:-1]):
        graph.remove(node, safe=True)
