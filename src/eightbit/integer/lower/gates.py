"""A tensor of codes times a table of itself is a function of one code: one table, rounded as the two were.

    x -> Lookup (Sigmoid) -> gate,  Mul (x, gate) -> y        becomes        x -> Lookup (Sigmoid+Mul) -> y

ONNX Runtime has a kernel for each of the two and none for the whole; to an engine with tables they are one look-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from eightbit.arith.affine import INT8
from eightbit.integer import program as p
from eightbit.integer.engine.elementwise import mul_b


def with_gates(
    ops: Sequence[p.Op], tensors: Mapping[str, p.TensorInfo], outputs: Sequence[str]
) -> list[p.Op]:
    """The operations, every such product as a Lookup, without the tables that nothing reads any more."""
    tables = {op.outputs[0]: op for op in ops if isinstance(op, p.Lookup)}
    made = [_in_one(op, tables, tensors) if isinstance(op, p.Mul) else op for op in ops]
    factors = {name for old, new in zip(ops, made, strict=True) if old is not new for name in old.inputs}
    read = {name for op in made for name in op.inputs} | {*outputs}
    return [op for op in made if not factors.intersection(op.outputs).difference(read)]


def _in_one(op: p.Mul, tables: Mapping[str, p.Lookup], tensors: Mapping[str, p.TensorInfo]) -> p.Op:
    for x, name in (op.inputs, op.inputs[::-1]):
        gate = tables.get(name)
        if gate is None or gate.inputs[0] != x:
            continue
        infos = tensors[x], tensors[name], tensors[op.outputs[0]]
        if {info.itype for info in infos} == {INT8}:
            table = mul_b(p.all_codes(INT8).astype(np.int64), gate.table.astype(np.int64), infos)
            return p.Lookup(op.name, (x,), op.outputs, table, f"{gate.kind}+Mul", gate.replaces)
    return op
