"""Linear layers absorb the affine maps that follow them.

With s and t per output channel, `s (W x + b) + t = (s W) x + (s b + t)`: a BatchNormalization
(s = gamma / sqrt(var + eps), t = beta - mean s), a Mul or an Add with a constant cost nothing
after a Conv, ConvTranspose or Gemm. Products are taken in float64 and rounded to float32 once.
Source: Jacob et al. 2018, section 3.2 (batch normalization folding).
Where no layer is before them, factors that follow each other become one.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eightbit.graph.functions import single
from eightbit.graph.model import (
    add_constant,
    attribute,
    bypass,
    constant,
    input_at,
    is_op,
    rank,
    replace_node,
    set_constant,
    sole_consumer,
)
from eightbit.graph.names import unique_name, unique_node_name

LINEAR = ("Conv", "ConvTranspose", "Gemm")


def fold_batchnorm(model: ir.Model) -> int:
    """Fold BatchNormalization into the layer before it, else write it as Mul and Add; returns how many."""
    count = 0
    for node in list(model.graph):
        if (
            not is_op(node, "BatchNormalization")
            or attribute(node, "training_mode", 0)
            or len(node.outputs) != 1
        ):
            continue
        parameters = [constant(v) for v in node.inputs[1:5]]
        if any(p is None for p in parameters):
            continue
        gamma, beta, mean, variance = (p.astype(np.float64) for p in parameters if p is not None)
        scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        shift = beta - mean * scale
        source = node.inputs[0]
        assert source is not None
        layer = layer_before(source)
        if layer is not None and len(scale) == _channels(layer):
            absorb(layer, scale, shift)
            bypass(node, source)
            count += 1
        elif (axes := rank(source)) is not None and axes >= 2:
            _as_mul_add(node, source, scale, shift, axes)
            count += 1
    return count


def fold_constant_affine(model: ir.Model) -> int:
    """Fold Mul, Div, Add and Sub with a per-channel constant into the layer before; returns how many."""
    count = 0
    for node in list(model.graph):
        if not is_op(node, "Mul", "Div", "Add", "Sub"):
            continue
        for index in (0, 1):
            source, operand = node.inputs[index], constant(node.inputs[1 - index])
            if source is None or operand is None or (index == 1 and node.op_type == "Div"):
                continue
            layer = layer_before(source)
            vector = None if layer is None else _per_channel(operand, layer)
            if layer is None or vector is None:
                continue
            scale, shift = np.ones_like(vector), np.zeros_like(vector)
            if node.op_type in ("Mul", "Div"):
                scale = vector if node.op_type == "Mul" else 1 / vector
                if not np.isfinite(scale).all():
                    continue
            else:
                shift = vector if node.op_type == "Add" or index == 1 else -vector
                scale = -scale if node.op_type == "Sub" and index == 1 else scale
            if bypass(node, source):
                absorb(layer, scale, shift)
                count += 1
            break
    return count


def merge_factors(model: ir.Model) -> int:
    """Write Mul and Div by one number, behind another one that is read by nothing else, as one Mul; returns how many.

    Exporters spell a scaled HardSwish `x clip(x + 3, 0, 6) / 6 * a`: every factor is a pass over the tensor in float.
    Numbers whose product float32 does not hold as a normal number stay apart.
    """
    count = 0
    for node in list(model.graph):
        second = _factor(node)
        before = None if second is None else second[0].producer()
        first = None if before is None else _factor(before)
        if second is None or first is None or before is None or sole_consumer(second[0]) is not node:
            continue
        factor = np.float64(first[1]) * second[1]
        if not np.finfo(np.float32).tiny <= abs(factor) <= np.finfo(np.float32).max:
            continue
        merged = add_constant(model.graph, f"{node.name}.factor", np.array(factor, np.float32))
        replace_node(node, ir.node("Mul", [first[0], merged], name=node.name))
        model.graph.remove(before, safe=True)
        count += 1
    return count


def _factor(node: ir.Node) -> tuple[ir.Value, float] | None:
    """The tensor that a Mul or Div by one number reads, and what it multiplies by; None for other nodes."""
    for index in (0, 1) if is_op(node, "Mul") else (0,) if is_op(node, "Div") else ():
        source, operand = node.inputs[index], constant(node.inputs[1 - index])
        if source is None or constant(source) is not None or operand is None or operand.dtype != np.float32:
            continue
        if single(operand, source) and (number := float(operand.item())):
            return source, number if node.op_type == "Mul" else 1 / number
    return None


def matmul_to_gemm(model: ir.Model) -> int:
    """Write MatMul of a rank-2 tensor and a constant matrix as Gemm, weight (out, in); returns how many."""
    count = 0
    for node in list(model.graph):
        if not is_op(node, "MatMul") or rank(node.inputs[0]) != 2 or constant(node.inputs[0]) is not None:
            continue
        weight = constant(node.inputs[1])
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
            continue
        set_constant(node, 1, weight.T)
        gemm = ir.node("Gemm", node.inputs, {"transB": 1, "alpha": 1.0, "beta": 1.0}, name=node.name)
        replace_node(node, gemm)
        count += 1
    return count


def normalize_gemm(model: ir.Model) -> int:
    """Bring constant-weight Gemm to alpha = beta = 1, transB = 1, bias of shape (out,); returns how many."""
    count = 0
    for node in model.graph:
        if not is_op(node, "Gemm"):
            continue
        weight, bias = constant(node.inputs[1]), constant(input_at(node, 2))
        alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
        has_bias = input_at(node, 2) is not None
        if weight is None or (has_bias and (bias is None or (bias.ndim == 2 and bias.shape[0] > 1))):
            continue
        out = weight.shape[0 if attribute(node, "transB", 0) else 1]
        plain = attribute(node, "transB", 0) == 1 and alpha == 1 and (not has_bias or beta == 1)
        if plain and (bias is None or bias.shape == (out,)):
            continue
        laid = weight if attribute(node, "transB", 0) else weight.T
        set_constant(node, 1, (laid * np.float64(alpha)).astype(weight.dtype))
        if bias is not None:
            vector = np.broadcast_to(bias.reshape(-1) * np.float64(beta), (out,))
            set_constant(node, 2, vector.astype(weight.dtype))
        for name, value in (("transB", 1), ("alpha", 1.0), ("beta", 1.0)):
            node.attributes[name] = ir.convenience.convert_attribute(name, value)
        count += 1
    return count


def unshare_biases(model: ir.Model) -> int:
    """Give each layer its own bias tensor: exporters merge equal ones, but their int32 scales differ."""
    count = 0
    for node in list(model.graph):
        value = input_at(node, 2)
        if is_op(node, *LINEAR) and value is not None and value.is_initializer() and len(value.uses()) > 1:
            bias = constant(value)
            assert bias is not None
            set_constant(node, 2, bias, stem=f"{node.name}.bias")
            count += 1
    return count


def layer_before(value: ir.Value) -> ir.Node | None:
    """The layer with constant float weights whose only reader is the caller's node."""
    layer = value.producer()
    if layer is None or not is_op(layer, *LINEAR) or sole_consumer(value) is None:
        return None
    weight = constant(layer.inputs[1])
    if weight is None or weight.dtype != np.float32:
        return None
    bias = constant(input_at(layer, 2))
    if bias is None and input_at(layer, 2) is not None:
        return None
    if layer.op_type == "Gemm":
        plain = attribute(layer, "alpha", 1.0) == 1 and attribute(layer, "beta", 1.0) == 1
        if not plain or not attribute(layer, "transB", 0) or (bias is not None and bias.ndim != 1):
            return None
    return layer


def _channels(layer: ir.Node) -> int:
    weight = constant(layer.inputs[1])
    assert weight is not None
    if layer.op_type == "ConvTranspose":
        return int(weight.shape[1]) * int(attribute(layer, "group", 1))
    return int(weight.shape[0])


def _per_channel(operand: np.ndarray, layer: ir.Node) -> np.ndarray | None:
    """`operand` as a float64 vector over output channels (axis 1), or None if it varies elsewhere."""
    weight = constant(layer.inputs[1])
    assert weight is not None
    axes = 2 if layer.op_type == "Gemm" else weight.ndim
    channels = _channels(layer)
    if operand.ndim > axes or operand.dtype != np.float32:
        return None
    shape = (1,) * (axes - operand.ndim) + operand.shape
    if any(size != 1 and axis != 1 for axis, size in enumerate(shape)) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(operand.reshape(-1).astype(np.float64), (channels,))


def absorb(layer: ir.Node, scale: np.ndarray, shift: np.ndarray) -> None:
    """Let a layer compute `scale * itself + shift`, both (output channels,), in place."""
    weight, bias = constant(layer.inputs[1]), constant(input_at(layer, 2))
    assert weight is not None
    if not (scale == 1).all():
        if layer.op_type == "ConvTranspose":  # weight (in, out/group, ...): groups split the in axis
            group = int(attribute(layer, "group", 1))
            grouped = weight.reshape(group, weight.shape[0] // group, weight.shape[1], -1)
            scaled = (grouped * scale.reshape(group, 1, -1, 1)).reshape(weight.shape)
        else:
            scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        set_constant(layer, 1, scaled.astype(np.float32))
    total = scale * (0 if bias is None else bias.astype(np.float64)) + shift
    if bias is not None or total.any():
        set_constant(layer, 2, total.astype(np.float32), stem=f"{layer.name}.bias")


def _as_mul_add(node: ir.Node, source: ir.Value, scale: np.ndarray, shift: np.ndarray, axes: int) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    shape = (1, -1, *[1] * (axes - 2))
    factor = add_constant(graph, f"{node.name}.scale", scale.astype(np.float32).reshape(shape))
    offset = add_constant(graph, f"{node.name}.shift", shift.astype(np.float32).reshape(shape))
    mul = ir.node("Mul", [source, factor], name=unique_node_name(graph, f"{node.name}.mul"))
    mul.outputs[0].name, mul.outputs[0].shape = unique_name(graph, f"{node.name}.mul"), node.outputs[0].shape
    mul.outputs[0].dtype = ir.DataType.FLOAT
    replace_node(node, [mul, ir.node("Add", [mul.outputs[0], offset], name=node.name)])
