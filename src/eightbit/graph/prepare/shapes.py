"""Shape arithmetic is followed symbolically until it is a constant.

An entry of a shape tensor is an integer, or a symbol such as "batch", or unknown. A shape whose entries are
all integers is a constant; a Reshape target with one free entry becomes a constant with -1 (or 0, which
copies the axis) in its place, so that the batch stays dynamic and no Shape/Gather/Concat chain is left.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eightbit.graph.model import add_constant, attribute, constant, is_op

Entry = int | str | None  # of a shape tensor: known, the name of a free dimension, unknown
FOLLOWED = ("Shape", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Cast", "Identity", "Reshape",
            "Mul", "Add", "Sub", "Div", "Size")  # fmt: skip


def fold_shapes(model: ir.Model) -> int:
    """Replace shape tensors whose entries are all known by initializers, in place; returns how many."""
    graph, count = model.graph, 0
    known: dict[ir.Value, tuple[Entry, ...] | None] = {}
    for node in list(graph):
        if not node.outputs or len(node.outputs) != 1:
            continue
        output = node.outputs[0]
        entries = _entries(output, known)
        if entries is None or output.is_graph_output() or not is_op(node, *FOLLOWED):
            continue
        if all(isinstance(e, int) for e in entries) and output.dtype in (
            ir.DataType.INT64,
            ir.DataType.INT32,
            None,
        ):
            scalar = output.shape is not None and len(output.shape) == 0
            array = np.array(entries, output.dtype.numpy() if output.dtype else np.int64)
            name = str(output.name)
            output.name = None
            fresh = add_constant(graph, name, array.reshape(()) if scalar else array)
            ir.convenience.replace_all_uses_with(output, fresh)
            graph.remove(node, safe=True)
            count += 1
    return count


def fold_reshape_targets(model: ir.Model) -> int:
    """Give Reshape nodes constant targets where at most one entry is free, in place; returns how many."""
    count = 0
    known: dict[ir.Value, tuple[Entry, ...] | None] = {}
    for node in list(model.graph):
        if not is_op(node, "Reshape") or constant(node.inputs[1]) is not None:
            continue
        target = _target(node, known)
        if target is None:
            continue
        fresh = add_constant(model.graph, f"{node.name}.1", np.array(target, np.int64))
        node.replace_input_with(1, fresh)
        node.attributes.pop("allowzero", None)
        count += 1
    return count


def infer_reshapes(model: ir.Model) -> int:
    """Set the output shape of Reshape nodes whose target is computed, in place; returns how many got one."""
    count = 0
    known: dict[ir.Value, tuple[Entry, ...] | None] = {}
    for node in model.graph:
        entries = _entries(node.inputs[1], known) if is_op(node, "Reshape") else None
        if entries is None or constant(node.inputs[1]) is not None or 0 in entries:
            continue
        output = node.outputs[0]
        old = (None,) * len(entries) if output.shape is None else tuple(_entry(d) for d in output.shape)
        if len(old) != len(entries):
            continue
        new = tuple(was if now in (-1, None) else now for was, now in zip(old, entries, strict=True))
        if new != old or output.shape is None:
            output.shape = ir.Shape(new)
            count += 1
    return count


def _entries(
    value: ir.Value | None, known: dict[ir.Value, tuple[Entry, ...] | None]
) -> tuple[Entry, ...] | None:
    """Entries of a shape tensor of rank 0 or 1; None if `value` is not one that can be followed."""
    if value is None:
        return None
    if value not in known:
        known[value] = None  # cuts cycles in broken graphs
        known[value] = _follow(value, known)
    return known[value]


def _follow(value: ir.Value, known: dict[ir.Value, tuple[Entry, ...] | None]) -> tuple[Entry, ...] | None:
    array = constant(value)
    if array is not None:
        if array.ndim > 1 or array.dtype.kind not in "iu" or array.size > 64:
            return None
        return tuple(int(i) for i in array.reshape(-1))
    node = value.producer()
    if node is None or not is_op(node, *FOLLOWED):
        return None
    if node.op_type == "Shape":
        source = node.inputs[0]
        if source is None or source.shape is None:
            return None
        dims = tuple(_entry(d) for d in source.shape)
        return dims[attribute(node, "start", 0) : attribute(node, "end", len(dims))]
    if node.op_type == "Size":
        return None
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


def _integers(entries: tuple[Entry, ...] | None) -> tuple[int, ...] | None:
    found = tuple(e for e in entries or () if isinstance(e, int))
    return found if entries and len(found) == len(entries) else None


def _arithmetic(op: str, a: tuple[Entry, ...], b: tuple[Entry, ...] | None) -> tuple[Entry, ...] | None:
    if b is None or (len(a) != len(b) and 1 not in (len(a), len(b))):
        return None
    size = max(len(a), len(b))
    pairs = zip(a * (size // len(a)), b * (size // len(b)), strict=True)
    return tuple(_combine(op, x, y) for x, y in pairs)


def _combine(op: str, x: Entry, y: Entry) -> Entry:
    if not isinstance(x, int) or not isinstance(y, int):
        if op == "Mul" and 1 in (x, y):
            return y if x == 1 else x
        return None
    if op == "Div":  # ONNX truncates towards zero; shapes are not negative, and -1 is left alone
        return x // y if y > 0 and x >= 0 else None
    return {"Mul": x * y, "Add": x + y, "Sub": x - y}[op]


def _entry(dim: object) -> Entry:
    if isinstance(dim, int):
        return dim
    return str(dim.value) if isinstance(dim, ir.SymbolicDim) and dim.value is not None else None


def _flat(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) <= 1


def _target(node: ir.Node, known: dict[ir.Value, tuple[Entry, ...] | None]) -> list[int] | None:
    """A constant Reshape target equal to the computed one, or None."""
    source, output = node.inputs[0], node.outputs[0]
    entries = _entries(node.inputs[1], known)
    shape = output.shape
    if entries is None:
        if shape is None:
            return None
        entries = tuple(_entry(d) for d in shape)
    elif attribute(node, "allowzero", 0) and 0 in entries:
        return None
    inferred = (
        [_entry(d) for d in shape]
        if shape is not None and len(shape) == len(entries)
        else [None] * len(entries)
    )
    given = [] if source is None or source.shape is None else [_entry(d) for d in source.shape]
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
