"""NHWC sources carry transposes; those inside the network go, those at its borders stay.

Two transposes in a row are one; one that meets an elementwise op sinks below it, until it meets its
inverse and both vanish.
"""

from __future__ import annotations

import onnx_ir as ir

from eightbit.graph.model import constant, input_at, ints, is_op, replace_node, sole_consumer
from eightbit.graph.names import unique_name, unique_node_name
from eightbit.graph.prepare.infer import symbols

ELEMENTWISE = (
    "Relu",
    "Clip",
    "LeakyRelu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Elu",
    "Erf",
    "Gelu",
)


def cancel_transposes(model: ir.Model) -> int:
    """Merge a Transpose into the Transpose before it, in place; returns how many merged."""
    count = 0
    for node in list(model.graph):
        before = None if not is_op(node, "Transpose") else _producer(node)
        if before is None or not is_op(before, "Transpose"):
            continue
        first, second = ints(before, "perm"), ints(node, "perm")
        if first is None or second is None:
            continue
        merged = [first[axis] for axis in second]
        replace_node(node, ir.node("Transpose", [before.inputs[0]], {"perm": merged}, name=node.name))
        count += 1
    return count


def sink_transposes(model: ir.Model) -> int:
    """Move a Transpose below an elementwise op that another one follows, in place; returns how many."""
    count = 0
    for node in list(model.graph):
        before = _producer(node) if is_op(node, *ELEMENTWISE) else None
        after = sole_consumer(node.outputs[0]) if before is not None else None
        if before is None or not is_op(before, "Transpose") or not is_op(after, "Transpose"):
            continue
        if any(constant(v) is None for v in node.inputs[1:] if v is not None) or len(node.outputs) != 1:
            continue
        perm = ints(before, "perm")
        if perm is None:
            continue
        moved = ir.node(node.op_type, [before.inputs[0], *node.inputs[1:]], name=node.name)
        for name, value in node.attributes.items():
            moved.attributes[name] = value
        inner = moved.outputs[0]
        inner.name, inner.type = unique_name(model.graph, f"{node.name}.inner"), node.outputs[0].type
        name = unique_node_name(model.graph, f"{node.name}.transpose")
        replace_node(node, [moved, ir.node("Transpose", [inner], {"perm": perm}, name=name)])
        count += 1
    return count


def reshape_transpose_reshape(model: ir.Model) -> int:
    """Write Reshape (A,B,C,D)->(AB,C,D), Transpose, Reshape ->(A,B,D,C) as one Transpose; returns how many.

    That is how PyTorch's exporter spells the transposed keys of attention; with batch and sequence both free
    its Reshape targets cannot be constants, the Transpose needs none.
    """
    count = 0
    for last in list(model.graph):
        swap = _producer(last) if is_op(last, "Reshape") else None
        first = _producer(swap) if swap is not None and is_op(swap, "Transpose") else None
        if swap is None or first is None or not is_op(first, "Reshape") or ints(swap, "perm") != (0, 2, 1):
            continue
        source, flat = first.inputs[0], symbols(first.outputs[0])
        given, wanted = symbols(source), symbols(last.outputs[0])
        if flat is None or given is None or wanted is None or (len(flat), len(given)) != (3, 4):
            continue
        a, b, c, d = given
        if None in (a, b, c, d) or flat[1:] != (c, d) or wanted != (a, b, d, c):
            continue
        replace_node(last, ir.node("Transpose", [source], {"perm": [0, 1, 3, 2]}, name=last.name))
        count += 1
    return count


def _producer(node: ir.Node) -> ir.Node | None:
    value = input_at(node, 0)
    return None if value is None else value.producer()
