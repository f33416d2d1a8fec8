"""Operations of an integer program that carry steps to another place, and compute nothing: `forward` runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from eightbit.errors import QuantizationError
from eightbit.integer import program as p
from eightbit.train.ops import Ops, Tensor
from eightbit.train.plan import Grid


class Run(Protocol):
    """What is needed of a run: `forward.Forward`."""

    ops: Ops

    def grid(self, name: str) -> Grid:
        """The grid of a tensor of codes."""


def _reshape(run: Run, op: p.Reshape, x: Tensor) -> Tensor:
    shape = run.ops.shape(x)
    return run.ops.reshaped(x, [shape[i] if d == 0 else d for i, d in enumerate(op.shape)])


def _reshape_to(run: Run, op: p.ReshapeTo, x: Tensor, lengths: Tensor) -> Tensor:
    shape = run.ops.shape(x)
    return run.ops.reshaped(x, [shape[i] if int(d) == 0 else int(d) for i, d in enumerate(lengths)])


def _flatten(run: Run, op: p.Flatten, x: Tensor) -> Tensor:
    shape = run.ops.shape(x)
    axis = op.axis % len(shape) if op.axis < 0 else op.axis
    return run.ops.reshaped(x, (-1, int(np.prod(shape[axis:]))))


def _squeeze(run: Run, op: p.Squeeze, x: Tensor) -> Tensor:
    shape = run.ops.shape(x)
    axes = (
        [i for i, d in enumerate(shape) if d == 1] if op.axes is None else [a % len(shape) for a in op.axes]
    )
    return run.ops.reshaped(x, [d for i, d in enumerate(shape) if i not in axes])


def _unsqueeze(run: Run, op: p.Unsqueeze, x: Tensor) -> Tensor:
    shape = list(run.ops.shape(x))
    rank = len(shape) + len(op.axes)
    for axis in sorted(a % rank for a in op.axes):
        shape.insert(axis, 1)
    return run.ops.reshaped(x, shape)


def _transpose(run: Run, op: p.Transpose, x: Tensor) -> Tensor:
    return run.ops.transposed(x, op.perm)


def _slice(run: Run, op: p.Slice, x: Tensor) -> Tensor:
    index = [slice(None)] * len(run.ops.shape(x))
    for axis, start, stop, step in op.bounds:
        if step < 0:
            raise QuantizationError(f"node {op.name!r} (Slice) runs backwards, which cannot be trained")
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _pad(run: Run, op: p.Pad, x: Tensor) -> Tensor:
    rank, shape = len(op.pads) // 2, run.ops.shape(x)
    pairs = list(zip(op.pads[:rank], op.pads[rank:], strict=True))
    cut = tuple(slice(max(0, -b), n - max(0, -e)) for n, (b, e) in zip(shape, pairs, strict=True))
    widths = [(max(0, b), max(0, e)) for b, e in pairs]
    return run.ops.padded(x[cut], widths, op.mode, float(op.value - run.grid(op.inputs[0]).zero_point))


def _take(run: Run, op: p.Take, x: Tensor) -> Tensor:
    return run.ops.taken(x, op.index, op.axis)


def _reduce_max(run: Run, op: p.ReduceMax, x: Tensor) -> Tensor:
    return run.ops.highest(x, op.axes, op.keep)


MOVES: dict[type[p.Op], Callable[..., Tensor]] = {
    p.Reshape: _reshape,
    p.ReshapeTo: _reshape_to,
    p.Flatten: _flatten,
    p.Squeeze: _squeeze,
    p.Unsqueeze: _unsqueeze,
    p.Transpose: _transpose,
    p.Slice: _slice,
    p.Pad: _pad,
    p.Take: _take,
    p.ReduceMax: _reduce_max,
}
