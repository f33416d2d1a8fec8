"""Layers with weights, and products of two activations, as the kernels read them.

    acc = (b - z_x sum w) + sum w q,    y = requantize(acc, s_x s_w / s_y) + z_y

Weights lie in blocks of 16 output channels, in fours along the inputs: [channels / 16][inputs / 4][16][4]. A kernel
broadcasts four codes and meets the weights of as many channels as its registers hold, from front to back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eightbit.arith.affine import INT8
from eightbit.deploy.c.steps import Biases, Builder, Call, Scratch
from eightbit.deploy.c.walks import walk
from eightbit.deploy.layout.views import View, channels_last, in_order
from eightbit.deploy.layout.windows import Windows
from eightbit.errors import ExportError
from eightbit.integer import program as p
from eightbit.integer.engine.accumulate import magnitude
from eightbit.integer.engine.requantize import fixed_multiplier
from eightbit.integer.program import Codes, TensorInfo

ROWS = 4
"""Output pixels whose inputs the scratch holds (EB_ROWS)."""
LANES = 16
"""Output channels whose weights lie together (EB_LANES)."""
LOWEST, SUM_MAX = 28, 2**30 + 2**28
"""Shifts to the right and sums with which all that eb_avx512.h adds before a shift stays within int32."""
INT32_MAX = 2**31 - 1


def conv(op: p.Conv, b: Builder) -> None:
    """Convolution; one filter a channel has a kernel of its own."""
    source, target = b.info(op.inputs[0]), b.info(op.outputs[0])
    x = b.read(op.inputs[0], channels_last(op.weight.ndim))
    y = b.make(op.outputs[0], x.order)
    windows = Windows.of(x, y, op.weight.shape[2:], op.strides, op.pads, op.dilations)
    channels, inputs = op.weight.shape[0], x.shape[1]
    fields: dict[str, Any] = {
        **windows.fields(),
        "in_c": inputs,
        "out_c": channels,
        "group": op.group,
        **_scales(op, source, target),
    }
    gaps = windows.gaps(x, inputs, channels)
    if op.group == inputs == channels and op.group > 1:
        taps = op.weight.reshape(channels, -1)
        fields |= {"weight": np.ascontiguousarray(taps.T), "depth": taps.shape[1]}
        fields["bias"] = Biases(op.bias.astype(np.int64), np.zeros(channels, np.int64))
        scratch = Scratch(f"{y.buffer}.scratch", 0, depthwise_lines(fields))
        call = Call("depthwise", fields, (x.buffer, y.buffer, scratch.name))
        b.add(op.name, (x,), y, (call,), gaps=gaps, scratch=scratch)
        return
    rows = np.moveaxis(op.weight, 1, -1).reshape(channels, -1)  # taps, then input channels
    _product(op, b, (x, y), rows, fields, gaps)


def gemm(op: p.Gemm, b: Builder) -> None:
    """A product with a constant matrix: a convolution of one tap over a line of rows."""
    source, target = b.info(op.inputs[0]), b.info(op.outputs[0])
    found, last = b.read(op.inputs[0]), len(b.shapes[op.inputs[0]]) - 1
    order = (*(axis for axis in found.order if axis != last), last)
    x = b.read(op.inputs[0], order if found.lies(order) else in_order(last + 1))
    y = b.make(op.outputs[0], x.order)
    depth, columns = op.weight.shape
    ones = dict.fromkeys(("batch", "in_h", "out_h", "kernel_h", "kernel_w", "stride_h", "stride_w"), 1)
    ones |= dict.fromkeys(("dilation_h", "dilation_w", "group"), 1)
    rows = x.size // depth
    fields: dict[str, Any] = {
        **ones,
        "in_w": rows,
        "out_w": rows,
        "in_c": depth,
        "out_c": columns,
        "top": 0,
        "left": 0,
        **_scales(op, source, target),
    }
    # Few rows are all gathered before the first code is written: the output may lie anywhere in the input.
    _product(op, b, (x, y), op.weight.T, fields, {x.buffer: -x.size} if rows <= ROWS else {})


def _product(
    op: p.Conv | p.Gemm,
    b: Builder,
    views: tuple[View, View],
    rows: Codes,
    fields: dict[str, Any],
    gaps: dict[str, int],
) -> None:
    """A step of `eb_conv` with the weights `rows` (O, K)."""
    x, y = views
    group = op.group if isinstance(op, p.Conv) else 1
    zero_point = b.info(op.inputs[0]).zero_point
    sums = rows.astype(np.int64).sum(1)
    weight = blocks(rows, group)
    depth = -(-rows.shape[1] // 4) * 4
    fields |= {"weight": weight, "depth": depth, "bias": Biases(op.bias - zero_point * sums, sums)}
    scratch = Scratch(f"{y.buffer}.scratch", min(ROWS, fields["out_w"]) * depth, conv_lines(fields))
    call = Call("conv", fields, (x.buffer, y.buffer, scratch.name))
    b.add(op.name, (x,), y, (call,), gaps=gaps, scratch=scratch)


def blocks(rows: Codes, group: int) -> Codes:
    """Weights (O, K), filled up with zeros to fours along K, as the kernels read them: int8, one dimension."""
    outputs, inputs = rows.shape
    filled = np.zeros((outputs, -(-inputs // 4) * 4), np.int8)
    filled[:, :inputs] = rows
    parts = (
        part[first : first + LANES].reshape(-1, filled.shape[1] // 4, 4).swapaxes(0, 1)
        for part in filled.reshape(group, outputs // group, -1)
        for first in range(0, outputs // group, LANES)
    )
    return np.concatenate([part.reshape(-1) for part in parts])


def conv_lines(f: Mapping[str, int]) -> int:
    """Bytes of the input rows of an output row, with the padding, and of each pixel's inputs where fours cross them."""
    width = f["in_c"] // f["group"]
    held = (f["kernel_h"] - 1) * f["dilation_h"] + 1
    lines = held * _columns(f) * width + 4
    whole = f["dilation_w"] == 1 and f["kernel_w"] * width % 4 == 0
    return lines if whole else lines + f["out_w"] * (f["depth"] + 4)


def depthwise_lines(f: Mapping[str, int]) -> int:
    """Bytes of the columns of an output row for 16 channels, four rows together, and of the weights laid out so."""
    size = 64 * -(-f["kernel_h"] // 4)
    return _columns(f) * size + -(-f["out_c"] // LANES) * (64 + f["kernel_w"] * size)


def _columns(f: Mapping[str, int]) -> int:
    """Pixels of an input row that an output row reads."""
    return (f["out_w"] - 1) * f["stride_w"] + (f["kernel_w"] - 1) * f["dilation_w"] + 1


def _scales(op: p.Conv | p.Gemm, x: TensorInfo, y: TensorInfo) -> dict[str, Any]:
    """Zero points, and the multiplier of each channel (`engine.requantize.fixed_multiplier`)."""
    m, shift = fixed_multiplier(x.scale, op.weight_scale, y.scale)
    zeros: dict[str, Any] = {"in_zero": x.zero_point, "out_zero": y.zero_point}
    weights = np.moveaxis(op.weight, -1, 0) if isinstance(op, p.Gemm) else op.weight
    largest = max(INT8.qmax - x.zero_point, x.zero_point - INT8.qmin)
    sums = np.abs(op.bias) + largest * np.abs(weights.reshape(len(weights), -1).astype(np.int64)).sum(1)
    rare = (m == 0) | (shift > -1) | (shift < -LOWEST) | (sums > SUM_MAX)
    return zeros | {"multiplier": m, "shift": shift.astype(np.int8), "rare": int(rare.any())}


def matmul(op: p.MatMul, b: Builder) -> None:
    """A product of two activations, one multiplier in all."""
    left, right = (b.read(name, in_order(len(b.shapes[name]))) for name in op.inputs)
    first, second, out = (b.info(name) for name in (*op.inputs, *op.outputs))
    if min(len(left.shape), len(right.shape)) < 2:
        raise ExportError(
            f"{op.name}: shapes {left.shape}, {right.shape}; C multiplies matrices: add an axis of 1"
        )
    (rows, depth), columns = left.shape[-2:], right.shape[-1]
    worst = depth * (magnitude(first) + abs(first.zero_point)) * (magnitude(second) + abs(second.zero_point))
    if worst > INT32_MAX:
        raise ExportError(f"{op.name}: sums of {depth} products can leave int32: use fewer")
    y = b.make(op.outputs[0], in_order(len(b.shapes[op.outputs[0]])))
    batch = y.shape[:-2]
    steps = []
    for view in (left, right):
        own = view.shape[:-2]
        room = len(batch) - len(own)
        steps.append((0,) * room + tuple(0 if n == 1 else s for n, s in zip(own, view.steps, strict=False)))
    dims, (a_step, b_step) = walk(op.name, batch, in_order(len(batch)), *steps)
    m, shift = fixed_multiplier(first.scale, second.scale, out.scale)
    fields: dict[str, Any] = {
        "dims": dims,
        "a_step": a_step,
        "b_step": b_step,
        "rows": rows,
        "depth": depth,
        "columns": columns,
        "a_zero": first.zero_point,
        "b_zero": second.zero_point,
        "out_zero": out.zero_point,
        "multiplier": int(m),
        "shift": int(shift),
    }
    call = Call("matmul", fields, (left.buffer, right.buffer, y.buffer))
    b.add(op.name, (left, right), y, (call,))
