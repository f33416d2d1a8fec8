"""Softmax on codes, as ONNX Runtime's QLinearSoftmax computes it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.errors import EngineError
from eightbit.integer.program import Codes, Program, Softmax

FLOAT32_MAX = np.finfo(np.float32).max
RESERVE = 5.0  # ONNX Runtime's margin (in nats) against overflow of the sum


def softmax(op: Softmax, program: Program, arithmetic: Arithmetic) -> Callable[[Codes], Codes]:
    """A function of codes (qlinear_softmax.cc).

    A table holds e[i] = float32(exp((i - 255 + shift) s_x)), and the largest code of a row sits at its end. The sum
    runs over the row in float32, from left to right; y = RNE(e * floor(1 / s_y) / sum) + z_y, in double. Note the
    floor: it scales every probability down by up to one part in 1 / s_y.
    """
    if arithmetic is not Arithmetic.ONNX:
        raise EngineError(
            f"{op.name}: Softmax has no {arithmetic.name} rule; run the program in ONNX arithmetic"
        )
    x, y = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    inverse = np.float64(np.floor(np.float32(1) / np.float32(y.scale)))

    def apply(codes: Codes) -> Codes:
        rows = np.moveaxis(codes, op.axis, -1)
        table = exp_table(float(x.scale), rows.shape[-1])
        index = rows.astype(np.intp) + (255 - rows.max(-1, keepdims=True).astype(np.intp))
        e = table[index]
        total = np.add.accumulate(e, axis=-1)[..., -1:]
        rounded = np.rint(e.astype(np.float64) * inverse / total) + (y.zero_point + 128)
        out = (np.clip(rounded, 0, 255) - 128).astype(np.int8)
        return np.ascontiguousarray(np.moveaxis(out, -1, op.axis))

    return apply


def exp_table(scale: float, length: int) -> NDArray[np.float32]:
    """float32 (256,): entry i for the code i - 255 steps below a row's largest; `length` codes are to be summed."""
    room = float(np.float32(math.log(FLOAT32_MAX / np.float32(length))))  # C++ takes the float32 logarithm
    shift = max(0.0, room - RESERVE) / scale
    return np.array([math.exp((i - 255 + shift) * scale) for i in range(256)]).astype(np.float32)
