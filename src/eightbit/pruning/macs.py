"""What a graph costs: multiplications and additions (MACs) of each layer for one sample, and bytes of its weights.

What the lengths of free axes are, the data decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.data.feeds import Feeds
from eightbit.data.specs import specs
from eightbit.errors import CalibrationError
from eightbit.graph.model import constant, is_op
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Ops that multiply and add up."""


def sample_shapes(model: ir.Model, data: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs and outputs of all layers, by name, for the first sample of `data`.

    Without data the batch is 1. Raises CalibrationError where other axes are free and there are none.
    """
    nodes = [node for node in model.graph if is_op(node, *LAYERS)]
    names = dict.fromkeys(
        str(value.name)
        for node in nodes
        for value in (*node.inputs[:1], *node.outputs[:1])
        if value is not None
    )
    sample = _zeros(model) if data is None else next(iter(samples(model, data, CalibrationError)))
    found = FloatSession(model, list(names)).run(sample)
    return {name: tuple(np.shape(array)) for name, array in found.items()}


@dataclass(frozen=True)
class LayerCost:
    """A layer or a product of activations: output `channels`, `macs` for one sample, `bytes` of weight and bias."""

    op: str
    channels: int
    macs: int
    bytes: int


def layer_costs(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, LayerCost]:
    """The cost of each layer by node, for tensors of `shapes` (`sample_shapes`)."""
    found = {}
    for node in model.graph:
        if not is_op(node, *LAYERS):
            continue
        x, weight = node.inputs[:2]
        assert x is not None and weight is not None
        before, after = shapes[str(x.name)], shapes[str(node.outputs[0].name)]
        array, axis = constant(weight), 1 if node.op_type in ("Conv", "ConvTranspose") else -1
        if array is None:
            macs = math.prod(after) * before[-1]
        else:  # every number of a weight meets every position once
            counted = before if node.op_type == "ConvTranspose" else after
            macs = array.size * (math.prod(counted) // counted[axis])
        constants = [constant(value) for value in node.inputs]
        held = sum(a.nbytes for a in constants if a is not None)
        found[str(node.name)] = LayerCost(node.op_type, after[axis], macs, held)
    return found


def multiplications(model: ir.Model, data: Any) -> int:
    """Those of all layers for the first sample of `data`. Raises as `sample_shapes` does."""
    return sum(cost.macs for cost in layer_costs(model, sample_shapes(model, data)).values())


def _zeros(model: ir.Model) -> Feeds:
    feeds = {}
    for spec in specs(model):
        if None in spec.shape[1:]:
            raise CalibrationError(
                f"input {spec} has free axes beside the batch: the multiplications of a layer depend on them; give data"
            )
        feeds[spec.name] = np.zeros(tuple(d or 1 for d in spec.shape), spec.dtype)
    return feeds
