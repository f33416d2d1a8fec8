"""A QDQ graph in, the integer program out.

1. A float node that has an integer form (`graph.forms`), whose inputs are dequantized codes and whose output is
   quantized becomes integer operations (`rules`);
   a layer whose input is quantized dynamically becomes two (`dynamic_layers`), a look-up in a
   table of codes one (`embeddings`).
2. What is left in float is cut into islands: connected float nodes between codes and codes (`islands`). An island
   that is a function of one code becomes a table.
3. Borders get Quantize and Dequantize; what is multiplied by a table of itself becomes one table (`gates`); everything
   is put in running order and verified.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from eightbit.errors import UnsupportedOp
from eightbit.graph.forms import refusal
from eightbit.graph.model import constant, is_op
from eightbit.integer import program as p
from eightbit.integer.lower.codes import CodeTensors
from eightbit.integer.lower.dynamic_layers import dynamic_layers
from eightbit.integer.lower.embeddings import embeddings
from eightbit.integer.lower.ends import requantize_table
from eightbit.integer.lower.gates import with_gates
from eightbit.integer.lower.islands import find_islands
from eightbit.integer.lower.rules import RULES, clip_codes
from eightbit.integer.verify import verify


def lower(qdq: ir.Model) -> p.Program:
    """The integer program of a QDQ graph, verified.

    Nodes without an integer rule become float islands. Raises UnsupportedOp, listing every offender, if the graph's
    quantization contradicts itself, and EngineError if the program does not verify.
    """
    codes = CodeTensors.of(qdq.graph)
    ops, covered = dynamic_layers(qdq)
    lookups, around = embeddings(qdq)
    ops, covered = [*ops, *lookups], covered | around
    in_float: dict[ir.Node, str] = {}
    written = {name for op in ops for name in op.outputs}
    for node in qdq.graph:
        if node in covered:
            continue
        if is_op(node, "QuantizeLinear") or is_op(node, "DequantizeLinear"):
            if not codes.is_code_node(node) and constant(node.inputs[0]) is None:
                in_float[node] = "codes of other than 8 or 16 bits, or with a scale a channel"
            continue
        made = clip_codes(node, codes) or refusal(node) or RULES.get(node.op_type, _table)(node, codes)
        if isinstance(made, str):
            in_float[node] = made
        else:
            ops.extend(made)
            written.update(name for op in made for name in op.outputs)
    islands = find_islands(qdq, in_float, codes)
    ops.extend(islands)
    written.update(name for op in islands for name in op.outputs)
    ops.extend(_borders(qdq, codes, (ops, written)))
    outputs = tuple(str(v.name) for v in qdq.graph.outputs)
    ops = with_gates(ops, codes.tensors, outputs)
    if codes.problems:
        raise UnsupportedOp("the graph's quantization contradicts itself:\n  " + "\n  ".join(codes.problems))
    used = {name for op in ops for name in op.inputs} | {name for op in ops for name in op.outputs}
    program = p.Program(
        inputs=tuple(str(v.name) for v in qdq.graph.inputs if v.name not in qdq.graph.initializers),
        outputs=outputs,
        ops=tuple(_in_order(ops)),
        tensors={name: info for name, info in codes.tensors.items() if name in used},
        constants={name: c for name, c in codes.constants.items() if name in used},
    )
    verify(program)
    return program


def _table(node: ir.Node, codes: CodeTensors) -> str:
    """What has an integer form and no rule: a look-up, which `embeddings` finds where its table is codes."""
    return "its table is not codes with a scale a row"


def _borders(qdq: ir.Model, codes: CodeTensors, done: tuple[list[p.Op], set[str]]) -> Iterable[p.Op]:
    """Quantize and Dequantize wherever a float tensor is read from codes, or codes from a float tensor."""
    ops, written = done
    read = {name for op in ops for name in op.inputs} | {str(v.name) for v in qdq.graph.outputs}
    borders: list[p.Op] = []
    wanted = set(read)
    for node in reversed(list(qdq.graph)):  # backwards: a border may need the one before it
        if not codes.is_code_node(node):
            if (
                is_op(node, "DequantizeLinear")
                and node.outputs[0].name in wanted
                and codes.read(node.outputs[0])
            ):
                source = str(codes.read(node.outputs[0]))  # a constant that is a graph output
                borders.append(p.Dequantize(str(node.name), (source,), (str(node.outputs[0].name),)))
            continue
        x, y = node.inputs[0], str(node.outputs[0].name)
        assert x is not None
        if y not in wanted or y in written:
            continue
        info = codes.describe(node)
        assert info is not None
        if is_op(node, "DequantizeLinear"):
            source = str(codes.read(node.outputs[0]))
            borders.append(p.Dequantize(str(node.name), (source,), (y,)))
            wanted.add(source)
            continue
        codes.tensors.setdefault(y, info)
        before = codes.read(x)
        if before is None:
            borders.append(p.Quantize(str(node.name), (str(x.name),), (y,)))
            wanted.add(str(x.name))
        else:
            table = requantize_table(codes.tensors[before], info)
            table = p.all_codes(info.itype) if table is None else table
            borders.append(p.Lookup(str(node.name), (before,), (y,), table, p.REQUANTIZE))
            wanted.add(before)
    return borders


def _in_order(ops: list[p.Op]) -> list[p.Op]:
    """The operations so that each comes after those it reads from; otherwise in the order given."""
    made_by = {name: op for op in ops for name in op.outputs}
    order: dict[int, p.Op] = {}
    for op in ops:
        stack = [op]
        while stack:
            top = stack[-1]
            needs = [made_by[n] for n in top.inputs if n in made_by and id(made_by[n]) not in order]
            if id(top) in order or not needs:
                order.setdefault(id(top), top)
                stack.pop()
            else:
                stack.extend(needs)
    return list(order.values())
