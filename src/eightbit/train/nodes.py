"""ONNX's nodes in functions that have a gradient: a rule each.

A rule takes the functions of a framework, the node's attributes and its inputs: tensors, or NumPy arrays of what
depends on constants and shapes alone. It gives a tensor, or a list of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx

from eightbit.errors import QuantizationError
from eightbit.train.ops import Ops, Taps, Tensor

Value = Any
"""A tensor of the framework, or a NumPy array of what needs no gradient."""
Rule = Callable[..., Value]


def _tensor(ops: Ops, value: Value) -> Tensor:
    return ops.constant(value) if isinstance(value, np.ndarray) else value


def _known(value: Value, node: str) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    raise QuantizationError(f"{node}: a shape or index that depends on the data cannot be trained through")


def _two(function: Callable[[Value, Value], Value]) -> Rule:
    return lambda ops, attributes, a, b: function(_tensor(ops, a), _tensor(ops, b))


def _one(name: str) -> Rule:
    return lambda ops, attributes, x: ops.unary(name, _tensor(ops, x))


def _power(ops: Ops, attributes: dict[str, Any], x: Value, exponent: Value) -> Value:
    n = _known(exponent, "Pow")
    if n.size != 1:
        raise QuantizationError(f"Pow with exponents of shape {n.shape} cannot be trained through")
    return _tensor(ops, x) ** float(n.item())


def _axes(attributes: dict[str, Any], given: Value, rank: int) -> list[int]:
    axes = attributes.get("axes") if given is None else _known(given, "axes").reshape(-1).tolist()
    return [int(a) % rank for a in (range(rank) if axes is None else axes)]


def _reduce(mean: bool) -> Rule:
    def rule(ops: Ops, attributes: dict[str, Any], x: Value, axes: Value = None) -> Value:
        tensor = _tensor(ops, x)
        shape = ops.shape(tensor)
        chosen = _axes(attributes, axes, len(shape))
        total = ops.total(tensor, chosen)
        total = total / float(np.prod([shape[a] for a in chosen])) if mean else total
        if attributes.get("keepdims", 1):
            return total
        return ops.reshaped(total, [d for i, d in enumerate(shape) if i not in chosen])

    return rule


def _layer_norm(ops: Ops, attributes: dict[str, Any], x: Value, scale: Value, bias: Value = None) -> Value:
    tensor = _tensor(ops, x)
    shape = ops.shape(tensor)
    axes = list(range(attributes.get("axis", -1) % len(shape), len(shape)))
    count = float(np.prod([shape[a] for a in axes]))
    centred = tensor - ops.total(tensor, axes) / count
    spread = ops.unary("Sqrt", ops.total(centred * centred, axes) / count + attributes.get("epsilon", 1e-5))
    y = centred / spread * _tensor(ops, scale)
    return y if bias is None else y + _tensor(ops, bias)


def _gelu(ops: Ops, attributes: dict[str, Any], x: Value) -> Value:
    t = _tensor(ops, x)
    if attributes.get("approximate", b"none") == b"tanh":
        return 0.5 * t * (1.0 + ops.unary("Tanh", math.sqrt(2 / math.pi) * (t + 0.044715 * t * t * t)))
    return 0.5 * t * (1.0 + ops.unary("Erf", t * math.sqrt(0.5)))


def _clip(ops: Ops, attributes: dict[str, Any], x: Value, lo: Value = None, hi: Value = None) -> Value:
    low = -math.inf if lo is None else float(_known(lo, "Clip"))
    high = math.inf if hi is None else float(_known(hi, "Clip"))
    return ops.clipped(_tensor(ops, x), low, high)


def _hard_sigmoid(ops: Ops, attributes: dict[str, Any], x: Value) -> Value:
    line = _tensor(ops, x) * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5)
    return ops.clipped(line, 0.0, 1.0)


def _shape(ops: Ops, attributes: dict[str, Any], x: Value) -> Value:
    lengths = ops.shape(_tensor(ops, x))
    if not all(isinstance(n, int) for n in lengths):
        raise QuantizationError(
            "this model computes with the shape of its data, which is not known in a compiled step; "
            "use compile(run_eagerly=True)"
        )
    whole = np.array(lengths, np.int64)
    return whole[attributes.get("start", 0) : attributes.get("end", len(whole))]


def _reshape(ops: Ops, attributes: dict[str, Any], x: Value, shape: Value) -> Value:
    tensor = _tensor(ops, x)
    before = ops.shape(tensor)
    keep = not attributes.get("allowzero", 0)
    target = [
        before[i] if d == 0 and keep else int(d) for i, d in enumerate(_known(shape, "Reshape").tolist())
    ]
    return ops.reshaped(tensor, target)


def _flatten(ops: Ops, attributes: dict[str, Any], x: Value) -> Value:
    shape, axis = ops.shape(x), attributes.get("axis", 1)
    return ops.reshaped(x, (int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))))


def _transpose(ops: Ops, attributes: dict[str, Any], x: Value) -> Value:
    tensor = _tensor(ops, x)
    perm = attributes.get("perm") or list(reversed(range(len(ops.shape(tensor)))))
    return ops.transposed(tensor, perm)


def _squeeze(ops: Ops, attributes: dict[str, Any], x: Value, axes: Value = None) -> Value:
    tensor = _tensor(ops, x)
    shape = ops.shape(tensor)
    given = attributes.get("axes") if axes is None else _known(axes, "Squeeze").tolist()
    gone = [i for i, d in enumerate(shape) if d == 1] if given is None else [a % len(shape) for a in given]
    target = [d for i, d in enumerate(shape) if i not in gone]
    return ops.reshaped(tensor, target)


def _unsqueeze(ops: Ops, attributes: dict[str, Any], x: Value, axes: Value = None) -> Value:
    given = list(attributes["axes"]) if axes is None else _known(axes, "Unsqueeze").reshape(-1).tolist()
    tensor = _tensor(ops, x)
    shape = list(ops.shape(tensor))
    for axis in sorted(a % (len(shape) + len(given)) for a in given):
        shape.insert(axis, 1)
    return ops.reshaped(tensor, shape)


def _concat(ops: Ops, attributes: dict[str, Any], *parts: Value) -> Value:
    return ops.joined([_tensor(ops, x) for x in parts], attributes["axis"])


def _slice(
    ops: Ops,
    attributes: dict[str, Any],
    x: Value,
    starts: Value,
    ends: Value,
    axes: Value = None,
    steps: Value = None,
) -> Value:
    tensor = _tensor(ops, x)
    first, last = _known(starts, "Slice").tolist(), _known(ends, "Slice").tolist()
    chosen = list(range(len(first))) if axes is None else _known(axes, "Slice").tolist()
    step = [1] * len(first) if steps is None else _known(steps, "Slice").tolist()
    if min(step) < 0:
        raise QuantizationError("a Slice that runs backwards cannot be trained through")
    index = [slice(None)] * len(ops.shape(tensor))
    for a, s, e, k in zip(chosen, first, last, step, strict=True):
        index[a] = slice(s, e, k)
    return tensor[tuple(index)]


def _gather(ops: Ops, attributes: dict[str, Any], x: Value, index: Value) -> Value:
    axis = attributes.get("axis", 0)
    if axis == 0 and isinstance(x, np.ndarray):
        return ops.picked(ops.constant(x), index)
    return ops.taken(_tensor(ops, x), _known(index, "Gather"), axis)


def _split(ops: Ops, attributes: dict[str, Any], x: Value, sizes: Value = None) -> list[Value]:
    shape, axis = ops.shape(x), attributes.get("axis", 0)
    count = attributes.get("num_outputs")
    if sizes is None:
        each = -(-shape[axis] // (count or 1))
        lengths = [each] * (shape[axis] // each) + ([shape[axis] % each] if shape[axis] % each else [])
    else:
        lengths = _known(sizes, "Split").tolist()
    bounds = np.cumsum([0, *lengths]).tolist()
    index = [slice(None)] * (axis % len(shape))
    return [x[(*index, slice(a, b))] for a, b in pairwise(bounds)]


def _gemm(ops: Ops, attributes: dict[str, Any], a: Value, b: Value, c: Value = None) -> Value:
    x, w = _tensor(ops, a), _tensor(ops, b)
    x = ops.transposed(x, (1, 0)) if attributes.get("transA", 0) else x
    w = ops.transposed(w, (1, 0)) if attributes.get("transB", 0) else w
    y = ops.product(x, w, exact=False) * attributes.get("alpha", 1.0)
    return y if c is None else y + _tensor(ops, c) * attributes.get("beta", 1.0)


def _conv(ops: Ops, attributes: dict[str, Any], x: Value, w: Value, bias: Value = None) -> Value:
    weight = _tensor(ops, w)
    axes = len(ops.shape(weight)) - 2
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or axes > 2:
        raise QuantizationError(
            "a Conv in float with auto_pad, or over three axes, cannot be trained through"
        )
    ones = (1,) * axes
    taps = Taps(
        tuple(attributes.get("strides", ones)),
        tuple(attributes.get("pads", (0,) * 2 * axes)),
        tuple(attributes.get("dilations", ones)),
        attributes.get("group", 1),
    )
    return ops.convolved(x, weight, None if bias is None else _tensor(ops, bias), taps, exact=False)


def _cast(ops: Ops, attributes: dict[str, Any], x: Value) -> Value:
    if attributes["to"] != onnx.TensorProto.FLOAT:
        raise QuantizationError("a Cast of data to another type than float32 cannot be trained through")
    return ops.floats(_tensor(ops, x))


def _dequantize(ops: Ops, attributes: dict[str, Any], q: Value, scale: Value, zero: Value = None) -> Value:
    codes, axis = _known(q, "DequantizeLinear").astype(np.float32), attributes.get("axis", 1)
    if attributes.get("block_size", 0):
        raise QuantizationError("weights with a scale for each group cannot be trained; use PerChannel()")
    shape = [1] * codes.ndim
    if np.ndim(scale) == 1 and np.size(scale) > 1:
        shape[axis] = -1
    offset = 0.0 if zero is None else np.asarray(zero, np.float32).reshape(shape if np.size(zero) > 1 else ())
    return ((codes - offset) * np.asarray(scale, np.float32).reshape(shape)).astype(np.float32)


def _same(ops: Ops, attributes: dict[str, Any], x: Value, *others: Value) -> Value:
    return x


def _sum(ops: Ops, attributes: dict[str, Any], *parts: Value) -> Value:
    total = _tensor(ops, parts[0])
    for part in parts[1:]:
        total = total + _tensor(ops, part)
    return total


def _expand(ops: Ops, attributes: dict[str, Any], x: Value, shape: Value) -> Value:
    tensor = _tensor(ops, x)
    target = np.broadcast_shapes(ops.shape(tensor), tuple(_known(shape, "Expand").tolist()))
    return tensor * ops.constant(np.ones(target, np.float32))


def _where(ops: Ops, attributes: dict[str, Any], condition: Value, a: Value, b: Value) -> Value:
    return ops.chosen(_tensor(ops, condition), _tensor(ops, a), _tensor(ops, b))


FROZEN = ("DequantizeLinear",)
"""Weights that stay as they are: known, but for a rule, which says which of them are not trained."""
UNARY: Sequence[str] = (
    *("Abs", "Neg", "Exp", "Log", "Sqrt", "Erf", "Tanh", "Sigmoid", "Relu", "Reciprocal", "Softplus"),
    *("HardSwish", "Mish"),
)
RULES: dict[str, Rule] = {
    **{name: _one(name) for name in UNARY},
    "Add": _two(lambda a, b: a + b),
    "Sub": _two(lambda a, b: a - b),
    "Mul": _two(lambda a, b: a * b),
    "Div": _two(lambda a, b: a / b),
    "Pow": _power,
    "MatMul": lambda ops, attributes, a, b: ops.product(_tensor(ops, a), _tensor(ops, b), False),
    "Gemm": _gemm,
    "Conv": _conv,
    "Softmax": lambda ops, attributes, x: ops.softmax(x, attributes.get("axis", -1)),
    "ReduceMean": _reduce(mean=True),
    "ReduceSum": _reduce(mean=False),
    "LayerNormalization": _layer_norm,
    "Gelu": _gelu,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Sum": _sum,
    "Identity": _same,
    "Dropout": _same,
    "Shape": _shape,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Expand": _expand,
    "Where": _where,
    "Cast": _cast,
    "DequantizeLinear": _dequantize,
}
