"""A table of codes as an operator that has exactly this table, if TensorFlow Lite has one; else looked up as such.

Every candidate's 256 answers are computed as TFLite Micro computes them and compared: what a file says is what the
NumPy engine gives. Without a match the codes become indices: CAST, ADD 128, GATHER.
"""

from __future__ import annotations

import numpy as np

from eightbit.arith.affine import INT8
from eightbit.arith.fixedpoint import Arithmetic, quantize_multiplier, requantize_c
from eightbit.deploy.tflite.build import Builder
from eightbit.integer import program as p
from eightbit.integer.engine.elementwise import table_of
from eightbit.integer.engine.requantize import requantize_codes
from eightbit.integer.program import Codes, TensorInfo

Infos = tuple[TensorInfo, TensorInfo]


def lookup(op: p.Lookup, b: Builder) -> None:
    """Each code through a table."""
    x = b.read(op.inputs[0])
    y = b.make(op.outputs[0], x.order)
    table = table_of(op, b.program, Arithmetic.TFLITE)
    _write(b, op.name, (b.laid(x), y.buffer), table, (b.coded(op.inputs[0]), b.coded(op.outputs[0])))


def _write(b: Builder, name: str, ends: tuple[str, str], table: Codes, infos: Infos) -> None:
    x, y = ends
    if np.array_equal(table, requantize_codes(p.all_codes(INT8), *infos, Arithmetic.TFLITE)):
        b.add("QUANTIZE", (x,), y)
        return
    if np.array_equal(table, rectified(*infos)):
        b.add("RELU", (x,), y)
        return
    bounds = clipped(table)
    if bounds is not None and infos[0].params == infos[1].params:
        low, high = bounds
        if low > INT8.qmin and high < INT8.qmax:
            between = b.like(f"{name}.from_below", b.tensors[x].shape, y)
            b.add("MAXIMUM", (x, _scalar(b, low, y)), between)
            b.add("MINIMUM", (between, _scalar(b, high, y)), y)
        elif low > INT8.qmin:
            b.add("MAXIMUM", (x, _scalar(b, low, y)), y)
        else:
            b.add("MINIMUM", (x, _scalar(b, high, y)), y)
        return
    shape = b.tensors[x].shape
    wide, index = (b.of_type(f"{name}.{what}", shape, np.dtype(np.int32)) for what in ("codes", "index"))
    b.add("CAST", (x,), wide)
    b.add("ADD", (wide, b.constant(np.array([-INT8.qmin], np.int32))), index)
    b.add("GATHER", (b.constant(table, b.tensors[y].quantization), index), y)


def _scalar(b: Builder, code: int, like: str) -> str:
    return b.constant(np.array([code], np.int8), b.tensors[like].quantization)


def rectified(x: TensorInfo, y: TensorInfo) -> Codes:
    """The table of RELU (micro/kernels/activations_common.cc): the quotient of the scales in float32, then as above."""
    by = quantize_multiplier(np.float64(np.float32(x.scale) / np.float32(y.scale)))
    codes = requantize_c(p.all_codes(INT8).astype(np.int32) - x.zero_point, *by, y.zero_point, INT8)
    return np.maximum(codes, np.int8(y.zero_point))


def clipped(table: Codes) -> tuple[int, int] | None:
    """(low, high) if the table only cuts codes off there."""
    low, high = int(table.min()), int(table.max())
    return (low, high) if np.array_equal(table, np.clip(p.all_codes(INT8), low, high)) else None
