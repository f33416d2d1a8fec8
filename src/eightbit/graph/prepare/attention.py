"""Biases that attention does not need: those of the keys, and those of the values.

Attention weighs values by likeness of queries and keys, `softmax(q k^T + mask) v`, with weights that sum to 1 over the
keys. With a bias on keys and on values,

    q (k + b)^T = q k^T + q b^T         one number a query, alike for every key: Softmax does not see it            (1)
    P (v + c) = P v + c                 because each row of P sums to 1: c can go through the next layer            (2)

So b goes, and c moves through the output projection W into its bias, which becomes `W c + bias`. Both are exact, up to
the rounding of floats. A bias is cheap in theory: a number that the accumulator starts with. But ONNX Runtime writes it
to every row of the accumulators before it multiplies, on one thread: a fifth of the time of a small layer on two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from eightbit.graph.model import attribute, constant, dims, input_at, ints, is_op, rank, sole_consumer
from eightbit.graph.prepare.affine_layers import absorb
from eightbit.graph.prepare.rows import CARRIERS


@dataclass(frozen=True)
class _Channels:
    """Where the output channels of a Gemm lie in a tensor made from its output.

    `lengths` are the factors that the channels were split into, slowest first; `axes` has for each axis of the tensor
    the number of the factor that lies there, or None.
    """

    lengths: tuple[int, ...]
    axes: tuple[int | None, ...]

    def behind(self, node: ir.Node) -> _Channels | None:
        """Behind a Reshape or Transpose; None where the channels cannot be followed."""
        if is_op(node, "Transpose"):
            perm = ints(node, "perm") or tuple(reversed(range(len(self.axes))))
            return _Channels(self.lengths, tuple(self.axes[axis] for axis in perm))
        shape, parts = dims(node.outputs[0]), len(self.lengths)
        if not is_op(node, "Reshape") or shape is None or self.axes[-parts:] != tuple(range(parts)):
            return None
        for count in range(1, len(shape)):  # the fewest last axes that hold all channels in their order
            lengths = shape[-count:]
            if None not in lengths and np.prod(lengths) == np.prod(self.lengths):  # type: ignore[arg-type]
                axes = (*[None] * (len(shape) - count), *range(count))
                return _Channels(tuple(d for d in lengths if d is not None), axes)
        return None


def fold_attention_biases(model: ir.Model) -> int:
    """Drop the biases of keys and move those of values behind the attention, in place; how many."""
    count = 0
    for node in model.graph:
        last = (rank(node.inputs[0]) or 0) - 1 if is_op(node, "Softmax") else 0
        if last > 0 and attribute(node, "axis", -1) in (-1, last):
            count += _drop_key_bias(node) + _move_value_bias(node)
    return count


def _drop_key_bias(softmax: ir.Node) -> int:
    """Equation (1), where the scores come from a MatMul, perhaps with masks added."""
    scores = softmax.inputs[0]
    while scores is not None and sole_consumer(scores) is not None and is_op(scores.producer(), "Add"):
        masked = scores.producer()
        assert masked is not None
        sums = [v for v in masked.inputs if v is not None and is_op(v.producer(), "MatMul", "Add")]
        scores = sums[0] if len(sums) == 1 and rank(sums[0]) == rank(softmax.inputs[0]) else None
    if scores is None or sole_consumer(scores) is None or not is_op(scores.producer(), "MatMul"):
        return 0
    found = _layer_behind(scores.producer(), 1)
    if found is None or found[1].axes[-1] is not None:  # a bias that differs from key to key
        return 0
    found[0].resize_inputs(2)
    return 1


def _move_value_bias(softmax: ir.Node) -> int:
    """Equation (2), where the weighted values reach a Gemm through Reshapes and Transposes alone."""
    matmul = sole_consumer(softmax.outputs[0])
    if not is_op(matmul, "MatMul") or matmul is None or matmul.inputs[0] is not softmax.outputs[0]:
        return 0
    found = _layer_behind(matmul, 1)
    if found is None or found[1].axes[-2] is not None or rank(matmul.outputs[0]) != len(found[1].axes):
        return 0
    layer, channels = found
    value, node = matmul.outputs[0], sole_consumer(matmul.outputs[0])
    while node is not None and is_op(node, *CARRIERS):
        moved = channels.behind(node)
        if moved is None or node.inputs[0] is not value:
            return 0
        channels, value, node = moved, node.outputs[0], sole_consumer(node.outputs[0])
    if node is None or not _is_linear(node) or node.inputs[0] is not value or channels.axes != (None, 0):
        return 0
    weight, bias = constant(node.inputs[1]), constant(layer.inputs[2])
    assert weight is not None and bias is not None
    absorb(node, np.ones(len(weight)), weight.astype(np.float64) @ bias.astype(np.float64))
    layer.resize_inputs(2)
    return 1


def _layer_behind(product: ir.Node | None, index: int) -> tuple[ir.Node, _Channels] | None:
    """The Gemm with a bias that makes input `index` of a MatMul and nothing else, and where its channels lie there."""
    assert product is not None
    value, carriers = product.inputs[index], []
    while value is not None and sole_consumer(value) is not None:
        node = value.producer()
        if node is not None and is_op(node, *CARRIERS):
            carriers.append(node)
            value = node.inputs[0]
            continue
        if node is None or not _is_linear(node) or input_at(node, 2) is None:
            return None
        weight = constant(node.inputs[1])
        assert weight is not None
        channels: _Channels | None = _Channels((len(weight),), (None, 0))
        for carrier in reversed(carriers):
            channels = None if channels is None else channels.behind(carrier)
        return None if channels is None else (node, channels)
    return None


def _is_linear(node: ir.Node) -> bool:
    """A Gemm `x W^T + bias` with a constant weight and no bias but a constant one for each channel."""
    if not is_op(node, "Gemm"):
        return False
    weight, bias = constant(node.inputs[1]), constant(input_at(node, 2))
    known = weight is not None and weight.dtype == np.float32
    has_own_bias = input_at(node, 2) is None or (bias is not None and bias.ndim == 1)
    factors = (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0))
    plain = factors == (1.0, 1.0) and not attribute(node, "transA", 0) and bool(attribute(node, "transB", 0))
    return known and has_own_bias and plain
