"""What of a quantized model can be learned: its integer program, with names for every number that may change.

In: the QDQ graph, the integer program lowered from it and the recipe. Out: a `Plan`: the same operations, and the
values to start from. A layer's weight and bias become float32 numbers that are rounded in every run, with the codes
that post-training quantization found as their first values; a tensor's scale becomes a number, too. `write` puts
learned numbers back into the graph: the integers that were trained are the integers that run.

A scale is learned as the logarithm of its ratio to the one it starts from: a step of the optimizer is then a relative
one, whatever the size of the scale, none can become zero or negative, and what is not trained is unchanged.
Source: Jain et al. 2019, arXiv 1903.08066 (thresholds in the log domain); Esser et al. 2020, arXiv 1902.08153 (the
gradient of a step size).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.arith.affine import IntType, QuantParams
from eightbit.errors import QuantizationError
from eightbit.graph.coded import code_tensors
from eightbit.graph.model import attribute, constant, input_at, is_op, set_constant
from eightbit.graph.processor import METADATA
from eightbit.graph.sparse import sparse_layers
from eightbit.integer import program as p
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.encode.weights import bias_codes
from eightbit.quant.methods.rounding import Nearest

Array = NDArray[np.float32]
Values = Mapping[str, Array]
LAYERS = (p.Conv, p.Gemm, p.GemmToFloat)
STATELESS = (p.CLIP_CODES, p.REQUANTIZE)
"""Kinds of Lookup that follow a learned scale: they are computed from the scales, or need none."""


@dataclass(frozen=True)
class Grid:
    """A tensor of codes: the key of its scale, its zero point, and the limits of `code - zero_point`."""

    scale: str
    zero_point: int
    lo: int
    hi: int


@dataclass(frozen=True)
class Layer:
    """Keys of a layer's numbers, and the type of its weight codes; `bias` is None where there is none."""

    weight: str
    scale: str
    bias: str | None
    itype: IntType


@dataclass(frozen=True, eq=False)
class Plan:
    """A program to be learned. `start` has the first value for each key, float32: weights, biases, scales.

    What is learned is a number for each, zero at first: a scale is `start * exp(number)`, a weight or bias is
    `start + number * unit`.

    `fixed` are keys of scales that stay: those on either side of a table or of constant codes, and known limits.
    """

    graph: ir.Model
    program: p.Program
    grids: Mapping[str, Grid]
    layers: Mapping[str, Layer]
    start: Values
    units: Values
    fixed: frozenset[str]

    @property
    def learned(self) -> tuple[str, ...]:
        """The keys of everything that may change."""
        return tuple(key for key in self.start if key not in self.fixed)


def plan(graph: ir.Model, program: p.Program, recipe: Recipe) -> Plan:
    """What of the QDQ `graph`, whose integer program is `program`, can be learned.

    Raises QuantizationError for a model without layers on calibrated codes: weight-only and dynamic ones.
    """
    nodes = {str(node.name): node for node in graph.graph}
    start: dict[str, Array] = {}
    units: dict[str, Array] = {}
    grids: dict[str, Grid] = {}
    fixed: set[str] = set()
    sparse = sparse_layers(graph)
    scale_of = _scale_names(graph, program)
    for name, info in program.tensors.items():
        key = f"scale:{scale_of[name]}"
        start[key] = np.asarray(info.scale, np.float32)
        grids[name] = Grid(
            key, info.zero_point, info.itype.qmin - info.zero_point, info.itype.qmax - info.zero_point
        )
    layers: dict[str, Layer] = {}
    for op in program.ops:
        if isinstance(op, LAYERS):
            layers[op.name] = _layer(op, nodes[op.name], recipe, (start, units), program)
            if op.name in sparse:  # zeros of a pruned layer stay
                key = layers[op.name].weight
                units[key] = np.where(op.weight == 0, np.float32(0), units[key])
        fixed |= {grids[name].scale for name in _unlearned(op) if name in grids}
    fixed |= {grids[name].scale for name in program.constants if name in grids}
    if not layers:
        raise QuantizationError(
            "this model has no layer between calibrated codes to train: quantize its activations statically, that is "
            "with Activations() that are neither FLOAT nor dynamic"
        )
    return Plan(graph, program, grids, layers, start, units, frozenset(fixed))


def _layer(
    op: p.Conv | p.Gemm | p.GemmToFloat,
    node: ir.Node,
    recipe: Recipe,
    numbers: tuple[dict[str, Array], dict[str, Array]],
    program: p.Program,
) -> Layer:
    """The keys of one layer, with first values and units in `numbers`; layers that share constants share keys.

    A weight's unit is the largest weight of its channel, and a bias's what that weight can add to the sum: so one
    learning rate fits every layer, at every number of bits.
    """
    start, units = numbers
    codes, scale = _dequantizer(node, 1).inputs[:2]
    stored = constant(scale)
    assert codes is not None and scale is not None and stored is not None
    itype = recipe.for_layer(op.name, node.op_type).weights.itype
    keys = Layer(f"weight:{codes.name}", f"scale:{scale.name}", None, itype)
    steps = op.weight_scale.reshape(beside_weight(op.weight.ndim))
    start[keys.weight] = (op.weight * steps).astype(np.float32)
    units[keys.weight] = (itype.qmax * steps).astype(np.float32)
    start[keys.scale] = stored.astype(np.float32)
    if op.bias.any() or input_at(node, 2) is not None:
        x = program.tensors[op.inputs[0]]
        bias = _dequantizer(node, 2).inputs[0]
        assert bias is not None
        # A file may store equal constants once, and biases of two layers may be equal (all zero): only tied layers tie
        # them.
        keys = Layer(keys.weight, keys.scale, f"bias:{codes.name}:{bias.name}", itype)
        unit = np.float64(x.scale) * op.weight_scale
        start[str(keys.bias)] = (op.bias * unit).astype(np.float32)
        units[str(keys.bias)] = (unit * itype.qmax * (x.itype.qmax - x.itype.qmin)).astype(np.float32)
    return keys


def beside_weight(axes: int) -> tuple[int, ...]:
    """The shape in which scales (C,) broadcast with a weight: (C, I, ...) of a convolution, (K, C) of a product."""
    return (1, -1) if axes == 2 else (-1,) + (1,) * (axes - 1)


def beside_sums(axes: int) -> tuple[int, ...]:
    """The shape in which they broadcast with what a weight of that many axes makes: (N, C, ...), or (..., C)."""
    return (-1,) if axes == 2 else (1, -1) + (1,) * (axes - 2)


def _dequantizer(node: ir.Node, index: int) -> ir.Node:
    """The DequantizeLinear that feeds constant codes to input `index` of a layer."""
    value = node.inputs[index]
    dq = None if value is None else value.producer()
    if dq is None or not is_op(dq, "DequantizeLinear"):
        raise QuantizationError(
            f"node {node.name!r} ({node.op_type}): input {index} is not codes with a scale"
        )
    return dq


def _scale_names(graph: ir.Model, program: p.Program) -> dict[str, str]:
    """The name of the scale in the graph for every tensor of codes in the program."""
    found: dict[str, str] = {}
    for node in graph.graph:
        if is_op(node, "QuantizeLinear") or is_op(node, "DequantizeLinear"):
            codes = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
            if codes is not None and node.inputs[1] is not None:
                found.setdefault(str(codes.name), str(node.inputs[1].name))
    for op in program.ops:  # a tensor that only the program has was made by carrying another
        for name in op.outputs:
            if name in program.tensors and name not in found:
                found[name] = found[op.inputs[0]]
    return found


def _unlearned(op: p.Op) -> tuple[str, ...]:
    """Tensors whose scale a learned one could not follow: the ends of a table, and outputs with known limits."""
    if isinstance(op, p.Lookup) and op.kind not in STATELESS:
        return (*op.inputs, *op.outputs)
    return op.outputs if isinstance(op, p.Softmax) else ()


def write(plan: Plan, values: Values) -> ir.Model:
    """A copy of the plan's graph with the integers that `values` stand for: of the same kinds as `start`.

    Weights are rounded to codes, biases to int32 in steps of s_x s_w, as they were in every run of the training.
    """
    graph = plan.graph.clone()
    graph.metadata_props.pop(METADATA, None)  # what training moved may be too large in pairs again
    nodes = {str(node.name): node for node in graph.graph}
    for key in dict.fromkeys(grid.scale for grid in plan.grids.values()):
        value = graph.graph.initializers[key.removeprefix("scale:")]
        old = constant(value)
        assert old is not None
        value.const_value = ir.tensor(np.asarray(values[key], np.float32).reshape(old.shape), name=value.name)
    for op in plan.program.ops:
        if not isinstance(op, LAYERS):
            continue
        keys, node = plan.layers[op.name], nodes[op.name]
        s_w = np.asarray(values[keys.scale], np.float32)
        steps = s_w.reshape(beside_weight(op.weight.ndim)) if s_w.ndim else s_w
        codes = Nearest().codes(values[keys.weight], steps, keys.itype)
        in_graph = codes.T if node.op_type == "Gemm" and attribute(node, "transB", 0) else codes
        dq = _dequantizer(node, 1)
        set_constant(dq, 0, np.ascontiguousarray(in_graph).astype(op.weight.dtype))
        set_constant(dq, 1, s_w)
        if keys.bias is None:
            continue
        dq = _dequantizer(node, 2)
        old = constant(dq.inputs[1])
        assert old is not None
        s_x = np.float32(values[plan.grids[op.inputs[0]].scale])
        steps = np.broadcast_to(s_x * s_w, op.weight_scale.shape).astype(np.float32)
        set_constant(dq, 0, bias_codes(values[keys.bias], steps))  # in float32, as it was trained
        set_constant(dq, 1, steps[0] if old.ndim == 0 else steps)
    return graph


def learned_params(graph: ir.Model, before: Mapping[str, QuantParams]) -> dict[str, QuantParams]:
    """The parameters of a report, `before` the training, with the scales that the graph has now."""
    found = dict(before)
    for name, _, q in code_tensors(graph.graph):
        scale = constant(q.inputs[1])
        if scale is not None and name in before:
            found[name] = QuantParams(scale.reshape(()), before[name].zero_point, before[name].itype)
    return found
