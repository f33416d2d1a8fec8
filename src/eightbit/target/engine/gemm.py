"""Matrix products of codes: with a constant weight (Gemm), and of two activations (MatMul); always exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.errors import EngineError
from eightbit.target.engine.accumulate import CODE_MAGNITUDE, FLOAT32_EXACT, accumulate, exact_weight
from eightbit.target.engine.requantize import requantizer
from eightbit.target.program import Gemm, MatMul, Program

Codes = NDArray[np.int8]
ROWS = 4096  # rows of the left matrix worked on at a time, to bound the float copy


def gemm(op: Gemm, program: Program, arithmetic: Arithmetic) -> Callable[[Codes], Codes]:
    """A function from codes (..., K) to codes (..., N); the accumulator is that of a 1x1 convolution."""
    x, y = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    requantize = requantizer((x.scale, op.weight_scale, y.scale), y.zero_point, arithmetic)
    depth, width = op.weight.shape
    weight = exact_weight(np.ascontiguousarray(op.weight.T), op.bias, x.zero_point)

    def apply(codes: Codes) -> Codes:
        if codes.shape[-1] != depth:
            raise EngineError(
                f"{op.name}: input {op.inputs[0]!r} has shape {codes.shape}; its last axis must be {depth}"
            )
        flat = codes.reshape(-1, depth)
        out = np.empty((width, flat.shape[0]), np.int8)
        for begin in range(0, flat.shape[0], ROWS):
            part = flat[begin : begin + ROWS]
            columns = np.ones((depth + weight.ones, part.shape[0]), np.float32)
            columns[:depth] = part.T
            result = np.empty((width, part.shape[0]), np.int8)
            requantize(accumulate(weight, columns), result)
            out[:, begin : begin + ROWS] = result
        return np.ascontiguousarray(out.T).reshape(*codes.shape[:-1], width)

    return apply


def matmul(op: MatMul, program: Program, arithmetic: Arithmetic) -> Callable[[Codes, Codes], Codes]:
    """A function of codes (..., M, K) and (..., K, N): acc = sum (a - z_a)(b - z_b), one multiplier s_a s_b / s_y.

    With both operands free, the bound on a sum is K * 255 * 255: float32 up to K = 258, else float64.
    """
    a, b = (program.tensors[name] for name in op.inputs)
    y = program.tensors[op.outputs[0]]
    requantize = requantizer((a.scale, np.asarray([b.scale], np.float32), y.scale), y.zero_point, arithmetic)
    worst = (CODE_MAGNITUDE + abs(a.zero_point)) * (CODE_MAGNITUDE + abs(b.zero_point))

    def apply(left: Codes, right: Codes) -> Codes:
        dtype = np.dtype(np.float32 if left.shape[-1] * worst <= FLOAT32_EXACT else np.float64)
        shifted = (np.subtract(q, z, dtype=dtype) for q, z in ((left, a.zero_point), (right, b.zero_point)))
        acc = np.matmul(*shifted)
        out = np.empty(acc.shape, np.int8)
        requantize(acc.reshape(1, -1), out.reshape(1, -1))
        return out

    return apply
