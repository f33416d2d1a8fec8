"""Round layer after layer: each makes up for what the layers before it, rounded already, have done to its input.

With few bits the errors of early layers are so large that later ones no longer see the inputs that their rounding was
chosen for. Here a layer knows both: x in the float network, and x' in the network whose earlier layers are codes. Its
weights W are first moved to where they give W x from x'::

    W' = (W C + a W) (H + a I)⁻¹,    H = sum (x' - m')(x' - m')ᵀ,    C = sum (x - m)(x' - m')ᵀ                  (1)

with m and m' the means, which minimises ``|W x - W' x'|² + a |W' - W|²`` around them. W' is then rounded for x'
(`rounding`), with the scale of every row that leaves the least error out of SCALES, and the bias becomes
b + W m - codes · m'. The pull `a` towards W keeps noise in the data from speaking.
Source: Li et al. 2025, arXiv 2504.02692 (GPTAQ), whose objective (1) is; Frantar et al. 2022 for the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.data.feeds import Feeds
from eightbit.errors import QuantizationError
from eightbit.graph.model import constant, input_at, set_constant
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.encode.layers import TAKES_BIAS
from eightbit.quant.encode.walk import KEPT, Walk
from eightbit.quant.encode.weights import EncodedLayer, encode_layer
from eightbit.quant.observe.calibrate import Progress
from eightbit.quant.observe.layout import Layout
from eightbit.quant.observe.moments import ELEMENTS, PATCHES, Moments

PULL = 1.0
"""a, as a multiple of the mean diagonal of H. EfficientNet-Lite0, weights in 4 bits, 36 crops: 7.7 dB with 1 and
SCALES, 6.4 with 3 and whole scales; rounded to the nearest -2.5."""
SCALES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Parts of a row's own scale. With seven levels to a side, cutting off a row's largest weights can serve the others."""
ENOUGH = 2
"""Positions for each input from which weights are moved: fewer can be matched by weights that fit nothing else."""


def sequential_layers(
    model: ir.Model, layers: tuple[str, ...], data: Any, recipe: Recipe, *, progress: Progress | None = None
) -> dict[str, EncodedLayer]:
    """The codes of the named layers, in the order of the graph, for activations in float.

    `data` must bear being read more than once (`replay`). Raises CalibrationError for data that do not fit,
    QuantizationError for a layer that cannot be encoded.
    """
    work = model.clone()
    nodes, copies = ({str(node.name): node for node in graph.graph} for graph in (model, work))
    walk = Walk(model, work, layers, data, keep=KEPT)
    encoded: dict[str, EncodedLayer] = {}
    for wave, names in enumerate(walk.waves):
        seen = _seen([nodes[name] for name in names], walk.inputs(wave))
        for name in names:
            try:
                own = recipe.for_layer(name, nodes[name].op_type)
                encoded[name] = _encoded(nodes[name], seen[name], own)
            except QuantizationError as cause:
                raise QuantizationError(f"node {name!r} ({nodes[name].op_type}): {cause}") from cause
            _replace(copies[name], encoded[name])
            if progress is not None:
                progress("layers", len(encoded))
    return encoded


@dataclass(frozen=True)
class _Seen:
    """What the data say about a layer's input x in the float network and x' in the other, over the same positions."""

    moments: Moments
    """Of x'."""
    cross: NDArray[np.float64]
    """The sum of x x'ᵀ, (G, K, K)."""
    total: NDArray[np.float64]
    """The sum of x, (G, K)."""

    @classmethod
    def of(cls, x: NDArray[np.float32], changed: NDArray[np.float32]) -> _Seen:
        """Of positions (G, K, N) in both networks."""
        turned = changed.transpose(0, 2, 1)
        return cls(
            Moments.of(changed), np.matmul(x, turned).astype(np.float64), x.sum(axis=2, dtype=np.float64)
        )

    def add(self, other: _Seen) -> _Seen:
        """The sum of both, taken into this value's arrays."""
        np.add(self.cross, other.cross, out=self.cross)
        np.add(self.total, other.total, out=self.total)
        return replace(self, moments=self.moments.add(other.moments))

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of x, (G, K)."""
        return self.total / self.moments.count

    @property
    def centred(self) -> NDArray[np.float64]:
        """C of equation (1), with the same floor on its diagonal as the moments of x'."""
        return self.cross - self.mean[:, :, None] * self.moments.total[:, None, :] + self.moments.floor


def _seen(nodes: Sequence[ir.Node], inputs: Iterable[tuple[Feeds, Feeds]]) -> dict[str, _Seen]:
    """What the data say about the inputs of some layers, from their tensors in both networks, sample by sample."""
    layouts = {str(node.name): Layout.of(node) for node in nodes}
    keys = {str(node.name): (str(node.inputs[0].name), layouts[str(node.name)].window) for node in nodes}  # type: ignore[union-attr]
    readers = {key: layouts[name] for name, key in keys.items()}  # layers that read one tensor alike share
    found: dict[Any, _Seen] = {}
    held: dict[Any, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {key: [] for key in readers}

    def take_in(key: Any) -> None:
        one, other = (
            parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
            for parts in zip(*held[key], strict=True)
        )
        seen = _Seen.of(one, other)
        found[key] = found[key].add(seen) if key in found else seen
        held[key] = []

    for tensors in inputs:
        for key, layout in readers.items():
            one, other = (layout.positions(each[key[0]], thin=PATCHES) for each in tensors)
            held[key].append((one, other))
            if sum(x.size for x, _ in held[key]) >= ELEMENTS:
                take_in(key)
    for key in readers:
        if held[key]:
            take_in(key)
    return {name: found[key] for name, key in keys.items()}


def _encoded(node: ir.Node, seen: _Seen, recipe: Recipe) -> EncodedLayer:
    """The codes of a layer. Raises QuantizationError."""
    weight, bias = constant(node.inputs[1]), constant(input_at(node, 2))
    assert weight is not None
    target, layout = weight.astype(np.float32), Layout.of(node)
    bias = None if bias is None else bias.astype(np.float32).reshape(-1)
    takes_bias = node.op_type in TAKES_BIAS
    if takes_bias:
        rows = layout.rows(target).astype(np.float64)
        enough = seen.moments.count >= ENOUGH * rows.shape[2]
        moved = _moved(rows, seen.moments.centred, seen.centred) if enough else rows
        target = layout.weight(moved, weight.shape).astype(np.float32)
        shift = np.einsum("gck,gk->gc", rows, seen.mean) - np.einsum("gck,gk->gc", moved, seen.moments.mean)
        bias = ((0.0 if bias is None else bias) + shift.reshape(-1)).astype(np.float32)
    return encode_layer(
        target,
        bias,
        layout,
        input_scale=None,
        recipe=recipe if takes_bias else replace(recipe, bias_correction=False),
        moments=seen.moments,
        parts=SCALES,
    )


def _replace(node: ir.Node, layer: EncodedLayer) -> None:
    """Put what the codes of a layer stand for in the place of its weights."""
    set_constant(node, 1, layer.real_weight(Layout.of(node)))
    if layer.bias is not None:
        set_constant(node, 2, layer.bias, stem=f"{node.name}.bias")


def _moved(
    rows: NDArray[np.float64], hessian: NDArray[np.float64], cross: NDArray[np.float64]
) -> NDArray[np.float64]:
    """W' of equation (1), (G, C, K), for the moments `hessian` and `cross` (G, K, K)."""
    inputs = rows.shape[2]
    pull = PULL * np.einsum("gkk->g", hessian)[:, None, None] / inputs * np.eye(inputs)
    dead = np.einsum("gkk->g", hessian) == 0  # the group's input is always zero: nothing to make up with
    safe = hessian + pull + dead[:, None, None] * np.eye(inputs)
    moved = np.linalg.solve(safe, (rows @ (cross + pull)).transpose(0, 2, 1)).transpose(0, 2, 1)
    return np.where(dead[:, None, None], rows, moved)
