"""Convolution on codes: 1x1 as a matrix product, depthwise by taps, the rest by im2col; always exact.

    acc[o, p] = b[o] - z_x sum(w[o]) + sum_k w[o, k] q[k, p],    y = requantize(acc, s_x s_w[o] / s_y) + z_y

Padding is the code z_x, which stands for 0.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.arith.windows import by_axis, window_count
from eightbit.errors import EngineError
from eightbit.integer.engine.accumulate import (
    FLOAT32_EXACT,
    ExactWeight,
    accumulate,
    exact_weight,
    magnitude,
)
from eightbit.integer.engine.requantize import BLOCK, Requantizer, requantizer
from eightbit.integer.engine.windows import pad_spatial, windows
from eightbit.integer.program import Codes, Conv, Program, TensorInfo

FLOATS_AT_ONCE = 1 << 21  # 8 MB of columns; a bigger image is taken alone


def conv(op: Conv, program: Program, arithmetic: Arithmetic) -> Callable[[Codes], Codes]:
    """A function from codes (N, C, ...) to codes (N, O, ...), over one to three spatial axes."""
    x, y = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    requantize = requantizer((x.scale, op.weight_scale, y.scale), y, arithmetic)
    run = _flat(op) if op.weight.ndim == 3 else op
    channels = run.weight.shape[0]
    depthwise = run.weight.shape[1] == 1 and run.group > 1 and run.weight.ndim == 4
    body = (_Depthwise if depthwise else _Grouped)(run, x, requantize)

    def apply(codes: Codes) -> Codes:
        if codes.ndim != op.weight.ndim or codes.shape[1] != run.weight.shape[1] * run.group:
            raise EngineError(
                f"{op.name}: input {op.inputs[0]!r} has shape {codes.shape}; expected {op.weight.ndim} axes and"
                f" {run.weight.shape[1] * run.group} channels"
            )
        image = codes[:, :, None] if codes.ndim == 3 else codes
        axes = by_axis(image.shape[2:], run.weight.shape[2:], run.strides, run.pads, run.dilations)
        size = [window_count(*axis) for axis in axes]
        out = np.empty((image.shape[0], channels, *size), y.itype.dtype)
        step = body.images_at_once(image.shape, size)
        for n in range(0, image.shape[0], step):  # in blocks: memory does not grow with the batch
            body(image[n : n + step], out[n : n + step])
        return out[:, :, 0] if codes.ndim == 3 else out

    return apply


def _flat(op: Conv) -> Conv:
    """A convolution over one axis as one over two, the first of length 1."""
    p = op.pads
    return Conv(
        op.name, op.inputs, op.outputs, op.weight[:, :, None, :], op.bias, op.weight_scale,
        (1, *op.strides), (0, p[0], 0, p[1]), (1, *op.dilations), op.group,
    )  # fmt: skip


class _Grouped:
    """Any convolution, as one exact matrix product a group."""

    def __init__(self, op: Conv, x: TensorInfo, requantize: Requantizer) -> None:
        o = op.weight.shape[0]
        weight = op.weight.reshape(op.group, o // op.group, -1)
        self.op, self.zero_point, self.requantize = op, x.zero_point, requantize
        self.weight: ExactWeight = exact_weight(
            weight, op.bias.reshape(op.group, -1), x.zero_point, largest=magnitude(x)
        )
        self.pointwise = set(op.weight.shape[2:]) == {1} and not any(op.pads)

    def images_at_once(self, shape: tuple[int, ...], size: list[int]) -> int:
        """How many images of `shape` (N, C, ...) to take together: small ones share a matrix product."""
        columns = shape[1] * prod(self.op.weight.shape[2:]) * prod(size)
        return max(1, FLOATS_AT_ONCE // max(1, columns))

    def __call__(self, x: Codes, out: Codes) -> None:
        """Codes (N, C, ...) to codes `out` (N, O, ...)."""
        op = self.op
        kernel = op.weight.shape[2:]
        n, o, *size = out.shape
        per_group = x.shape[1] // op.group
        depth, positions = per_group * prod(kernel), prod(size)
        columns = np.empty((op.group, depth + self.weight.ones, n * positions), self.weight.dtype)
        if self.weight.ones:
            columns[:, -1] = 1
        if self.pointwise:
            view = x[
                (
                    slice(None),
                    slice(None),
                    *(None for _ in kernel),
                    *(slice(None, None, s) for s in op.strides),
                )
            ]
        else:
            padded = pad_spatial(x, op.pads, self.zero_point) if any(op.pads) else x
            view = windows(padded, kernel, op.strides, op.dilations)
        for g in range(op.group):
            target = columns[g, :depth].reshape(per_group, *kernel, n, *size)
            source = view[:, g * per_group : (g + 1) * per_group]
            np.copyto(target, np.moveaxis(source, 0, 1 + len(kernel)))
        acc = accumulate(self.weight, columns).reshape(o, n * positions)
        if n == 1:
            self.requantize(acc, out.reshape(o, positions))
            return
        result = np.empty((o, n * positions), out.dtype)
        self.requantize(acc, result)
        out[...] = result.reshape(o, n, *size).swapaxes(0, 1)


class _Depthwise:
    """One filter a channel (or a few): tap by tap on whole planes.

    The planes are flattened, so that a tap is one long shifted multiply-add; positions past the end of a row compute
    values that are cut off in the end. A stride splits the input into its phases, each dense.
    """

    def __init__(self, op: Conv, x: TensorInfo, requantize: Requantizer) -> None:
        self.op, self.zero_point, self.requantize = op, x.zero_point, requantize
        weight = op.weight.astype(np.int64)
        terms = np.abs(weight).sum((1, 2, 3)) * magnitude(x)
        self.working = np.float32 if terms.max() <= FLOAT32_EXACT else np.float64
        self.taps = np.ascontiguousarray(weight.reshape(weight.shape[0], -1).T.astype(self.working))[
            ..., None
        ]
        bias = op.bias.astype(np.int64) - x.zero_point * weight.sum((1, 2, 3))
        self.dtype = np.float32 if (terms + np.abs(bias)).max() <= FLOAT32_EXACT else np.float64
        self.bias = bias.astype(self.dtype)[:, None]

    def images_at_once(self, shape: tuple[int, ...], size: list[int]) -> int:
        """How many images of `shape` (N, C, H, W) to take together."""
        return max(1, FLOATS_AT_ONCE // max(1, 4 * shape[1] * shape[2] * shape[3]))

    def __call__(self, x: Codes, out: Codes) -> None:
        """Codes (N, C, H, W) to codes `out` (N, O, OH, OW)."""
        op = self.op
        (kh, kw), (sh, sw), (dh, dw) = op.weight.shape[2:], op.strides[:2], op.dilations[:2]
        n, o, oh, ow = out.shape
        multiple, planes = o // x.shape[1], n * x.shape[1]
        # Phase planes big enough for every tap's shift, all of one row length.
        rows, width = oh + (kh - 1) * dh // sh, ow + (kw - 1) * dw // sw
        padded = np.full((planes, rows * sh, width * sw), self.zero_point, x.dtype)
        top, left = op.pads[0], op.pads[1]
        h, w = min(x.shape[2], rows * sh - top), min(x.shape[3], width * sw - left)
        padded[:, top : top + h, left : left + w] = x.reshape(planes, *x.shape[2:])[:, :h, :w]
        length = (oh - 1) * width + ow
        taps, bias = (
            (self.taps, self.bias) if n == 1 else (np.tile(self.taps, (1, n, 1)), np.tile(self.bias, (n, 1)))
        )
        acc = np.empty((n * o, oh * ow), self.dtype)
        step = max(1, BLOCK // (rows * width))
        for begin in range(0, planes, step):
            chunk = padded[begin : begin + step]
            count = chunk.shape[0]
            phases = {
                (i, j): chunk[:, i::sh, j::sw].astype(self.working).reshape(count, -1)
                for i in {d * dh % sh for d in range(kh)}
                for j in {d * dw % sw for d in range(kw)}
            }
            total = np.empty((count, oh * width), self.working)
            scratch = np.empty((count, length), self.working)
            for m in range(multiple):
                channels = slice(begin * multiple + m, (begin + count) * multiple, multiple)
                for t in range(kh * kw):
                    i, j = t // kw * dh, t % kw * dw
                    offset = i // sh * width + j // sw
                    plane = phases[i % sh, j % sw][:, offset : offset + length]
                    if t == 0:
                        np.multiply(plane, taps[t, channels], out=total[:, :length])
                    else:
                        np.multiply(plane, taps[t, channels], out=scratch)
                        np.add(total[:, :length], scratch, out=total[:, :length])
                cut = total.reshape(count, oh, width)[:, :, :ow].reshape(count, oh * ow)
                np.add(cut, bias[channels], out=acc[channels], dtype=self.dtype)
        for k in range(n):
            self.requantize(acc[k * o : (k + 1) * o], out[k].reshape(o, oh * ow))
