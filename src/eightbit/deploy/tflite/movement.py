"""Operations that carry codes from place to place, as TensorFlow Lite's operators say them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eightbit.deploy.layout.views import View
from eightbit.deploy.tflite.build import Builder
from eightbit.errors import ExportError
from eightbit.integer import program as p

MOST_PARTS = 10
"""Tensors that TFLite Micro joins in one CONCATENATION."""


def concat(op: p.Concat, b: Builder) -> None:
    """Part after part along an axis, through a table where it has another scale."""
    order = b.views[op.inputs[0]].order
    y = b.make(op.outputs[0], order)
    axis = y.order.index(op.axis % len(y.shape))
    target = b.info(op.outputs[0])
    parts = []
    for i, (name, table) in enumerate(zip(op.inputs, op.tables, strict=True)):
        part = b.laid(b.read(name, order))
        if table is not None:
            made = b.of(f"{op.name}.{i}", b.tensors[part].shape, target)
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
    _strided(b, x, slices, y.buffer)


def pad(op: p.Pad, b: Builder) -> None:
    """More codes around, or fewer: a constant, or the input's own mirrored."""
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
        _strided(b, x, slices, y.buffer)
        return
    source = b.laid(x)
    if kept.shape != x.shape:
        source = b.like(f"{op.name}.cropped", kept.laid, x.buffer)
        _strided(b, x, slices, source)
    if op.mode == "constant":
        b.pad(source, ends, op.value, y.buffer)
    else:
        b.add("MIRROR_PAD", (source, b.constant(ends)), y.buffer, mode=0)


def _strided(b: Builder, x: View, slices: Sequence[slice], target: str) -> None:
    """STRIDED_SLICE; an end before the first code is said by the mask."""
    bounds = [slices[axis].indices(x.shape[axis]) for axis in x.order]
    begin, end, step = (np.array(column, np.int32) for column in zip(*bounds, strict=True))
    mask = sum(1 << place for place, stop in enumerate(end.tolist()) if stop < 0)
    operands = (b.laid(x), *(b.constant(numbers) for numbers in (begin, end, step)))
    b.add("STRIDED_SLICE", operands, target, endMask=mask)
