"""Cross-layer equalization: give the channels of an activation ranges of one size.

One scale a tensor serves all channels of an activation, so a channel that stays below a tenth of the largest wastes
nine tenths of its codes. In a group of tensors (`channels`) channel c can be multiplied by any s[c] > 0 if the layers
before give it and the layers behind take it back:

    W_before[c, :] *= s[c],  b_before[c] *= s[c],  W_behind[:, c] /= s[c]                                        (1)

With r[c] the largest magnitude seen of channel c, relative to the largest of the tensor, we take

    s[c] = r[c] ** -strength                                                                                     (2)

A weight has a scale for each output channel, so (1) costs the layers before nothing, and nothing a depthwise layer
behind; `strength` is 1 there and all channels end alike. In a dense layer behind, columns become unlike, and
`strength` below 1 weighs one against the other. (Nagel et al., whose weights share one scale, even out the weights;
ours need the activations evened out.)

A ReLU lets any s[c] > 0 pass. A Clip from 0 to b does not: min(s x, b) is s min(x, b) only where neither is clipped.
So a channel that was seen at the bound keeps s = 1, and the others grow at most up to it, s[c] r[c] max <= b. On the
data that were seen (1) is exact up to the rounding of floats; an input that takes a channel beyond all that was seen
is clipped where its range now ends, which is what calibrated ranges do to such an input anyway.
Source: Nagel et al. 2019, arXiv 1906.04721, section 4.1 (positive scaling equivariance, equations 4 to 6).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from eightbit.graph.channels import ChannelGroup, channel_groups
from eightbit.graph.model import attribute, constant, input_at, is_op, set_constant

LARGEST = 1e4
HEADROOM = 1.0
"""No channel grows by more: those that are almost silent are not worth losing their weights' digits."""


def equalize(model: ir.Model, peaks: Mapping[str, np.ndarray], *, dense: float = 0.5) -> tuple[ir.Model, int]:
    """A new graph with evened-out activation channels, and how many groups of tensors that took.

    `peaks` has the largest magnitude of each channel, (C,), for the tensors of each group to be equalized (see
    `channels.channel_peaks`); groups without are left alone. `dense` is the strength in front of layers that mix
    channels.
    """
    result = model.clone()
    nodes = {str(node.name): node for node in result.graph}
    count = 0
    for group in channel_groups(result):
        known = [peaks[name] for name in group.tensors if name in peaks]
        if not known:
            continue
        mixed = any(_mixes(nodes[name]) for name in group.readers)
        scale = channel_scales(known, group, dense if mixed else 1.0)
        for name in group.writers:
            _scale_outputs(nodes[name], scale)
        for name in group.readers:
            _scale_inputs(nodes[name], 1 / scale)
        count += 1
    return result, count


def channel_scales(peaks: list[np.ndarray], group: ChannelGroup, strength: float) -> np.ndarray:
    """The s of equation (2), (C,) float64; a channel that was never seen alive keeps 1."""
    relative = np.max([p.astype(np.float64) / max(float(p.max()), 1e-30) for p in peaks], axis=0)
    largest = np.max(peaks, axis=0).astype(np.float64)
    alive = largest > 0
    scale = np.ones(group.channels)
    scale[alive] = np.minimum((HEADROOM * relative[alive]).clip(None, 1) ** -strength, LARGEST)
    if np.isfinite(group.ceiling):
        scale[alive] = np.minimum(scale[alive], np.maximum(1.0, group.ceiling / (HEADROOM * largest[alive])))
        scale[largest >= group.ceiling] = 1.0
    return scale


def _mixes(node: ir.Node) -> bool:
    """Whether an output channel of the layer reads more than one input channel."""
    weight = constant(node.inputs[1])
    assert weight is not None
    return weight.shape[1] > 1


def _scale_outputs(node: ir.Node, scale: np.ndarray) -> None:
    weight, bias = constant(node.inputs[1]), constant(input_at(node, 2))
    assert weight is not None
    rows = scale.reshape(-1, *[1] * (weight.ndim - 1))
    set_constant(node, 1, (weight * rows).astype(weight.dtype))
    if bias is not None:
        set_constant(node, 2, (bias * scale).astype(bias.dtype))


def _scale_inputs(node: ir.Node, scale: np.ndarray) -> None:
    weight = constant(node.inputs[1])
    assert weight is not None
    groups = attribute(node, "group", 1) if is_op(node, "Conv") else 1
    columns = np.repeat(
        scale.reshape(groups, -1), weight.shape[0] // groups, axis=0
    )  # (outputs, inputs of a group)
    set_constant(
        node, 1, (weight * columns.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))).astype(weight.dtype)
    )
