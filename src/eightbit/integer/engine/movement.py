"""Operations that carry codes from place to place and change none, or keep the largest of some."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.integer.engine.elementwise import through_table
from eightbit.integer.engine.requantize import requantize_table
from eightbit.integer.program import (
    Codes,
    Concat,
    Flatten,
    Pad,
    Program,
    ReduceMax,
    Reshape,
    ReshapeTo,
    Slice,
    Squeeze,
    Take,
    Transpose,
    Unsqueeze,
)

Move = Callable[[Codes], Codes]


def reshape(op: Reshape, program: Program, arithmetic: Arithmetic) -> Move:
    """ONNX Reshape: 0 copies a length, -1 takes the rest."""

    def apply(q: Codes) -> Codes:
        return q.reshape([q.shape[i] if d == 0 else d for i, d in enumerate(op.shape)])

    return apply


def reshape_to(
    op: ReshapeTo, program: Program, arithmetic: Arithmetic
) -> Callable[[Codes, NDArray[np.integer]], Codes]:
    """ONNX Reshape to a computed shape: as `reshape`."""
    return lambda q, shape: q.reshape([q.shape[i] if d == 0 else int(d) for i, d in enumerate(shape)])


def flatten(op: Flatten, program: Program, arithmetic: Arithmetic) -> Move:
    """ONNX Flatten: two axes."""

    def apply(q: Codes) -> Codes:
        axis = op.axis % q.ndim if op.axis < 0 else op.axis
        return q.reshape(int(np.prod(q.shape[:axis])), int(np.prod(q.shape[axis:])))

    return apply


def squeeze(op: Squeeze, program: Program, arithmetic: Arithmetic) -> Move:
    """ONNX Squeeze."""
    return lambda q: np.squeeze(q, axis=op.axes)


def unsqueeze(op: Unsqueeze, program: Program, arithmetic: Arithmetic) -> Move:
    """ONNX Unsqueeze."""
    return lambda q: np.expand_dims(q, axis=op.axes)


def transpose(op: Transpose, program: Program, arithmetic: Arithmetic) -> Move:
    """ONNX Transpose, copied so that what follows reads memory in order."""
    return lambda q: np.ascontiguousarray(np.transpose(q, op.perm))


def slice_(op: Slice, program: Program, arithmetic: Arithmetic) -> Move:
    """ONNX Slice with constant bounds."""

    def apply(q: Codes) -> Codes:
        index = [slice(None)] * q.ndim
        for axis, start, stop, step in op.bounds:
            index[axis] = slice(start, stop, step)
        return np.ascontiguousarray(q[tuple(index)])

    return apply


def pad(op: Pad, program: Program, arithmetic: Arithmetic) -> Move:
    """ONNX Pad; negative lengths crop."""
    modes = {"constant": "constant", "edge": "edge", "reflect": "reflect", "wrap": "wrap"}

    def apply(q: Codes) -> Codes:
        rank = len(op.pads) // 2
        cropped = q[
            tuple(
                slice(max(0, -b), n - max(0, -e))
                for n, b, e in zip(q.shape, op.pads[:rank], op.pads[rank:], strict=True)
            )
        ]
        widths = [(max(0, b), max(0, e)) for b, e in zip(op.pads[:rank], op.pads[rank:], strict=True)]
        if op.mode == "constant":
            return np.pad(cropped, widths, constant_values=op.value)
        return np.pad(cropped, widths, mode=modes[op.mode])  # type: ignore[call-overload]

    return apply


def take(op: Take, program: Program, arithmetic: Arithmetic) -> Move:
    """ONNX Gather, and what else picks or repeats places along an axis."""
    return lambda q: np.take(q, op.index, axis=op.axis)


def reduce_max(op: ReduceMax, program: Program, arithmetic: Arithmetic) -> Move:
    """ONNX ReduceMax; the largest code stands for the largest number."""
    return lambda q: q.max(axis=op.axes, keepdims=op.keep)


def concat(op: Concat, program: Program, arithmetic: Arithmetic) -> Callable[..., Codes]:
    """ONNX Concat; inputs of another scale go through a table (ONNX Runtime's QLinearConcat does the same)."""
    tables = concat_tables(op, program, arithmetic)

    def apply(*parts: Codes) -> Codes:
        same = [q if t is None else through_table(t, q) for q, t in zip(parts, tables, strict=True)]
        return np.concatenate(same, axis=op.axis)

    return apply


def concat_tables(op: Concat, program: Program, arithmetic: Arithmetic) -> tuple[Codes | None, ...]:
    """The tables of `op`, in the arithmetic's own rounding."""
    y = program.tensors[op.outputs[0]]
    return tuple(
        requantize_table(table, (program.tensors[name], y), arithmetic)
        for name, table in zip(op.inputs, op.tables, strict=True)
    )
