"""Which codes in a graph belong to which tensor of the float graph, as `quant.write` and others lay them out.

    x -> QuantizeLinear [-> Clip] -> codes -> DequantizeLinear

Beside the DequantizeLinear, a Clip may make codes of another tensor, which the float graph does not have:

    codes -> Clip -> codes of a gate -> DequantizeLinear        (`quant.write.gates`)

The names of what is made up say nothing for certain: a model may have a tensor called `x_q` of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from eightbit.graph.model import constant, is_op

CODES = "_q"
"""What the name of constant codes ends in, behind that of the float constant."""


def quantizer(codes: ir.Value | None) -> ir.Node | None:
    """The QuantizeLinear that made `codes`, at once or through a Clip that cuts them off at fewer bits."""
    node = None if codes is None else codes.producer()
    if node is not None and is_op(node, "Clip") and gated(codes) is None:
        before = _cut(node)
        node = None if before is None else before.producer()
    return node if node is not None and is_op(node, "QuantizeLinear") else None


def gated(codes: ir.Value | None) -> ir.Value | None:
    """The codes of which a Clip made these, if others read them as they are; None for any other value."""
    node = None if codes is None else codes.producer()
    source = None if node is None else _cut(node)
    if source is None or not (source.is_graph_output() or any(use.node is not node for use in source.uses())):
        return None
    return source if quantizer(source) is not None else None


def _cut(clip: ir.Node) -> ir.Value | None:
    """What a Clip of constant bounds cuts off; None for any other node."""
    fixed = is_op(clip, "Clip") and all(constant(v) is not None for v in clip.inputs[1:])
    return clip.inputs[0] if fixed else None


def code_tensors(graph: ir.Graph) -> Iterator[tuple[str, ir.Value, ir.Node]]:
    """Of each tensor that becomes codes in `graph`: its name in the float graph, the codes, their QuantizeLinear."""
    for node in graph:
        codes = node.outputs[0] if node.outputs else None
        q = quantizer(codes)
        if codes is None or q is None or any(quantizer(use.node.outputs[0]) is q for use in codes.uses()):
            continue  # a Clip cuts these off
        yield float_name(codes), codes, q


def float_name(codes: ir.Value) -> str:
    """The name of a tensor of codes in the float graph, where it was a float tensor.

    That of an output of the graph lies behind DequantizeLinear, any other's before QuantizeLinear. A constant's float
    is gone, and its name is what that of its codes was made from.
    """
    q = quantizer(codes)
    if q is None or q.inputs[0] is None:
        return str(codes.name).removesuffix(CODES)
    source = q.inputs[0]
    behind = (use.node.outputs[0] for use in codes.uses() if is_op(use.node, "DequantizeLinear"))
    outer = source if source.is_graph_output() else next((v for v in behind if v.is_graph_output()), source)
    return str(outer.name)
