"""Which layers can saturate on x86 without VNNI: decided from their codes alone, without a run.

The fast kernels of AVX2 (VPMADDUBSW) multiply uint8 by int8 and add the products of two neighbours in int16. With
neighbours 2i and 2i + 1 along the sum (kernel, then input channels)::

    255 * (max(w[2i], 0) + max(w[2i+1], 0)) <= 32,767    and    255 * (max(-w[2i], 0) + max(-w[2i+1], 0)) <= 32,768

hold for every pair, or some input makes the pair saturate. 255 is the largest uint8 code that can come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from eightbit.graph.forms import LAYERS
from eightbit.graph.model import constant, is_op
from eightbit.graph.processor import LARGEST_UINT8
from eightbit.integer import program as p
from eightbit.integer.program import Codes
from eightbit.quant.observe.layout import Layout

INT16 = np.iinfo(np.int16)
LARGEST_SAFE = 64
"""Largest magnitude of codes of which no two can saturate."""


def saturating(program: p.Program) -> Iterator[tuple[str, int, int]]:
    """(layer, pairs that can saturate, pairs in all), for every layer with such a pair."""
    made_by = {name: op for op in program.ops for name in op.outputs}
    for op in program.ops:
        weight = _columns(op)
        if weight is None or weight.dtype != np.int8:
            continue
        found = can_saturate(weight, _largest(op.inputs[0], made_by))
        if found.any():
            yield op.name, int(found.sum()), found.size


def proven(qdq: ir.Model) -> bool:
    """Whether no pair of any layer of a quantized graph can saturate, whatever its inputs: read from all int8 codes.

    What they are used for must be known, and be a layer, or the rows of a table. Products of two activations are uint8
    by uint8, which the kernels add in 32 bits.
    """
    return all(
        _safe(value, node, index)
        for node in qdq.graph.all_nodes()
        for index, value in enumerate(node.inputs)
        if value is not None and value.dtype in (ir.DataType.INT8, None)
    )


def _safe(value: ir.Value, node: ir.Node, index: int) -> bool:
    """Whether what `node` does with `value`, its input `index`, cannot saturate."""
    through = is_op(node, "DequantizeLinear") and index == 0
    readers = [(use.node, use.idx) for use in node.outputs[0].uses()] if through else [(node, index)]
    codes = constant(value)
    if codes is None:
        return value.dtype is None or not any(
            i == 1 and is_op(n, "MatMul", "MatMulInteger") for n, i in readers
        )
    if (
        codes.dtype != np.int8
        or not codes.ndim
        or np.abs(codes.astype(np.int16)).max(initial=0) <= LARGEST_SAFE
    ):
        return True
    return all(_held(codes, reader, i) for reader, i in readers)


def _held(codes: Codes, node: ir.Node, index: int) -> bool:
    """Whether `codes` as input `index` of `node` hold their pairs inside int16, or meet no sum."""
    if index == 0 and is_op(node, "Gather"):
        return True
    if index != 1 or not is_op(node, *LAYERS, "MatMulInteger"):
        return False
    layout = (
        Layout(codes.ndim - 1, None, codes.shape[:-2]) if node.op_type == "MatMulInteger" else Layout.of(node)
    )
    order = layout.summed(codes.shape)
    return order is None or not can_saturate(layout.rows(codes)[..., order].reshape(-1, len(order)).T).any()


def can_saturate(weight: Codes, largest: int = LARGEST_UINT8) -> np.ndarray:
    """Which pairs of neighbours of `weight` (K, N) int8 can leave int16 with uint8 codes up to `largest`; (K/2, N)."""
    wide = np.pad(weight.astype(np.int64), [(0, len(weight) % 2), (0, 0)])
    pairs = wide.reshape(-1, 2, wide.shape[1])
    highest, lowest = largest * np.maximum(pairs, 0).sum(axis=1), largest * np.minimum(pairs, 0).sum(axis=1)
    found: np.ndarray = (highest > INT16.max) | (lowest < INT16.min)
    return found


def _columns(op: p.Op) -> Codes | None:
    """A layer's weight as a matrix (K, N), in the order in which its kernel adds; None for what adds no pairs."""
    if isinstance(op, p.Gemm | p.GemmToFloat | p.DynamicGemm):
        return op.weight
    if not isinstance(op, p.Conv) or (op.weight.shape[1] == 1 and op.weight.shape[0] == op.group):
        return None  # depthwise kernels add in 32 bits
    return np.moveaxis(op.weight, 1, -1).reshape(len(op.weight), -1).T


def _largest(name: str, made_by: Mapping[str, p.Op]) -> int:
    """The largest uint8 code that a tensor can hold: a table before it may stop short of 255."""
    op = made_by.get(name)
    return (
        int(op.table.max()) + 128 if isinstance(op, p.Lookup) and op.table.dtype == np.int8 else LARGEST_UINT8
    )
