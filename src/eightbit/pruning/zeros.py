"""Weights of a graph set to zero: the least in size, or the least in what they add to their layer's output.

With data a weight w of input k counts as the root of w² H_kk, its part of the output's energy, relative to that of its
layer; without as `|w|`. Source: Sun et al. 2023, arXiv 2306.11695 (Wanda), for the weight times the norm of its input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.errors import QuantizationError
from eightbit.graph.model import constant, set_constant
from eightbit.graph.sparse import mark_sparse, sparse_layers
from eightbit.pruning.compensate import fit_layers
from eightbit.pruning.fit import fits
from eightbit.pruning.sparsity import Sparsity, masks
from eightbit.quant.observe.calibrate import Progress
from eightbit.quant.observe.layout import Layout
from eightbit.quant.observe.moments import Moments, layer_moments


def with_zeros(
    model: ir.Model, sparsity: Sparsity, data: Any, *, compensate: bool, progress: Progress | None = None
) -> ir.Model:
    """A copy of `model` with as many zeros as `sparsity` says, marked so that they stay (`graph.sparse`).

    With `compensate` the other weights are fitted anew to the data. Raises QuantizationError for a graph without a
    layer that can be pruned, and for movement, which only training knows.
    """
    if sparsity.method != "magnitude":
        raise QuantizationError(f'method={sparsity.method!r} needs training (eightbit.fit); give "magnitude"')
    layers = {str(node.name): node for node in model.graph if fits(node)}
    if not layers:
        raise QuantizationError("the model has no layer with constant weights to prune")
    moments = {} if data is None else layer_moments(model, tuple(layers), data, progress=progress)
    scores = {name: _scores(node, moments.get(name)) for name, node in layers.items()}
    inputs = {name: _input_axis(node) for name, node in layers.items()}
    gone = {name: ~mask for name, mask in masks(scores, inputs, sparsity).items() if not mask.all()}
    work = model.clone()
    copies = {str(node.name): node for node in work.graph}
    for name, zeros in gone.items():
        weight = constant(layers[name].inputs[1])
        assert weight is not None
        set_constant(copies[name], 1, np.where(zeros, np.float32(0), weight))
    mark_sparse(work, sparse_layers(work) | gone.keys())
    if compensate:
        fit_layers(model, work, data, zeros=gone, progress=progress)
    return work


def _scores(node: ir.Node, moments: Moments | None) -> NDArray[np.float64]:
    """The importance of each weight of a layer, in its weight's shape."""
    weight, layout = constant(node.inputs[1]), Layout.of(node)
    assert weight is not None
    if moments is None:
        return np.abs(weight.astype(np.float64))
    rows = layout.rows(weight.astype(np.float64))
    energy = rows**2 * np.einsum("gkk->gk", moments.hessian)[:, None]
    return layout.weight(np.sqrt(energy / (energy.sum() or 1.0)), weight.shape)


def _input_axis(node: ir.Node) -> int:
    """The axis of a layer's weight along which its input channels lie."""
    return 1 if node.op_type == "Conv" else 1 - Layout.of(node).axis
