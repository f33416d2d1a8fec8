"""Matrix products of codes: with a constant weight (Gemm), and of two activations (MatMul); always exact.

The accumulators become codes of the output, or float32 numbers for readers in float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.errors import EngineError
from eightbit.integer.engine.accumulate import (
    FLOAT32_EXACT,
    ExactWeight,
    accumulate,
    exact_weight,
    magnitude,
)
from eightbit.integer.engine.requantize import requantizer, to_float
from eightbit.integer.program import Codes, Gemm, GemmToFloat, MatMul, MatMulToFloat, Program

Floats = NDArray[np.float32]
ROWS = 4096  # rows of the left matrix worked on at a time, to bound the float copy


def gemm(
    op: Gemm | GemmToFloat, program: Program, arithmetic: Arithmetic
) -> Callable[[Codes], Codes | Floats]:
    """A function from codes (..., K) to codes or floats (..., N); the accumulator is that of a 1x1 convolution."""
    x = program.tensors[op.inputs[0]]
    finish, dtype = _finisher(op, program, (x.scale, op.weight_scale), arithmetic)
    depth, width = op.weight.shape
    weight = exact_weight(np.ascontiguousarray(op.weight.T), op.bias, x.zero_point, largest=magnitude(x))

    def apply(codes: Codes) -> Codes | Floats:
        if codes.shape[-1] != depth:
            raise EngineError(
                f"{op.name}: input {op.inputs[0]!r} has shape {codes.shape}; its last axis must be {depth}"
            )
        flat = codes.reshape(-1, depth)
        out = np.empty((width, flat.shape[0]), dtype)
        for begin, acc in accumulators(weight, flat):
            result = np.empty(acc.shape, dtype)
            finish(acc, result)
            out[:, begin : begin + ROWS] = result
        return np.ascontiguousarray(out.T).reshape(*codes.shape[:-1], width)

    return apply


def accumulators(
    weight: ExactWeight, codes: NDArray[np.integer]
) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """(first row, accumulators (N, rows)) of codes (rows, K), at most `ROWS` of them at a time."""
    depth = codes.shape[1]
    for begin in range(0, codes.shape[0], ROWS):
        part = codes[begin : begin + ROWS]
        columns = np.ones((depth + weight.ones, part.shape[0]), weight.dtype)
        columns[:depth] = part.T
        yield begin, accumulate(weight, columns)


def matmul(
    op: MatMul | MatMulToFloat, program: Program, arithmetic: Arithmetic
) -> Callable[[Codes, Codes], Codes | Floats]:
    """A function of codes (..., M, K) and (..., K, N): acc = sum (a - z_a)(b - z_b), one multiplier s_a s_b / s_y.

    With both operands free, the bound on a sum of 8-bit codes is K * 255 * 255: float32 up to K = 258, else float64.
    """
    a, b = (program.tensors[name] for name in op.inputs)
    finish, out_dtype = _finisher(op, program, (a.scale, np.asarray([b.scale], np.float32)), arithmetic)
    worst = (magnitude(a) + abs(a.zero_point)) * (magnitude(b) + abs(b.zero_point))

    def apply(left: Codes, right: Codes) -> Codes | Floats:
        dtype = np.dtype(np.float32 if left.shape[-1] * worst <= FLOAT32_EXACT else np.float64)
        shifted = (np.subtract(q, z, dtype=dtype) for q, z in ((left, a.zero_point), (right, b.zero_point)))
        acc = np.matmul(*shifted)
        out = np.empty(acc.shape, out_dtype)
        finish(acc.reshape(1, -1), out.reshape(1, -1))
        return out

    return apply


def _finisher(
    op: Gemm | GemmToFloat | MatMul | MatMulToFloat,
    program: Program,
    scales: tuple[np.float32, NDArray[np.float32]],
    arithmetic: Arithmetic,
) -> tuple[Callable[[NDArray[np.floating], NDArray], None], np.dtype]:
    """What becomes of accumulators, row by row: codes of the output's scale, or floats; and the type of the result."""
    if isinstance(op, GemmToFloat | MatMulToFloat):
        return to_float(*scales), np.dtype(np.float32)
    y = program.tensors[op.outputs[0]]
    return requantizer((*scales, y.scale), y, arithmetic), y.itype.dtype
