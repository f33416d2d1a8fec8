"""How each operation of the integer program is said in TensorFlow Lite: the dispatch, and those without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from eightbit.deploy.layout.refusals import NO_CODES
from eightbit.deploy.layout.views import View, in_order
from eightbit.deploy.tflite.build import FLOAT, Builder
from eightbit.deploy.tflite.elementwise import broadcast
from eightbit.deploy.tflite.floats import float_node
from eightbit.deploy.tflite.islands import FloatNode
from eightbit.deploy.tflite.layers import conv, gemm, gemm_to_float, matmul, mean, pool
from eightbit.deploy.tflite.movement import concat, pad, reduce_max, slice_, take
from eightbit.deploy.tflite.tables import lookup
from eightbit.integer import program as p
from eightbit.integer.engine.softmax import FIXED_SCALE, check_depth


def quantize(op: p.Quantize, b: Builder) -> None:
    """Codes of an input of the network, or of a float tensor."""
    b.quantize(op)


def dequantize(op: p.Dequantize, b: Builder) -> None:
    """An output of the network, whose codes `Builder.net` hands out; an operator where somebody reads floats."""
    if b.readers(op.outputs[0]):
        b.views[op.outputs[0]] = b.dequantized(b.views[op.inputs[0]])


def binary(op: p.Add | p.Mul, b: Builder) -> None:
    """Sum or product, broadcasting."""
    broadcast(
        "ADD" if isinstance(op, p.Add) else "MUL", [b.views[name] for name in op.inputs], op.outputs[0], b
    )


def embedding(op: p.Embedding, b: Builder) -> None:
    """Rows of codes by their ids, as floats, times the scales of those rows: no operator has a scale a row."""
    ids = b.laid(b.read(op.inputs[0], in_order(len(b.shapes[op.inputs[0]]))))
    y = b.make(op.outputs[0], in_order(len(b.shapes[op.outputs[0]])))
    codes = b.of_type(f"{op.name}.codes", y.laid, op.table.dtype)
    scale = b.of_type(f"{op.name}.scale", (*y.laid[:-1], 1), FLOAT)
    row = b.of_type(f"{op.name}.row", y.laid, FLOAT)
    b.add("GATHER", (b.constant(op.table), ids), codes)
    b.add("CAST", (codes,), row)
    b.add("GATHER", (b.constant(op.scale[:, np.newaxis]), ids), scale)
    b.add("MUL", (row, scale), y.buffer)


def softmax(op: p.Softmax, b: Builder) -> None:
    """Softmax over the last axis in memory, in codes of its own; then QUANTIZE, where the output has others."""
    info = b.info(op.outputs[0])
    rank = len(b.shapes[op.inputs[0]])
    axis = op.axis % rank
    order = b.views[op.inputs[0]].order
    x = b.read(op.inputs[0], (*(a for a in order if a != axis), axis))
    y = b.make(op.outputs[0], x.order)
    own = p.TensorInfo(FIXED_SCALE, -128)
    target = y.buffer
    if info is not None:
        check_depth(op.name, x.shape[axis])
        if info.params != own.params:
            target = b.of(f"{op.name}.shares", y.laid, own)
    b.add("SOFTMAX", (b.laid(x),), target, beta=1.0)
    if target != y.buffer:
        b.add("QUANTIZE", (target,), y.buffer)


def same_codes(op: p.Op, b: Builder) -> None:
    """Reshape and its kin: another shape for codes that lie in the order of the axes.

    An image that only matrix products read, flattened, stays as it lies: the matrices' rows are put in its order.
    """
    name, made = op.inputs[0], op.outputs[0]
    x, shape = b.views[name], b.shapes[made]
    readers = b.readers(made)
    if _flattens(x, shape) and readers and all(isinstance(reader, p.Gemm) for reader in readers):
        if not x.lies(in_order(len(x.shape))):
            places = np.arange(shape[1]).reshape(x.shape[1:])
            b.columns[made] = places.transpose([axis - 1 for axis in x.order[1:]]).reshape(-1)
        b.views[made] = View(x.buffer, shape, in_order(2))
        return
    b.views[made] = b.read(name, in_order(len(x.shape))).reshaped(shape)


def _flattens(x: View, shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and len(x.shape) > 2 and x.order[0] == 0 and shape[0] == x.shape[0]


def transpose(op: p.Transpose, b: Builder) -> None:
    """Other names for the axes; nothing moves until somebody needs another order."""
    b.views[op.outputs[0]] = b.views[op.inputs[0]].transposed(op.perm)


RULES: Mapping[type[p.Op], Callable[[Any, Builder], None]] = {
    p.Quantize: quantize,
    p.Dequantize: dequantize,
    p.Conv: conv,
    p.Gemm: gemm,
    p.MatMul: matmul,
    p.GemmToFloat: gemm_to_float,
    p.MatMulToFloat: matmul,
    p.Embedding: embedding,
    p.Add: binary,
    p.Mul: binary,
    p.MaxPool: pool,
    p.AveragePool: pool,
    p.GlobalAveragePool: mean,
    p.Softmax: softmax,
    p.Lookup: lookup,
    p.Concat: concat,
    p.Reshape: same_codes,
    p.Flatten: same_codes,
    p.Squeeze: same_codes,
    p.Unsqueeze: same_codes,
    p.Transpose: transpose,
    p.Slice: slice_,
    p.Pad: pad,
    p.Take: take,
    p.ReduceMax: reduce_max,
    FloatNode: float_node,
}

REFUSED: Mapping[type[p.Op], str] = {
    op: why for op, why in NO_CODES.items() if op not in {*RULES, p.FloatIsland}
}
"""Float islands are opened before (`islands`); TFLite Micro refuses all of `NO_CODES`."""
