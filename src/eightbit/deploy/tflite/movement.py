"""Operations that carry codes from place to place, as TensorFlow Lite's operators say them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eightbit.deploy.layout.views import View, in_order
from eightbit.deploy.tflite.build import Builder, merged
from eightbit.errors import ExportError
from eightbit.integer import program as p

MOST_PARTS = 10
"""Tensors that TFLite Micro joins in one CONCATENATION."""
MOST_AXES = 4
"""Axes of a tensor that TFLite Micro cuts with one STRIDED_SLICE."""


def concat(op: p.Concat, b: Builder) -> None:
    """Part after part along an axis, through a table where it has another scale."""
    order = b.views[op.inputs[0]].order
    y = b.make(op.outputs[0], order)
    axis = y.order.index(op.axis % len(y.shape))
    parts = []
    for i, (name, table) in enumerate(zip(op.inputs, op.tables, strict=True)):
        part = b.laid(b.read(name, order))
        if table is not None:
            made = b.like(f"{op.name}.{i}", b.tensors[part].shape, y.buffer)
            b.add("QUANTIZE", (part,), made)
            part = made
        parts.append(part)
    while len(parts) > MOST_PARTS:
        some = parts[:MOST_PARTS]
        shape = list(y.laid)
        shape[axis] = sum(b.tensors[part].shape[axis] for part in some)
        joined = b.like(f"{op.name}.joined", tuple(shape), y.buffer)
        b.add("CONCATENATION", some, joined, axis=axis)
        parts = [joined, *parts[MOST_PARTS:]]
    b.add("CONCATENATION", parts, y.buffer, axis=axis)


def slice_(op: p.Slice, b: Builder) -> None:
    """Some of the codes along each axis."""
    x = b.read(op.inputs[0])
    y = b.make(op.outputs[0], x.order)
    slices = [slice(None)] * len(x.shape)
    for axis, start, stop, step in op.bounds:
        slices[axis] = slice(start, stop, step)
    strided(b, x, slices, y.buffer)


def pad(op: p.Pad, b: Builder, number: float | None = None) -> None:
    """More codes around, or fewer: a constant (`number`, in float), or the input's own mirrored."""
    value = op.value if number is None else number
    x = b.read(op.inputs[0])
    rank = len(x.shape)
    pairs = list(zip(op.pads[:rank], op.pads[rank:], strict=True))
    if op.mode not in ("constant", "reflect") and any(max(pair) > 0 for pair in pairs):
        raise ExportError(
            f"{op.name}: TensorFlow Lite has no padding {op.mode!r}: use 'constant' or 'reflect'"
        )
    if op.mode == "reflect" and any(max(pair) >= n for n, pair in zip(x.shape, pairs, strict=True)):
        raise ExportError(f"{op.name}: it mirrors more than there is of {x.shape} ({op.pads}): pad by less")
    y = b.make(op.outputs[0], x.order)
    slices = [
        slice(max(0, -before), n - max(0, -after)) for n, (before, after) in zip(x.shape, pairs, strict=True)
    ]
    kept = View(x.buffer, tuple(len(range(n)[s]) for n, s in zip(x.shape, slices, strict=True)), x.order)
    ends = np.maximum(np.array([pairs[axis] for axis in x.order], np.int32), 0)
    if not ends.any():
        strided(b, x, slices, y.buffer)
        return
    source = x
    if kept.shape != x.shape:
        source = View(b.like(f"{op.name}.cropped", kept.laid, x.buffer), kept.shape, kept.order)
        strided(b, x, slices, source.buffer)
    groups = merged(range(rank), lambda before, after: not ends[[before, after]].any())
    lengths = tuple(int(np.prod([kept.laid[place] for place in group])) for group in groups)
    pads = ends[[group[0] for group in groups]]
    b.pad(b.of_shape(source, lengths), pads, value if op.mode == "constant" else None, y.buffer)


def take(op: p.Take, b: Builder) -> None:
    """GATHER: places along an axis, by their numbers."""
    rank = len(b.shapes[op.inputs[0]])
    x = b.read(op.inputs[0], None if op.index.ndim == 1 else in_order(rank))
    axis = op.axis % rank
    y = b.make(op.outputs[0], x.order if op.index.ndim == 1 else in_order(len(b.shapes[op.outputs[0]])))
    index = b.constant((op.index % x.shape[axis]).astype(np.int32))
    b.add("GATHER", (b.laid(x), index), y.buffer, axis=x.order.index(axis), batchDims=0)


def reduce_max(op: p.ReduceMax, b: Builder) -> None:
    """REDUCE_MAX over the axes where they lie."""
    reduced("REDUCE_MAX", b, b.read(op.inputs[0]), op.axes, op.outputs[0], keep=op.keep)


def reduced(kind: str, b: Builder, x: View, axes: Sequence[int], target: str, *, keep: bool) -> View:
    """`kind`, an operator over `axes` of the tensor, where they lie; what it leaves is called `target`."""
    y = b.make(target, x.left(axes, keep=keep))
    places = np.array(sorted(x.order.index(axis) for axis in axes), np.int32)
    b.add(kind, (b.laid(x), b.constant(places)), y.buffer, keepDims=keep)
    return y


def strided(b: Builder, x: View, slices: Sequence[slice], target: str) -> None:
    """STRIDED_SLICE, whole axes that lie side by side as one; an end before the first code is said by the mask.

    Where too many axes are left, the slowest cut goes first, in an operator of its own.
    """
    bounds = [slices[axis].indices(n) for axis, n in zip(x.order, x.laid, strict=True)]
    whole = [bound == (0, n, 1) for bound, n in zip(bounds, x.laid, strict=True)]
    groups = merged(range(len(whole)), lambda before, after: whole[before] and whole[after])
    if len(groups) > MOST_AXES:
        axis = x.order[whole.index(False)]
        shape = tuple(len(range(n)[slices[axis]]) if i == axis else n for i, n in enumerate(x.shape))
        laid = tuple(shape[i] for i in x.order)
        cut = View(b.like(f"{target}.cut", laid, x.buffer), shape, x.order)
        strided(b, x, [s if i == axis else slice(None) for i, s in enumerate(slices)], cut.buffer)
        strided(b, cut, [slice(None) if i == axis else s for i, s in enumerate(slices)], target)
        return
    lengths = [int(np.prod([x.laid[place] for place in group])) for group in groups]
    chosen = [
        (0, n, 1) if whole[group[0]] else bounds[group[0]] for group, n in zip(groups, lengths, strict=True)
    ]
    begin, end, step = (np.array(column, np.int32) for column in zip(*chosen, strict=True))
    mask = sum(1 << place for place, stop in enumerate(end.tolist()) if stop < 0)
    operands = (b.of_shape(x, tuple(lengths)), *(b.constant(numbers) for numbers in (begin, end, step)))
    shape = tuple(len(range(*bound)) for bound in chosen)
    b.add_as("STRIDED_SLICE", operands, target, shape, endMask=mask)
