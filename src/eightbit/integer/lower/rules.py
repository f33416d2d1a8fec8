"""One rule an operator: a float node between DequantizeLinear and QuantizeLinear becomes integer operations.

A matrix product needs no QuantizeLinear: where only float nodes read it, its accumulators are scaled to float32.
A rule is asked about nodes that have an integer form (`graph.forms`). It returns the operations, or says what of the
node's operands is no code; such a node stays in float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.arith.affine import INT8, dequantize, quantize
from eightbit.graph.coded import quantizer
from eightbit.graph.model import attribute, constant, dims, input_at, ints, is_op, sole_consumer, title
from eightbit.graph.windows import Window, window
from eightbit.integer import program as p
from eightbit.integer.lower.codes import (
    BIAS_SCALE_RTOL,
    CODE_TYPES,
    CodeTensors,
    Constant,
)

Rule = Callable[[ir.Node, CodeTensors], "list[p.Op] | str"]


def conv(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Conv with constant signed weight codes (scale per output channel or one) and int32 bias."""
    ends = _ends(node, codes, 1)
    weight = codes.fixed(input_at(node, 1))
    if isinstance(ends, str) or weight is None:
        return ends if isinstance(ends, str) else "its weight is not constant codes"
    (x,), y = ends
    read = _layer(node, (codes, x), weight, 0)
    if isinstance(read, str):
        return read
    w, bias, scale = read
    way = _window(node)
    ends_of = way.strides, _pads(way), way.dilations
    return [p.Conv(title(node), (x,), (y,), w, bias, scale, *ends_of, way.groups)]


def gemm(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Gemm with constant B."""
    ends = _ends(node, codes, 1, to_float=True)
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
        ends = _ends(node, codes, 1, to_float=True)
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
    ends = _ends(node, codes, 2, to_float=True)
    if isinstance(ends, str):
        return ends
    inputs, y = ends
    return [(p.MatMul if y in codes.tensors else p.MatMulToFloat)(title(node), inputs, (y,))]


def add(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Add of two tensors of codes."""
    ends = _ends(node, codes, 2)
    return ends if isinstance(ends, str) else [p.Add(title(node), ends[0], (ends[1],))]


def mul(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Mul of two tensors of codes."""
    ends = _ends(node, codes, 2)
    return ends if isinstance(ends, str) else [p.Mul(title(node), ends[0], (ends[1],))]


def max_pool(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """MaxPool; the largest code stands for the largest number."""
    way, ceil = _window(node), bool(attribute(node, "ceil_mode", 0))
    rest = way.kernel, way.strides, _pads(way), way.dilations, ceil
    return _carry(node, codes, lambda x, y: p.MaxPool(title(node), x, y, *rest))


def average_pool(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """AveragePool."""
    ends, way = _ends(node, codes, 1), _window(node)
    if isinstance(ends, str):
        return ends
    ceil, include = bool(attribute(node, "ceil_mode", 0)), bool(attribute(node, "count_include_pad", 0))
    rest = way.kernel, way.strides, _pads(way), ceil, include
    return [p.AveragePool(title(node), ends[0], (ends[1],), *rest)]


def global_average_pool(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """GlobalAveragePool."""
    ends = _ends(node, codes, 1)
    return ends if isinstance(ends, str) else [p.GlobalAveragePool(title(node), ends[0], (ends[1],))]


def softmax(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Softmax along one axis."""
    ends = _ends(node, codes, 1)
    if isinstance(ends, str):
        return ends
    (x,), y = ends
    if codes.tensors[x].itype != INT8 or codes.tensors[y].itype != INT8:
        return "a Softmax of 16-bit codes has no integer kernel"
    return [p.Softmax(title(node), (x,), (y,), attribute(node, "axis", -1))]


def concat(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Concat; inputs of another scale than the output get a table."""
    ends = _ends(node, codes, len(node.inputs))
    if isinstance(ends, str):
        return ends
    inputs, y = ends
    tables = tuple(requantize_table(codes.tensors[x], codes.tensors[y]) for x in inputs)
    return [p.Concat(title(node), inputs, (y,), attribute(node, "axis"), tables)]


def reshape(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Reshape to a constant shape, or to one that other nodes compute."""
    target_value = input_at(node, 1)
    shape = constant(target_value)
    if shape is None:
        lengths = str(target_value.name) if target_value is not None else ""
        return _carry(node, codes, lambda x, y: p.ReshapeTo(title(node), (*x, lengths), y))
    target = tuple(int(d) for d in shape)
    return _carry(node, codes, lambda x, y: p.Reshape(title(node), x, y, target))


def flatten(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Flatten."""
    return _carry(node, codes, lambda x, y: p.Flatten(title(node), x, y, attribute(node, "axis", 1)))


def squeeze(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Squeeze of constant axes, or of all that have length 1."""
    axes = constant(input_at(node, 1))
    chosen = None if axes is None else tuple(int(a) for a in axes.reshape(-1))
    return _carry(node, codes, lambda x, y: p.Squeeze(title(node), x, y, chosen))


def unsqueeze(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Unsqueeze at constant axes."""
    axes = constant(input_at(node, 1))
    assert axes is not None
    chosen = tuple(int(a) for a in axes.reshape(-1))
    return _carry(node, codes, lambda x, y: p.Unsqueeze(title(node), x, y, chosen))


def transpose(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Transpose; without a perm the axes are reversed, which needs a known rank."""
    perm = ints(node, "perm")
    if perm is None:
        shape = dims(node.inputs[0])
        assert shape is not None
        perm = tuple(reversed(range(len(shape))))
    chosen = perm
    return _carry(node, codes, lambda x, y: p.Transpose(title(node), x, y, chosen))


def slice_(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Slice with constant bounds."""
    given = [constant(v) for v in node.inputs[1:]]
    starts, ends, axes, steps = (
        None if i >= len(given) or given[i] is None else [int(v) for v in given[i]]  # type: ignore[union-attr]
        for i in range(4)
    )
    assert starts is not None and ends is not None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    bounds = tuple(
        (axis, start, None if step < 0 and end < -(2**31) + 2 else end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    )
    return _carry(node, codes, lambda x, y: p.Slice(title(node), x, y, bounds))


def pad(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Pad by constant lengths; zeros are the zero point."""
    pads, axes = constant(input_at(node, 1)), constant(input_at(node, 3))
    shape = dims(node.inputs[0])
    assert pads is not None and shape is not None
    mode = attribute(node, "mode", "constant")
    chosen = range(len(shape)) if axes is None else [int(a) % len(shape) for a in axes]
    begin, end = [0] * len(shape), [0] * len(shape)
    for k, axis in enumerate(chosen):
        begin[axis], end[axis] = int(pads[k]), int(pads[len(pads) // 2 + k])
    x = codes.read(node.inputs[0])
    if x is None:
        return "its input is not codes"
    info = codes.tensors[x]
    return _carry(node, codes, lambda x, y: p.Pad(title(node), x, y, (*begin, *end), mode, info.zero_point))


def as_table(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """A function of one number: it becomes a table with the float nodes around it, where it can (`islands`)."""
    ends = _ends(node, codes, 1)
    return ends if isinstance(ends, str) else "a function without an integer kernel"


def clip_codes(node: ir.Node, codes: CodeTensors) -> list[p.Op] | None:
    """A Clip of codes, not of floats: how codes of fewer than eight bits are cut off. None for any other node."""
    q = quantizer(node.outputs[0])
    if q is None or q is node or node.inputs[0] is None or node.inputs[0].producer() is not q:
        return None
    info = codes.describe(q)
    if info is None:
        return None
    x, y = str(q.outputs[0].name), str(node.outputs[0].name)
    codes.tensors.setdefault(x, info)
    codes.tensors.setdefault(y, info)
    bounds = [constant(input_at(node, i)) for i in (1, 2)]
    lo, hi = (None if bound is None else int(p.canonical(bound.reshape(1))[0]) for bound in bounds)
    return [p.Lookup(title(node), (x,), (y,), np.clip(p.all_codes(info.itype), lo, hi), p.CLIP_CODES)]


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
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Slice": slice_,
    "Pad": pad,
}


def requantize_table(x: p.TensorInfo, y: p.TensorInfo) -> NDArray[np.integer] | None:
    """Codes of `x` as codes of `y`, through float32 as ONNX does it; None if the two are the same."""
    return None if x.params == y.params else quantize(dequantize(p.all_codes(x.itype), x.params), y.params)


def _carry(
    node: ir.Node, codes: CodeTensors, make: Callable[[tuple[str, ...], tuple[str, ...]], p.Op]
) -> list[p.Op] | str:
    """An operation that carries codes; followed by a table where the output has another scale."""
    ends = _ends(node, codes, 1)
    if isinstance(ends, str):
        return ends
    (x,), y = ends
    table = requantize_table(codes.tensors[x], codes.tensors[y])
    if table is None:
        return [make((x,), (y,))]
    between = codes.names.fresh(f"{y}_before")
    codes.tensors[between] = replace(codes.tensors[x], shape=codes.tensors[y].shape)
    name = codes.node_names.fresh(f"{title(node)}_requantize")
    return [make((x,), (between,)), p.Lookup(name, (between,), (y,), table, p.REQUANTIZE)]


def _ends(
    node: ir.Node, codes: CodeTensors, count: int, *, to_float: bool = False
) -> tuple[tuple[str, ...], str] | str:
    """The codes that the first `count` inputs and the output of `node` are; or why they are not.

    With `to_float` an output that no QuantizeLinear reads will do: it is a float tensor, and not in `codes.tensors`.
    """
    names = [codes.read(value) for value in node.inputs[:count]]
    value = node.outputs[0]
    output = codes.written(value)
    if None in names:
        return f"its input {names.index(None)} is not codes of one scale"
    if output is None and to_float and not any(is_op(use.node, "QuantizeLinear") for use in value.uses()):
        output = value.name
    if output is None:
        return "its output is not quantized, or is also read in float"
    return tuple(str(n) for n in names), output


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
