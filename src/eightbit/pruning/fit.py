"""The weights and bias of one layer that give from its new input what they gave from the old one.

With x the input in the whole network, x' in the pruned one, m and m' their means, H the centred second moments of x',
C those of x with x', and S the columns that are kept, the least squares over the data are reached by::

    W'_S = (W C_S + a W_S) (H_SS + a I)⁻¹,    b' = b + W m - W'_S m'_S                                           (1)

The pull `a` towards what the weights were keeps noise in the data from speaking.
Sources: Luo et al. 2017, arXiv 1707.06342 (ThiNet); He et al. 2017, arXiv 1707.06168.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.graph.forms import LAYERS
from eightbit.graph.model import attribute, constant, input_at, set_constant
from eightbit.quant.encode.layers import TAKES_BIAS
from eightbit.quant.encode.seen import Seen
from eightbit.quant.methods.rounding import pruned_rows
from eightbit.quant.observe.layout import Layout

PULL = 0.01
"""a, as a multiple of the mean diagonal of H."""
STILL = 1e-3
"""Part of a group's energy below which its input is constant: what then is left of H is the rounding of float32. Its
weights stay, and the bias takes up the mean."""


def fits(node: ir.Node) -> bool:
    """Whether a layer's weight and bias are constants that can be fitted: rows of a Gemm times 1, a bias by channel."""
    weight, bias = constant(input_at(node, 1)), constant(input_at(node, 2))
    if (
        node.op_type not in LAYERS
        or weight is None
        or weight.dtype != np.float32
        or (node.op_type == "MatMul" and weight.ndim != 2)
    ):
        return False
    if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)) != (1.0, 1.0):
        return False
    channels = weight.shape[Layout.of(node).axis]
    return input_at(node, 2) is None or (bias is not None and bias.shape == (channels,))


def refit(
    node: ir.Node,
    copy: ir.Node,
    seen: Seen,
    kept: NDArray[np.bool_] | None = None,
    zeros: NDArray[np.bool_] | None = None,
) -> None:
    """Put the weights and bias of equation (1) into `copy`; a bias is added where the layer reads fewer channels.

    `kept` (n,) says which of the channels that the layer sums over are left, `zeros`, in the shape of its weight, which
    weights are zero: the others make up for those in one sweep (`rounding.pruned_rows`).
    """
    weight, layout = constant(node.inputs[1]), Layout.of(node)
    assert weight is not None
    rows = layout.rows(weight.astype(np.float64))
    inputs = rows.shape[2]
    columns = np.arange(inputs) if kept is None else np.flatnonzero(np.repeat(kept, inputs // len(kept)))
    fewer = len(columns) < inputs
    free = node.op_type in TAKES_BIAS and (fewer or input_at(node, 2) is not None)
    hessian, cross = (seen.moments.centred, seen.centred) if free else (seen.moments.hessian, seen.cross)
    h = hessian[:, columns[:, None], columns]
    energy = np.einsum("gkk->g", h)[:, None, None]
    still = energy <= STILL * np.einsum("gkk->g", seen.moments.hessian)[:, None, None]
    h, cross, energy = np.where(still, 0.0, h), np.where(still, 0.0, cross), np.where(still, 0.0, energy)
    pull = np.where(energy > 0, PULL * energy / len(columns), 1.0) * np.eye(len(columns))
    target = rows @ cross[:, :, columns] + rows[:, :, columns] @ pull
    moved = np.zeros_like(rows)
    moved[:, :, columns] = np.linalg.solve(h + pull, target.transpose(0, 2, 1)).transpose(0, 2, 1)
    if zeros is not None:
        gone = layout.rows(zeros)[:, :, columns]
        moved[:, :, columns] = pruned_rows(moved[:, :, columns], gone, h + pull)
    set_constant(copy, 1, layout.weight(moved, weight.shape).astype(np.float32))
    if free:
        bias = constant(input_at(node, 2))
        shift = np.einsum("gck,gk->gc", rows, seen.mean) - np.einsum("gck,gk->gc", moved, seen.moments.mean)
        made = (0.0 if bias is None else bias.astype(np.float64)) + shift.reshape(-1)
        set_constant(copy, 2, made.astype(np.float32), stem=f"{node.name}.bias")
