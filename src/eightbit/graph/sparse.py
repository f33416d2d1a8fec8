"""Which layers of a graph were pruned, so that their zeros are left alone by whatever changes weights later.

Pruning writes the names of the layers into the graph's metadata, and so into its file. A layer of which MANY weights
are exactly zero was pruned elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.graph.model import OURS, WEIGHTED_OPS, constant, input_at, is_op

METADATA = f"{OURS}sparse"
MANY = 0.1
"""Zeros that a layer has by chance are fewer: 0.066 of a layer's weights at most in EfficientNet-Lite0."""


def sparse_layers(model: ir.Model) -> frozenset[str]:
    """The names of the layers that were pruned."""
    named = set(json.loads(model.metadata_props.get(METADATA, "[]")))
    for node in model.graph:
        weight = constant(input_at(node, 1)) if is_op(node, *WEIGHTED_OPS) else None
        if weight is not None and weight.dtype.kind == "f" and np.mean(weight == 0) >= MANY:
            named.add(str(node.name))
    return frozenset(named)


def mark_sparse(model: ir.Model, layers: Iterable[str]) -> None:
    """Note, in place, which layers were pruned."""
    if named := sorted(layers):
        model.metadata_props[METADATA] = json.dumps(named)


def kept_zeros(
    weight: NDArray[np.floating], node: ir.Node, sparse: frozenset[str]
) -> NDArray[np.bool_] | None:
    """Which numbers of a layer's weight stay zero, in its shape; None for a layer that was not pruned."""
    return weight == 0 if node.name in sparse else None
