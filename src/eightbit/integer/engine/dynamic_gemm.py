"""Dynamic mode: the scale of a layer's input is found when the program runs, from the input itself.

The integers are those of every other layer; only their scale comes late, so the output is float32. ONNX Runtime
computes the same, bit for bit, in DynamicQuantizeMatMul and in MatMulIntegerToFloat.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.errors import EngineError
from eightbit.integer.engine.accumulate import exact_weight
from eightbit.integer.engine.gemm import ROWS, accumulators
from eightbit.integer.program import DynamicGemm, DynamicQuantize, Program

Codes = NDArray[np.int8]
Floats = NDArray[np.float32]
STEPS = np.float32(255)
UINT8_SHIFT = 128
LARGEST = 255  # of |q - z|, for any zero point


def dynamic_quantize(
    op: DynamicQuantize, program: Program, arithmetic: Arithmetic
) -> Callable[[Floats], tuple[Codes, Floats, Codes]]:
    """A function from a float tensor to int8 codes, their scale () float32 and their zero point () int8.

    ONNX DynamicQuantizeLinear, in float32 and in this order, on uint8: lo = min(x, 0), hi = max(x, 0),
    s = (hi - lo) / 255 (1 where hi = lo), z = RNE(clip(0 - lo / s, 0, 255)), q = clip(RNE(x / s) + z, 0, 255).
    It is the same in every arithmetic.
    """

    def apply(x: Floats) -> tuple[Codes, Floats, Codes]:
        x = np.asarray(x, np.float32)
        lo, hi = x.min(initial=np.float32(0)), x.max(initial=np.float32(0))
        scale = np.float32(1) if lo == hi else np.float32((hi - lo) / STEPS)
        if scale == 0:  # a range that float32 cannot divide by 255: whatever the codes, they stand for 0
            return np.zeros(x.shape, np.int8), np.asarray(scale), np.zeros((), np.int8)
        zero_point = np.rint(np.clip(np.float32(0) - lo / scale, 0, STEPS))
        codes = x / scale
        np.rint(codes, out=codes)
        codes += zero_point
        np.clip(codes, 0, STEPS, out=codes)
        codes -= np.float32(UINT8_SHIFT)
        return codes.astype(np.int8), np.asarray(scale), np.asarray(zero_point - UINT8_SHIFT, np.int8)

    return apply


def dynamic_gemm(
    op: DynamicGemm, program: Program, arithmetic: Arithmetic
) -> Callable[[Codes, Floats, Codes], Floats]:
    """A function from codes (..., K), scale and zero point to float32 (..., N):

    y = float32(acc) * (s_x * s_w) + bias, all in float32 and in this order, acc = sum w (q - z) exact.
    """
    depth, width = op.weight.shape
    no_bias = np.zeros(width, np.int32)
    weight = exact_weight(np.ascontiguousarray(op.weight.T), no_bias, 0, largest=LARGEST)

    def apply(codes: Codes, scale: Floats, zero_point: Codes) -> Floats:
        if codes.shape[-1] != depth:
            raise EngineError(
                f"{op.name}: input {op.inputs[0]!r} has shape {codes.shape}; its last axis must be {depth}"
            )
        shifted = np.subtract(codes.reshape(-1, depth), zero_point, dtype=np.int16)
        multiplier = np.float32(scale) * op.weight_scale
        out = np.empty((shifted.shape[0], width), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # as the float model's would
            for begin, acc in accumulators(weight, shifted):
                np.multiply(acc.T.astype(np.float32), multiplier, out=out[begin : begin + ROWS])
            if op.bias is not None:
                out += op.bias
        return out.reshape(*codes.shape[:-1], width)

    return apply
