"""One rule an operator: a float node between DequantizeLinear and QuantizeLinear becomes integer operations.

A matrix product needs no QuantizeLinear: where only float nodes read it, its accumulators are scaled to float32.
A rule is asked about nodes that have an integer form (`graph.forms`). It returns the operations, or says what of the
node's operands is no code; such a node stays in float.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.arith.affine import INT8
from eightbit.graph.coded import gated, quantizer
from eightbit.graph.model import attribute, constant, input_at, is_op, sole_consumer, title
from eightbit.graph.windows import Window, window
from eightbit.integer import program as p
from eightbit.integer.lower import movement
from eightbit.integer.lower.codes import (
    BIAS_SCALE_RTOL,
    CODE_TYPES,
    CodeTensors,
    Constant,
)
from eightbit.integer.lower.ends import carry, ends_of, requantize_table

Rule = Callable[[ir.Node, CodeTensors], "list[p.Op] | str"]


def conv(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Conv with constant signed weight codes (scale per output channel or one) and int32 bias."""
    ends = ends_of(node, codes, 1)
    weight = codes.fixed(input_at(node, 1))
    if isinstance(ends, str) or weight is None:
        return ends if isinstance(ends, str) else "its weight is not constant codes"
    (x,), y = ends
    read = _layer(node, (codes, x), weight, 0)
    if isinstance(read, str):
        return read
    w, bias, scale = read
    way = _window(node)
    rest = way.strides, _pads(way), way.dilations, way.groups
    return [p.Conv(title(node), (x,), (y,), w, bias, scale, *rest)]


def gemm(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Gemm with constant B."""
    ends = ends_of(node, codes, 1, to_float=True)
    weight = codes.fixed(input_at(node, 1))
    if isinstance(ends, str) or weight is None:
        return ends if isinstance(ends, str) else "its weight is not constant codes"
    (x,), y = ends
    transposed = bool(attribute(node, "transB", 0))
    read = _layer(node, (codes, x), weight, 0 if transposed else 1)
    if isinstance(read, str):
        return read
    w, bias, scale = read
    kind = p.Gemm if y in codes.tensors else p.GemmToFloat
    return [kind(title(node), (x,), (y,), np.ascontiguousarray(w.T) if transposed else w, bias, scale)]


def matmul(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """MatMul with a constant matrix (scale per column or one); of two tensors of codes, which may be constant."""
    weight = codes.fixed(node.inputs[1])
    if (
        weight is not None
        and weight.codes.ndim == 2
        and codes.read(node.inputs[0]) not in (None, weight.name)
    ):
        ends = ends_of(node, codes, 1, to_float=True)
        if isinstance(ends, str):
            return ends
        (x,), y = ends
        read = _layer(node, (codes, x), weight, 1)
        if isinstance(read, str):
            return read
        if y in codes.tensors:
            return [p.Gemm(title(node), (x,), (y,), *read)]
        after = sole_consumer(node.outputs[0])
        if (
            after is not None
            and is_op(after, "Add")
            and any(constant(value) is not None for value in after.inputs)
        ):
            return "a constant is added to it in float; ONNX Runtime makes the two a Gemm in float"
        return [p.GemmToFloat(title(node), (x,), (y,), *read)]
    ends = ends_of(node, codes, 2, to_float=True)
    if isinstance(ends, str):
        return ends
    inputs, y = ends
    return [(p.MatMul if y in codes.tensors else p.MatMulToFloat)(title(node), inputs, (y,))]


def add(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Add of two tensors of codes."""
    ends = ends_of(node, codes, 2)
    return ends if isinstance(ends, str) else [p.Add(title(node), ends[0], (ends[1],))]


def mul(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Mul of two tensors of codes."""
    ends = ends_of(node, codes, 2)
    return ends if isinstance(ends, str) else [p.Mul(title(node), ends[0], (ends[1],))]


def max_pool(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """MaxPool; the largest code stands for the largest number."""
    way, ceil = _window(node), bool(attribute(node, "ceil_mode", 0))
    rest = way.kernel, way.strides, _pads(way), way.dilations, ceil
    return carry(node, codes, lambda n, x, y: p.MaxPool(n, x, y, *rest))


def average_pool(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """AveragePool."""
    ends, way = ends_of(node, codes, 1), _window(node)
    if isinstance(ends, str):
        return ends
    ceil, include = bool(attribute(node, "ceil_mode", 0)), bool(attribute(node, "count_include_pad", 0))
    rest = way.kernel, way.strides, _pads(way), ceil, include
    return [p.AveragePool(title(node), ends[0], (ends[1],), *rest)]


def global_average_pool(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """GlobalAveragePool."""
    ends = ends_of(node, codes, 1)
    return ends if isinstance(ends, str) else [p.GlobalAveragePool(title(node), ends[0], (ends[1],))]


def softmax(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Softmax along one axis."""
    ends = ends_of(node, codes, 1)
    if isinstance(ends, str):
        return ends
    (x,), y = ends
    if codes.tensors[x].itype != INT8 or codes.tensors[y].itype != INT8:
        return "a Softmax of 16-bit codes has no integer kernel"
    return [p.Softmax(title(node), (x,), (y,), attribute(node, "axis", -1))]


def concat(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Concat; inputs of another scale than the output get a table."""
    ends = ends_of(node, codes, len(node.inputs))
    if isinstance(ends, str):
        return ends
    inputs, y = ends
    tables = tuple(requantize_table(codes.tensors[x], codes.tensors[y]) for x in inputs)
    return [p.Concat(title(node), inputs, (y,), attribute(node, "axis"), tables)]


def as_table(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """A function of one number: it becomes a table with the float nodes around it, where it can (`islands`)."""
    ends = ends_of(node, codes, 1)
    return ends if isinstance(ends, str) else "a function without an integer kernel"


def clip_codes(node: ir.Node, codes: CodeTensors) -> list[p.Op] | None:
    """A Clip of codes, not of floats: how codes of fewer than eight bits are cut off, and how those of a gate are made.

    None for any other node.
    """
    if not is_op(node, "Clip"):
        return None
    cut, before = node.outputs[0], node.inputs[0]
    source = gated(cut)
    q = quantizer(cut if source is None else source)
    info = None if q is None else codes.describe(q)
    if info is None or before is None:
        return None
    x, y = str(before.name), str(cut.name)
    codes.tensors.setdefault(x, info)
    readers = (use.node for use in cut.uses() if is_op(use.node, "DequantizeLinear"))
    after = next(readers, None) if source is not None else None
    codes.tensors.setdefault(y, (None if after is None else codes.describe(after)) or info)
    bounds = [constant(input_at(node, i)) for i in (1, 2)]
    lo, hi = (None if bound is None else int(p.canonical(bound.reshape(1))[0]) for bound in bounds)
    table = np.clip(p.all_codes(info.itype), lo, hi)
    return [p.Lookup(title(node), (x,), (y,), table, p.CLIP_CODES if source is None else p.GATE)]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Relu", "Clip", "Sigmoid", "LeakyRelu"), as_table),
    "Conv": conv,
    "Gemm": gemm,
    "MatMul": matmul,
    "Add": add,
    "Mul": mul,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "Softmax": softmax,
    "Concat": concat,
    "Reshape": movement.reshape,
    "Flatten": movement.flatten,
    "Squeeze": movement.squeeze,
    "Unsqueeze": movement.unsqueeze,
    "Transpose": movement.transpose,
    "Slice": movement.slice_,
    "Pad": movement.pad,
    "Split": movement.split,
    **dict.fromkeys(("Gather", "Tile", "Expand", "Resize"), movement.pick),
    "DepthToSpace": movement.depth_to_space,
    "ReduceMax": movement.reduce_max,
}


def _layer(
    node: ir.Node, source: tuple[CodeTensors, str], weight: Constant, axis: int
) -> tuple[p.Codes, NDArray[np.int32], NDArray[np.float32]] | str:
    """Weight, bias and weight scale (C,) of a layer whose output channels lie along `axis` of the weight."""
    codes, x = source
    if weight.codes.dtype not in CODE_TYPES or np.any(weight.zero_point != CODE_TYPES[weight.codes.dtype][1]):
        return "its weight is not symmetric codes of 8 or 16 bits"
    channels = weight.codes.shape[axis]
    if weight.scale.ndim == 1 and weight.scale.size > 1 and weight.axis != axis:
        return f"its weight scales lie along axis {weight.axis}; the output channels along {axis}"
    scale = np.broadcast_to(weight.scale.reshape(-1), (channels,)).astype(np.float32)
    w = p.canonical(weight.codes)
    value = input_at(node, 2) if node.op_type != "MatMul" else None
    if value is None:
        return w, np.zeros(channels, np.int32), scale
    bias = codes.fixed(value)
    if (
        bias is None
        or bias.codes.dtype != np.int32
        or bias.codes.size not in (1, channels)
        or bias.zero_point.any()
    ):
        return f"its bias is not int32 codes, one for each of {channels} channels"
    expected = codes.tensors[x].scale * scale
    if not np.allclose(bias.scale.reshape(-1), expected, rtol=BIAS_SCALE_RTOL, atol=0):
        codes.problems.append(
            f"{title(node)}: the scale of bias {bias.name!r} is {bias.scale.reshape(-1)[0]}; the accumulator's is"
            f" s_x * s_w = {expected[0]}: quantize the bias with that"
        )
    return w, np.broadcast_to(bias.codes.reshape(-1), (channels,)).astype(np.int32), scale


def _window(node: ir.Node) -> Window:
    way = window(node)
    assert way is not None
    return way


def _pads(way: Window) -> tuple[int, ...]:
    assert way.pads is not None  # graph.forms refuses others
    return way.pads
