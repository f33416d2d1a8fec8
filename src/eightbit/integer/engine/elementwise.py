"""Operations on single codes: the borders, tables of one code, and tables of two.

An operation on two 8-bit codes has 65,536 possible inputs. Its table is computed once, with all the care of the exact
float32 formula; after that, running it is one look-up an element, in every arithmetic. Where one of its tensors has 16
bits no table is worth its bytes, and the float32 formula of the runtime is taken element by element.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import INT8, INT32, UINT8, IntType, dequantize, quantize
from eightbit.arith.fixedpoint import FIXED_POINT, Arithmetic, quantize_multiplier, requantize_b
from eightbit.arith.fma import fma32
from eightbit.integer.engine.requantize import fixed_multiplier, requantize_table
from eightbit.integer.program import (
    REQUANTIZE,
    Add,
    Codes,
    Dequantize,
    Lookup,
    Mul,
    Op,
    Program,
    Quantize,
    TensorInfo,
    canonical,
)

UINT8_SHIFT = 128  # family B computes with the uint8 codes of ONNX Runtime on x86: q + 128, z + 128
ADD_LEFT_SHIFT = 20  # TFLite, reference_ops/add.h
Operands = tuple[TensorInfo, TensorInfo, TensorInfo]
Multiplier = tuple[NDArray[np.int32], NDArray[np.int32]]
"""31 bits and a shift, see `quantize_multiplier`."""


def quantize_input(op: Quantize, program: Program, arithmetic: Arithmetic) -> Callable[[NDArray], NDArray]:
    """A function from a float tensor to its codes (ONNX QuantizeLinear, in every arithmetic)."""
    params = program.tensors[op.outputs[0]].params
    return lambda x: quantize(np.asarray(x, np.float32), params)


def dequantize_output(
    op: Dequantize, program: Program, arithmetic: Arithmetic
) -> Callable[[NDArray], NDArray]:
    """A function from codes to the float32 numbers they stand for."""
    params = program.tensors[op.inputs[0]].params
    return lambda q: dequantize(q, params)


def lookup(op: Lookup, program: Program, arithmetic: Arithmetic) -> Callable[[Codes], Codes]:
    """A function that sends each code through the table of `op`."""
    table = table_of(op, program, arithmetic)
    return lambda q: through_table(table, q)


def table_of(op: Lookup, program: Program, arithmetic: Arithmetic) -> Codes:
    """The table of `op`; where it takes codes of one scale to another, in the arithmetic's own rounding."""
    if op.kind != REQUANTIZE:
        return op.table
    x, y = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    found = requantize_table(op.table, (x, y), arithmetic)
    assert found is not None
    return found


def through_table(table: Codes, codes: Codes) -> Codes:
    """`table[code - smallest code]` for each code; the table is rolled so that the bits of the code are the index."""
    rolled = np.roll(table, -(len(table) // 2))
    return np.take(rolled, codes.view(np.uint8 if codes.dtype == np.int8 else np.uint16), mode="clip")


def binary(op: Add | Mul, program: Program, arithmetic: Arithmetic) -> Callable[[Codes, Codes], Codes]:
    """A function of two tensors of codes, broadcasting."""
    a, b = (program.tensors[name] for name in op.inputs)
    y = program.tensors[op.outputs[0]]
    if {a.itype, b.itype, y.itype} != {INT8}:
        return _wide(np.add if isinstance(op, Add) else np.multiply, (a, b, y))
    rule = _RULES[type(op), arithmetic is Arithmetic.ONNX]
    grid = np.arange(-128, 128)

    def build(first: TensorInfo, second: TensorInfo) -> Codes:
        if arithmetic is Arithmetic.ONNX:
            codes = rule(grid[:, None], grid[None, :], (first, second, y))
        else:
            codes = rule(grid[:, None], grid[None, :], (first, second, y), arithmetic)
        return np.ascontiguousarray(np.roll(codes, (-UINT8_SHIFT, -UINT8_SHIFT), (0, 1))).reshape(-1)

    table = build(a, b)
    # ONNX Runtime's QLinearAdd hands a broadcast first operand over as the second one: the float32 sums differ.
    swapped = build(b, a) if isinstance(op, Add) and arithmetic is Arithmetic.ONNX else None

    def apply(left: Codes, right: Codes) -> Codes:
        if swapped is not None and _repeats_inside(left.shape, right.shape):
            return _pairwise(swapped, right, left)
        return _pairwise(table, left, right)

    return apply


def _wide(function: np.ufunc, infos: Operands) -> Callable[[Codes, Codes], Codes]:
    """The operation on real numbers in float32, then codes: what ONNX Runtime does where one tensor has 16 bits."""
    first, second, y = (info.params for info in infos)
    return lambda left, right: quantize(function(dequantize(left, first), dequantize(right, second)), y)


def _pairwise(table: Codes, left: Codes, right: Codes) -> Codes:
    shape = np.broadcast_shapes(left.shape, right.shape)
    pairs = np.empty((*shape, 2), np.uint8)
    pairs[..., 0], pairs[..., 1] = right.view(np.uint8), left.view(np.uint8)
    index = pairs.view("<u2")[..., 0]
    return np.take(table, index, mode="clip")


def _repeats_inside(left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    """Whether the left operand is constant along the innermost axis on which the two are not both 1."""
    rank = max(len(left), len(right))
    ones = (1,) * rank
    for m, n in zip(reversed((ones + left)[-rank:]), reversed((ones + right)[-rank:]), strict=True):
        if (m, n) != (1, 1):
            return m == 1
    return False


def add_b(a: NDArray, b: NDArray, infos: Operands) -> Codes:
    """ONNX Runtime's QLinearAdd with FMA (mlas, qladd_avx2.cpp), on uint8 codes, all in float32:

    r_a = s_a / s_y,  r_b = s_b / s_y,  F = z_y - fma(r_a, z_a, r_b * z_b),  y = RNE(fma(a, r_a, fma(b, r_b, F))).
    The fma inside F is the compiler's contraction of `r_a * z_a + r_b * z_b`.
    """
    s_a, s_b, s_y = (np.float32(info.scale) for info in infos)
    z_a, z_b, z_y = (np.float32(info.zero_point + UINT8_SHIFT) for info in infos)
    r_a, r_b = s_a / s_y, s_b / s_y
    fixed = z_y - fma32(r_a, z_a, r_b * z_b)
    total = fma32(a + UINT8_SHIFT, r_a, fma32(b + UINT8_SHIFT, r_b, fixed))
    return canonical(requantize_b(total, 0, UINT8))  # z_y is in F


def mul_b(a: NDArray, b: NDArray, infos: Operands) -> Codes:
    """ONNX Runtime's QLinearMul (mlas, qlmul.cpp), in float32: RNE((a - z_a)(b - z_b) * (s_a * s_b / s_y) + z_y)."""
    first, second, y = infos
    ratio = np.float32(first.scale) * np.float32(second.scale) / np.float32(y.scale)
    product = ((a - first.zero_point) * (b - second.zero_point)).astype(np.float32)
    return canonical(requantize_b(product * ratio, y.zero_point + UINT8_SHIFT, UINT8))


def add_fixed(a: NDArray, b: NDArray, infos: Operands, arithmetic: Arithmetic) -> Codes:
    """TFLite's Add (reference_ops/add.h): both inputs to 20 extra bits at twice the larger scale, then the sum down."""
    first, second, y = infos
    *each, whole = add_multipliers(infos)
    total = sum(
        _scaled((codes - info.zero_point) << ADD_LEFT_SHIFT, by, (0, INT32), arithmetic).astype(np.int64)
        for codes, info, by in ((a, first, each[0]), (b, second, each[1]))
    )
    return _scaled(np.asarray(total), whole, (y.zero_point, INT8), arithmetic)


def add_multipliers(infos: Operands) -> tuple[Multiplier, Multiplier, Multiplier]:
    """Multiplier and shift of each input of `add_fixed`, and of the sum."""
    s_a, s_b, s_y = (np.float64(info.scale) for info in infos)
    twice = 2 * max(s_a, s_b)
    a, b = quantize_multiplier(s_a / twice), quantize_multiplier(s_b / twice)
    return a, b, quantize_multiplier(twice / (2**ADD_LEFT_SHIFT * s_y))


def mul_fixed(a: NDArray, b: NDArray, infos: Operands, arithmetic: Arithmetic) -> Codes:
    """TFLite's Mul (reference_ops/mul.h): the product of the codes times s_a s_b / s_y."""
    first, second, y = infos
    by = fixed_multiplier(first.scale, second.scale, y.scale)
    product = (a - first.zero_point) * (b - second.zero_point)
    return _scaled(product, by, (y.zero_point, INT8), arithmetic)


def _scaled(
    acc: NDArray, by: Multiplier, to: tuple[int, IntType], arithmetic: Arithmetic
) -> NDArray[np.integer]:
    """`acc` times a multiplier with its shift, in codes of a zero point and a type."""
    return FIXED_POINT[arithmetic](acc.astype(np.int32), *by, *to)


_RULES: dict[tuple[type[Op], bool], Callable[..., Codes]] = {
    (Add, True): add_b,
    (Add, False): add_fixed,
    (Mul, True): mul_b,
    (Mul, False): mul_fixed,
}
