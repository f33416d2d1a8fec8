"""SmoothQuant: move the spread of a layer's input channels from activations, where it hurts, into weights.

A few channels of a transformer's activations are a hundred times larger than the rest, and one scale must serve all.
With s[j] for each input channel j, `W x = (W diag(s)) (x / s)`: the input is divided by s in float, before it is
quantized, and the weights, which have a scale for each output channel and are all of one size, take the factor.

    s[j] = max|x[j]|**alpha / max|W[:, j]|**(1 - alpha)                                                          (1)

Source: Xiao et al. 2022, arXiv 2211.10438, equation 4. There s goes into the LayerNorm before the layer; here it is a
Mul of its own, because the residual connection reads the same LayerNorm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.graph.model import add_constant, attribute, constant, is_op, rank, sole_consumer
from eightbit.graph.names import unique_name, unique_node_name
from eightbit.graph.sharing import tied

SPREADING = ("LayerNormalization", "Gelu")
"""Float ops of transformers behind which outlier channels appear."""


@dataclass(frozen=True)
class SmoothSite:
    """A float tensor, and the Gemms and MatMuls with constant weights that multiply it along its last axis."""

    tensor: str
    layers: tuple[str, ...]


def smooth_sites(model: ir.Model, layers: Iterable[str]) -> tuple[SmoothSite, ...]:
    """Where smoothing can act: inputs of the named `layers` that come from an op which stays in float.

    Those inputs cost nothing to divide; dividing codes would need a rounding more. Reshapes in between are seen
    through.
    """
    wanted = set(layers)
    found: dict[str, list[str]] = {}
    for node in model.graph:
        if node.name not in wanted or not is_op(node, "Gemm", "MatMul") or rank(node.inputs[1]) != 2:
            continue
        value = node.inputs[0]
        before = None if value is None else value.producer()
        if (
            before is not None
            and is_op(before, "Reshape")
            and value is not None
            and sole_consumer(value) is node
        ):
            value = before.inputs[0]
            before = None if value is None else value.producer()
        if value is not None and before is not None and is_op(before, *SPREADING):
            found.setdefault(str(value.name), []).append(str(node.name))
    return tuple(SmoothSite(tensor, tuple(names)) for tensor, names in found.items())


def smooth(
    model: ir.Model, sites: Iterable[SmoothSite], peaks: Mapping[str, NDArray[np.float32]], alpha: float
) -> None:
    """Smooth every site, in place; `peaks` holds the largest magnitude of each channel of its tensor.

    Channels that are always zero keep factor 1. Sites whose layers share a weight have the same factors, by the largest
    of their peaks, and go on sharing it.
    """
    nodes = {str(node.name): node for node in model.graph}
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    for bundle in _bundles(sites, nodes):
        weights = [_weight(nodes[name]) for site in bundle for name in site.layers]
        factors = smoothing_factors(np.max([peaks[site.tensor] for site in bundle], axis=0), weights, alpha)
        for site in bundle:
            layers = [nodes[name] for name in site.layers]
            _divide(model.graph, values[site.tensor], factors, layers)
            for node in layers:
                _scale_inputs(model.graph, node, factors)


def _bundles(sites: Iterable[SmoothSite], nodes: Mapping[str, ir.Node]) -> list[list[SmoothSite]]:
    """The sites, those together whose layers share a weight."""
    sites = list(sites)
    shared = tied(nodes[name] for site in sites for name in site.layers)
    bundles: list[tuple[set[object], list[SmoothSite]]] = []
    for site in sites:
        weights: set[object] = {shared.get(name, name) for name in site.layers}
        near = [bundle for bundle in bundles if bundle[0] & weights]
        bundles = [bundle for bundle in bundles if not bundle[0] & weights]
        found = [other for _, others in near for other in others]
        bundles.append((weights.union(*(held for held, _ in near)), [*found, site]))
    return [found for _, found in bundles]


def smoothing_factors(
    peak: NDArray[np.float32], weights: Iterable[NDArray[np.float32]], alpha: float
) -> NDArray[np.float32]:
    """Equation (1) for one input (K,) and the weights (out, K) that read it, brought to a geometric mean of 1."""
    largest = np.max([np.abs(w).max(axis=0) for w in weights], axis=0)
    alive = (peak > 0) & (largest > 0)
    x, w = np.where(alive, peak, 1.0).astype(np.float64), np.where(alive, largest, 1.0).astype(np.float64)
    factors = x**alpha / w ** (1 - alpha)
    factors /= np.exp(np.log(factors[alive]).mean()) if alive.any() else 1.0
    return np.where(alive, factors, 1.0).astype(np.float32)


def _divide(graph: ir.Graph, value: ir.Value, factors: NDArray[np.float32], layers: list[ir.Node]) -> None:
    """Let the layers (or the Reshapes before them) read `value / factors`."""
    producer = value.producer()
    assert producer is not None
    inverse = add_constant(
        graph, f"{value.name}.smoothing", (1 / factors.astype(np.float64)).astype(np.float32)
    )
    mul = ir.node("Mul", [value, inverse], name=unique_node_name(graph, f"{producer.name}.smooth"))
    smoothed = mul.outputs[0]
    smoothed.name = unique_name(graph, f"{mul.name}.out")
    smoothed.dtype, smoothed.shape = ir.DataType.FLOAT, value.shape
    graph.insert_after(producer, [mul])
    for node, index in list(value.uses()):
        if node in layers or (
            is_op(node, "Reshape") and any(use.node in layers for use in node.outputs[0].uses())
        ):
            node.replace_input_with(index, smoothed)


def _weight(node: ir.Node) -> NDArray[np.float32]:
    """The weight of a Gemm or MatMul as (out, K)."""
    weight = constant(node.inputs[1])
    assert weight is not None
    return weight if is_op(node, "Gemm") and attribute(node, "transB", 0) else weight.T


def _scale_inputs(graph: ir.Graph, node: ir.Node, factors: NDArray[np.float32]) -> None:
    weight = constant(node.inputs[1])
    assert weight is not None
    rows = is_op(node, "Gemm") and attribute(node, "transB", 0)
    scaled = weight * (factors if rows else factors[:, None])
    node.replace_input_with(1, add_constant(graph, f"{node.name}.smoothed", scaled.astype(np.float32)))
