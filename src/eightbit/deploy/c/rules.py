"""How each operation of the integer program is done in C; see `eb_kernels.h` for what the kernels compute.

Multipliers and shifts are those of the NumPy engine, whose functions are named beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import INT8
from eightbit.deploy.c.layers import conv, gemm, matmul
from eightbit.deploy.c.steps import Builder, Call
from eightbit.deploy.c.walks import pieces, walk
from eightbit.deploy.layout.ports import Port
from eightbit.deploy.layout.views import View, channels_last, in_order
from eightbit.deploy.layout.windows import Windows
from eightbit.errors import ExportError
from eightbit.integer import program as p
from eightbit.integer.engine.elementwise import add_multipliers, table_of
from eightbit.integer.engine.movement import concat_tables
from eightbit.integer.engine.pool import fixed_mean
from eightbit.integer.engine.requantize import fixed_multiplier, requantize_codes
from eightbit.integer.engine.softmax import FIXED_SCALE, check_depth, fixed_exps


def quantize(op: p.Quantize, b: Builder) -> None:
    """An input of the network: its codes are handed in."""
    (name,) = op.outputs
    view = View(name, b.shapes[name], in_order(len(b.shapes[name])))
    b.views[name] = view
    b.inputs.append(Port(op.inputs[0], name, name, view.shape, b.info(name)))


def dequantize(op: p.Dequantize, b: Builder) -> None:
    """An output of the network: its codes are handed out, by `Builder.plan`."""


def pool(op: p.MaxPool | p.AveragePool, b: Builder) -> None:
    """The largest or the mean of each window."""
    x = b.read(op.inputs[0], channels_last(len(b.shapes[op.inputs[0]])))
    y = b.make(op.outputs[0], x.order)
    average = isinstance(op, p.AveragePool)
    dilations = (1,) * len(op.kernel) if isinstance(op, p.AveragePool) else op.dilations
    windows = Windows.of(x, y, op.kernel, op.strides, op.pads, dilations)
    padding = isinstance(op, p.AveragePool) and op.count_include_pad
    if average and not padding and windows.some_outside():
        raise ExportError(
            f"{op.name}: some windows lie in the padding alone and have no mean; use less padding"
        )
    fields = {
        **windows.fields(),
        "channels": x.shape[1],
        "padding": int(padding),
        "in_zero": b.info(op.inputs[0]).zero_point,
    }
    kernel = "average_pool" if average else "max_pool"
    calls = [Call(kernel, fields, (x.buffer, y.buffer))]
    source, target = b.info(op.inputs[0]), b.info(op.outputs[0])
    if source.params != target.params:  # of a mean, in the codes of its input
        table = requantize_codes(p.all_codes(INT8), source, target, b.arithmetic)
        calls.append(b.move(op.name, y, y, table=table))
    b.add(op.name, (x,), y, calls, gaps=windows.gaps(x, x.shape[1], x.shape[1]))


def mean(op: p.GlobalAveragePool, b: Builder) -> None:
    """The mean of each channel (`engine.pool.fixed_mean`)."""
    x = b.read(op.inputs[0], channels_last(len(b.shapes[op.inputs[0]])))
    y = b.make(op.outputs[0], x.order)
    count = int(np.prod(x.shape[2:]))
    source, target = b.info(op.inputs[0]), b.info(op.outputs[0])
    multiplier, shift = fixed_mean(source, target, count)
    fields = {
        "batch": x.shape[0],
        "count": count,
        "channels": x.shape[1],
        "in_zero": source.zero_point,
        "out_zero": target.zero_point,
        "multiplier": multiplier,
        "shift": shift,
    }
    b.add(op.name, (x,), y, (Call("mean", fields, (x.buffer, y.buffer)),))


def softmax(op: p.Softmax, b: Builder) -> None:
    """Shares of a row's sum (`engine.softmax`); the exponentials of all distances to the largest code are a table."""
    rank = len(b.shapes[op.inputs[0]])
    axis = op.axis % rank
    order = b.read(op.inputs[0]).order
    x = b.read(op.inputs[0], (*(a for a in order if a != axis), axis))
    y = b.make(op.outputs[0], x.order)
    source, target, depth = b.info(op.inputs[0]), b.info(op.outputs[0]), x.shape[axis]
    check_depth(op.name, depth)
    multiplier, shift = fixed_multiplier(FIXED_SCALE, np.float32(1), target.scale)
    fields: dict[str, Any] = {
        "exps": fixed_exps(op.name, source).astype(np.int32),
        "rows": x.size // depth,
        "depth": depth,
        "multiplier": int(multiplier),
        "shift": int(shift),
        "out_zero": target.zero_point,
    }
    b.add(op.name, (x,), y, (Call("softmax", fields, (x.buffer, y.buffer)),), gaps={x.buffer: 0})


def lookup(op: p.Lookup, b: Builder) -> None:
    """Each code through a table, where it lies."""
    x = b.read(op.inputs[0])
    y = b.make(op.outputs[0], x.order)
    call = b.move(op.name, x, y, table=table_of(op, b.program, b.arithmetic))
    b.add(op.name, (x,), y, (call,), gaps={x.buffer: 0})


def binary(op: p.Add | p.Mul, b: Builder) -> None:
    """Sum or product, broadcasting (`engine.elementwise.add_fixed`, `mul_fixed`)."""
    left, right = (b.read(name) for name in op.inputs)
    shape = b.shapes[op.outputs[0]]
    full = next((v for v in (left, right) if v.shape == shape), None)
    y = b.make(op.outputs[0], in_order(len(shape)) if full is None else full.order)
    dims, (a_step, b_step, _) = walk(
        op.name, shape, y.order, _along(left, shape), _along(right, shape), y.steps
    )
    fields: dict[str, Any] = {"dims": dims, "a_step": a_step, "b_step": b_step}
    first, second, out = (b.info(name) for name in (*op.inputs, *op.outputs))
    fields |= {"a_zero": first.zero_point, "b_zero": second.zero_point, "out_zero": out.zero_point}
    if isinstance(op, p.Add):
        for name, (m, shift) in zip(("a_", "b_", ""), add_multipliers((first, second, out)), strict=True):
            fields |= {f"{name}multiplier": int(m), f"{name}shift": int(shift)}
    else:
        m, shift = fixed_multiplier(first.scale, second.scale, out.scale)
        fields |= {"multiplier": int(m), "shift": int(shift)}
    call = Call("add" if isinstance(op, p.Add) else "mul", fields, (left.buffer, right.buffer, y.buffer))
    alike = {v.buffer: 0 for v in (left, right) if v.shape == shape and v.lies(y.order)}
    b.add(op.name, (left, right), y, (call,), gaps=alike)


def _along(view: View, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The view's steps along the axes of what it is broadcast to."""
    room = len(shape) - len(view.shape)
    steps = zip(view.steps, view.shape, shape[room:], strict=True)
    return (0,) * room + tuple(0 if own == 1 != full else step for step, own, full in steps)


def concat(op: p.Concat, b: Builder) -> None:
    """Part after part along an axis, through a table where it has another scale."""
    parts = [b.read(name) for name in op.inputs]
    y = b.make(op.outputs[0], parts[0].order)
    axis, at = op.axis % len(y.shape), 0
    calls = []
    for view, table in zip(parts, concat_tables(op, b.program, b.arithmetic), strict=True):
        place = (0, at * y.steps[axis])
        calls.append(
            b.stride(op.name, (view, y), view.shape, place, (view.steps, y.steps), y.order, table=table)
        )
        at += view.shape[axis]
    b.add(op.name, parts, y, calls)


def same_codes(op: p.Op, b: Builder) -> None:
    """Reshape and its kin: another shape for codes that lie in the order of the axes."""
    name = op.inputs[0]
    x = b.read(name, in_order(len(b.shapes[name])))
    b.views[op.outputs[0]] = x.reshaped(b.shapes[op.outputs[0]])


def transpose(op: p.Transpose, b: Builder) -> None:
    """Other names for the axes; nothing moves until somebody needs another order."""
    b.views[op.outputs[0]] = b.read(op.inputs[0]).transposed(op.perm)


def slice_(op: p.Slice, b: Builder) -> None:
    """Some of the codes along each axis."""
    x = b.read(op.inputs[0])
    index = [np.arange(n) for n in x.shape]
    for axis, start, stop, step in op.bounds:
        index[axis] = index[axis][start:stop:step]
    y = b.make(op.outputs[0], x.order)
    b.add(op.name, (x,), y, _boxes(op, b, x, y, index))


def pad(op: p.Pad, b: Builder) -> None:
    """More codes around, or fewer: a constant, or the input's own in the order of the mode."""
    x = b.read(op.inputs[0])
    y = b.make(op.outputs[0], x.order)
    rank = len(x.shape)
    index, outside = [], False
    for n, before, after in zip(x.shape, op.pads[:rank], op.pads[rank:], strict=True):
        kept = np.arange(max(0, -before), n - max(0, -after))
        widths = (max(0, before), max(0, after))
        if op.mode == "constant":
            index.append(np.pad(kept, widths, constant_values=-1))
            outside |= any(widths)
        else:
            index.append(np.pad(kept, widths, mode=op.mode))  # type: ignore[call-overload]
    fill = Call("fill", {"count": y.size, "value": op.value}, (y.buffer,))
    b.add(op.name, (x,), y, [*([fill] if outside else []), *_boxes(op, b, x, y, index)])


def take(op: p.Take, b: Builder) -> None:
    """Places along an axis, by their numbers."""
    rank, flat = len(b.shapes[op.inputs[0]]), op.index.reshape(-1)
    x = b.read(op.inputs[0], None if op.index.ndim == 1 else in_order(rank))
    axis = op.axis % rank
    place, length = x.order.index(axis), x.shape[axis]
    y = b.make(op.outputs[0], x.order if op.index.ndim == 1 else in_order(len(b.shapes[op.outputs[0]])))
    fields: dict[str, Any] = {
        "index": (flat % length).astype(np.int32),
        "outer": int(np.prod(x.laid[:place])),
        "length": length,
        "count": flat.size,
        "inner": int(np.prod(x.laid[place + 1 :])),
    }
    b.add(op.name, (x,), y, (Call("take", fields, (x.buffer, y.buffer)),))


def reduce_max(op: p.ReduceMax, b: Builder) -> None:
    """The largest over axes that lie side by side; others are brought together first."""
    x = b.read(op.inputs[0])
    kept = tuple(axis for axis in x.order if axis not in op.axes)
    places = [i for i, axis in enumerate(x.order) if axis in op.axes]
    if any(x.shape[axis] > 1 for axis in x.order[places[0] : places[-1]] if axis in kept):
        x = b.read(op.inputs[0], (*kept, *op.axes))
        places = list(range(len(kept), len(x.order)))
    y = b.make(op.outputs[0], x.left(op.axes, keep=op.keep))
    fields: dict[str, Any] = {
        "outer": int(np.prod(x.laid[: places[0]])),
        "count": int(np.prod([x.shape[axis] for axis in op.axes])),
        "inner": int(np.prod(x.laid[places[-1] + 1 :])),
    }
    b.add(op.name, (x,), y, (Call("reduce_max", fields, (x.buffer, y.buffer)),))


def _boxes(op: p.Op, b: Builder, x: View, y: View, index: Sequence[NDArray[np.integer]]) -> list[Call]:
    """Moves that make `y[i, j, ...] = x[index[0][i], index[1][j], ...]`; places of index -1 are left alone."""
    calls = []
    for box in pieces(index):
        if any(first < 0 for _, _, first, _ in box):
            continue
        begin_x = sum(first * step for (_, _, first, _), step in zip(box, x.steps, strict=True))
        begin_y = sum(place * step for (place, _, _, _), step in zip(box, y.steps, strict=True))
        along = tuple(every * step for (_, _, _, every), step in zip(box, x.steps, strict=True))
        shape = tuple(length for _, length, _, _ in box)
        calls.append(b.stride(op.name, (x, y), shape, (begin_x, begin_y), (along, y.steps), y.order))
    return calls


RULES: Mapping[type[p.Op], Callable[[Any, Builder], None]] = {
    p.Quantize: quantize,
    p.Dequantize: dequantize,
    p.Conv: conv,
    p.Gemm: gemm,
    p.MatMul: matmul,
    p.Add: binary,
    p.Mul: binary,
    p.MaxPool: pool,
    p.AveragePool: pool,
    p.GlobalAveragePool: mean,
    p.Softmax: softmax,
    p.Lookup: lookup,
    p.Concat: concat,
    p.Reshape: same_codes,
    p.Flatten: same_codes,
    p.Squeeze: same_codes,
    p.Unsqueeze: same_codes,
    p.Transpose: transpose,
    p.Slice: slice_,
    p.Pad: pad,
    p.Take: take,
    p.ReduceMax: reduce_max,
}
