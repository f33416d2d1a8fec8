"""How each operation of the integer program is said in TensorFlow Lite: the dispatch, and those without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from eightbit.deploy.layout.refusals import NO_CODES
from eightbit.deploy.layout.views import View, in_order
from eightbit.deploy.tflite.build import Builder
from eightbit.deploy.tflite.layers import conv, gemm, matmul, mean, pool, raised
from eightbit.deploy.tflite.movement import concat, pad, slice_
from eightbit.deploy.tflite.tables import lookup
from eightbit.integer import program as p
from eightbit.integer.engine.softmax import FIXED_SCALE, check_depth


def quantize(op: p.Quantize, b: Builder) -> None:
    """An input of the network: its codes are handed in."""
    b.input(op)


def dequantize(op: p.Dequantize, b: Builder) -> None:
    """An output of the network: its codes are handed out, by `Builder.net`."""


def binary(op: p.Add | p.Mul, b: Builder) -> None:
    """Sum or product, broadcasting."""
    shape = b.shapes[op.outputs[0]]
    rank = len(shape)
    views = [b.views[name] for name in op.inputs]
    full = next((v for v in views if v.shape == shape), None)
    y = b.make(op.outputs[0], in_order(rank) if full is None else full.order)
    operands = [b.laid(b.reordered(raised(view, rank), y.order)) for view in views]
    b.add("ADD" if isinstance(op, p.Add) else "MUL", operands, y.buffer)


def softmax(op: p.Softmax, b: Builder) -> None:
    """Softmax over the last axis in memory, in codes of its own; then QUANTIZE, where the output has others."""
    rank = len(b.shapes[op.inputs[0]])
    axis = op.axis % rank
    order = b.views[op.inputs[0]].order
    x = b.read(op.inputs[0], (*(a for a in order if a != axis), axis))
    y = b.make(op.outputs[0], x.order)
    check_depth(op.name, x.shape[axis])
    own = p.TensorInfo(FIXED_SCALE, -128)
    target = (
        y.buffer if b.info(op.outputs[0]).params == own.params else b.of(f"{op.name}.shares", y.laid, own)
    )
    b.add("SOFTMAX", (b.laid(x),), target, beta=1.0)
    if target != y.buffer:
        b.add("QUANTIZE", (target,), y.buffer)


def same_codes(op: p.Op, b: Builder) -> None:
    """Reshape and its kin: another shape for codes that lie in the order of the axes.

    An image that only matrix products read, flattened, stays as it lies: the matrices' rows are put in its order.
    """
    name, made = op.inputs[0], op.outputs[0]
    x, shape = b.views[name], b.shapes[made]
    if _flattens(x, shape) and all(isinstance(reader, p.Gemm) for reader in b.readers(made)):
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
}

REFUSED: Mapping[type[p.Op], str] = {
    p.FloatIsland: "it is left in float: quantize its inputs and outputs, or keep that part outside the network",
    **NO_CODES,
}
