"""Shape arithmetic is followed symbolically until it is a constant.

An entry of a shape tensor is an integer, or a symbol such as "batch", or unknown. A shape whose entries are
all integers is a constant; a Reshape target with one free entry becomes a constant with -1 (or 0, which
copies the axis) in its place, so that the batch stays dynamic and no Shape/Gather/Concat chain is left.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from eightbit.graph.model import add_constant, attribute, constant, is_op, make_constant
from eightbit.graph.prepare.infer import Dim, symbols

Known = dict[ir.Value, tuple[Dim, ...] | None]
"""Entries of the shape tensors that were followed so far."""
FOLLOWED = ("Shape", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Cast", "Identity", "Reshape",
            "Mul", "Add", "Sub", "Div", "Size")  # fmt: skip


def fold_shape(node: ir.Node, known: Known) -> bool:
    """Replace a node that computes a shape tensor whose entries are all known by an initializer, in place."""
    output = node.outputs[0] if len(node.outputs) == 1 else None
    if output is None or output.is_graph_output() or not is_op(node, *FOLLOWED):
        return False
    entries = _entries(output, known)
    integers = _integers(entries)
    if integers is None or output.dtype not in (ir.DataType.INT64, ir.DataType.INT32, None):
        return False
    array = np.array(integers, output.dtype.numpy() if output.dtype else np.int64)
    scalar = output.shape is not None and len(output.shape) == 0
    make_constant(node, [array.reshape(()) if scalar else array])
    return True


def fold_target(node: ir.Node, known: Known) -> bool:
    """Give a Reshape node a constant target where at most one entry is free, in place."""
    if not is_op(node, "Reshape") or constant(node.inputs[1]) is not None:
        return False
    target = _target(node, known)
    graph = node.graph
    if target is None or not isinstance(graph, ir.Graph):
        return False
    node.replace_input_with(1, add_constant(graph, f"{node.name}.1", np.array(target, np.int64)))
    node.attributes.pop("allowzero", None)
    return True


def reshaped(node: ir.Node, known: Known) -> tuple[Dim, ...] | None:
    """The shape that a Reshape node gives its output, None for each axis that cannot be followed.

    What 0 copies and what -1 leaves is found in symbols: (N, 4, 8) reshaped to (-1, 32) is (N, 32).
    """
    entries = _entries(node.inputs[1], known) if is_op(node, "Reshape") else None
    if entries is None:
        return None
    given = symbols(node.inputs[0])
    if not attribute(node, "allowzero", 0):
        copied = {i: given[i] if given is not None and i < len(given) else None for i in range(len(entries))}
        entries = tuple(copied[i] if e == 0 else e for i, e in enumerate(entries))
    if -1 not in entries:
        return entries
    left = _quotient(given, [e for e in entries if e != -1])
    return tuple(left if e == -1 else e for e in entries)


def _quotient(given: Sequence[Dim] | None, taken: Sequence[Dim]) -> Dim:
    """The one length that is left of the axes `given` once `taken` are split off; None if it is not one."""
    if given is None or None in given or None in taken:
        return None
    whole, part = (math.prod(d for d in dims if isinstance(d, int)) for dims in (given, taken))
    names = Counter(d for d in given if isinstance(d, str))
    gone = Counter(d for d in taken if isinstance(d, str))
    left = list((names - gone).elements())
    if gone - names or part == 0 or whole % part or len(left) > 1 or (left and whole != part):
        return None
    return left[0] if left else whole // part


def _entries(value: ir.Value | None, known: Known) -> tuple[Dim, ...] | None:
    """Entries of a shape tensor of rank 0 or 1; None if `value` is not one that can be followed."""
    if value is None:
        return None
    if value not in known:
        known[value] = None  # cuts cycles in broken graphs
        known[value] = _follow(value, known)
    return known[value]


def _follow(value: ir.Value, known: Known) -> tuple[Dim, ...] | None:
    array = constant(value)
    if array is not None:
        if array.ndim > 1 or array.dtype.kind not in "iu" or array.size > 64:
            return None
        return tuple(int(i) for i in array.reshape(-1))
    node = value.producer()
    if node is None or not is_op(node, *FOLLOWED):
        return None
    if node.op_type == "Shape":
        dims = symbols(node.inputs[0])
        return None if dims is None else dims[attribute(node, "start", 0) : attribute(node, "end", len(dims))]
    if node.op_type == "Size":
        sizes = _integers(symbols(node.inputs[0]))
        return None if sizes is None else (math.prod(sizes),)
    parts = [_entries(v, known) for v in node.inputs]
    first = parts[0]
    if first is None:
        return None
    if node.op_type in ("Squeeze", "Unsqueeze", "Identity", "Reshape"):
        return first if _flat(value) else None
    if node.op_type == "Cast":
        return first if attribute(node, "to") in (int(ir.DataType.INT64), int(ir.DataType.INT32)) else None
    if node.op_type == "Concat":
        return None if any(p is None for p in parts) else tuple(e for p in parts for e in p or ())
    rest = [_integers(p) for p in parts[1:]]
    if node.op_type == "Gather":
        indices = rest[0]
        if indices is None or not _flat(value):
            return None
        return tuple(first[i] for i in indices if -len(first) <= i < len(first))
    if node.op_type == "Slice":
        if any(p is None for p in rest) or len(rest) < 2:
            return None
        start, end = (p[0] for p in rest[:2] if p)
        step = rest[3][0] if len(rest) > 3 and rest[3] else 1
        return first[start:end:step]
    return _arithmetic(node.op_type, first, parts[1])


def _integers(entries: tuple[Dim, ...] | None) -> tuple[int, ...] | None:
    found = tuple(e for e in entries or () if isinstance(e, int))
    return found if entries and len(found) == len(entries) else None


def _arithmetic(op: str, a: tuple[Dim, ...], b: tuple[Dim, ...] | None) -> tuple[Dim, ...] | None:
    if b is None or (len(a) != len(b) and 1 not in (len(a), len(b))):
        return None
    size = max(len(a), len(b))
    pairs = zip(a * (size // len(a)), b * (size // len(b)), strict=True)
    return tuple(_combine(op, x, y) for x, y in pairs)


def _combine(op: str, x: Dim, y: Dim) -> Dim:
    if not isinstance(x, int) or not isinstance(y, int):
        if op == "Mul" and 1 in (x, y):
            return y if x == 1 else x
        return None
    if op == "Div":  # ONNX truncates towards zero; shapes are not negative, and -1 is left alone
        return x // y if y > 0 and x >= 0 else None
    return {"Mul": x * y, "Add": x + y, "Sub": x - y}[op]


def _flat(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) <= 1


def _target(node: ir.Node, known: Known) -> list[int] | None:
    """A constant Reshape target equal to the computed one, or None."""
    entries, shape = _entries(node.inputs[1], known), symbols(node.outputs[0])
    if entries is None:
        if shape is None:
            return None
        entries = shape
    elif attribute(node, "allowzero", 0) and 0 in entries:
        return None
    inferred = shape if shape is not None and len(shape) == len(entries) else [None] * len(entries)
    given = symbols(node.inputs[0]) or ()
    target = []
    for i, entry in enumerate(entries):
        size = inferred[i] if entry in (-1, None) and isinstance(inferred[i], int) else entry
        if isinstance(size, int):
            target.append(size)
        else:
            target.append(0 if size is not None and i < len(given) and given[i] == size else -1)
    if target.count(-1) > 1:
        return None
    if target.count(0) == 1 and -1 not in target:  # prefer the plain spelling [-1, N] for a free batch
        target[target.index(0)] = -1
    return target
