"""A transposed convolution as a convolution that makes all phases of its output at once, and a shuffle of them.

    y[s q + r - p] = sum over i of x[i] w[s (q - i) + r]        for each phase r in [0, s)
                   = sum over j of x[q - j] w[s j + r]          a convolution of ceil(K / s) taps

The phases are channels of their own, put side by side as DepthToSpace does. Runtimes have integer kernels for both,
and none for the transposed convolution; the products are the same but for taps that are zero where s does not divide K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.graph.model import add_constant, attribute, constant, dims, input_at, ints, is_op, sole_consumer
from eightbit.graph.names import unique_name, unique_node_name
from eightbit.graph.prepare.settle import settle


@dataclass(frozen=True)
class Axis:
    """One spatial axis: outputs `first` to `first + out` of `places` times `stride` that a convolution makes."""

    taps: int
    stride: int
    begin: int
    end: int
    places: int
    first: int
    out: int

    @classmethod
    def of(cls, length: int, kernel: int, stride: int, pads: tuple[int, int], more: int) -> Axis | None:
        """Of an input `length`; None where it reaches no input, or leaves some out."""
        taps, out = -(-kernel // stride), stride * (length - 1) + more + kernel - sum(pads)
        skipped, last = pads[0] // stride, -(-(pads[0] + out) // stride) - 1
        begin, end = taps - 1 - skipped, last - (length - 1)
        if out < 1 or min(begin, end) < 0:
            return None
        return cls(taps, stride, begin, end, last - skipped + 1, pads[0] - stride * skipped, out)


def transposed_to_conv(model: ir.Model, kept: Callable[[ir.Node], bool]) -> int:
    """Write each ConvTranspose that is not `kept` as Conv, a shuffle and a Slice, in place; returns how many.

    Weights, bias and the lengths of the image must be known, and the taps lie side by side. A Relu or Clip behind it
    goes before the shuffle, where a layer's saturation can do its work. The Conv takes over the node's name.
    """
    count = 0
    for node in list(model.graph):
        if is_op(node, "ConvTranspose") and not kept(node):
            count += _restated(node)
    if count:
        settle(model)
    return count


def _restated(node: ir.Node) -> bool:
    weight, shape, graph = constant(input_at(node, 1)), dims(node.inputs[0]), node.graph
    bias, given = constant(input_at(node, 2)), input_at(node, 2)
    if weight is None or shape is None or None in shape[1:] or not isinstance(graph, ir.Graph):
        return False
    plain = attribute(node, "auto_pad", "NOTSET") == "NOTSET" and ints(node, "output_shape") is None
    if not plain or set(ints(node, "dilations") or (1,)) != {1} or (given is not None and bias is None):
        return False
    if weight.dtype != np.float32 or node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    axes = _axes(node, [int(n or 0) for n in shape[2:]], weight.shape[2:])
    if axes is None:
        return False
    groups, phases = int(attribute(node, "group", 1)), int(np.prod([axis.stride for axis in axes]))
    clamp = sole_consumer(node.outputs[0])
    if not _limits(clamp):
        clamp = None
    last = node if clamp is None else clamp
    stem = str(node.name)
    operands = [node.inputs[0], add_constant(graph, f"{stem}.phases", _phases(weight, groups, axes))]
    if bias is not None:
        operands.append(add_constant(graph, f"{stem}.phases.bias", np.repeat(bias, phases)))
    pads = (*(axis.begin for axis in axes), *(axis.end for axis in axes))
    taps = tuple(axis.taps for axis in axes)
    ways = {"kernel_shape": taps, "strides": (1,) * len(taps), "dilations": (1,) * len(taps)}
    made = [ir.node("Conv", operands, {**ways, "pads": pads, "group": groups}, name=stem)]
    if clamp is not None:
        made.append(ir.node(clamp.op_type, [made[-1].outputs[0], *clamp.inputs[1:]], name=clamp.name))
    made += _shuffled(graph, stem, made[-1].outputs[0], axes, weight.shape[1] * groups)
    for inner in made[:-1]:
        value = inner.outputs[0]
        value.name, value.dtype = unique_name(graph, f"{inner.name}.phases"), ir.DataType.FLOAT
    old = [node] if clamp is None else [node, clamp]
    ir.convenience.replace_nodes_and_values(graph, last, old, made, last.outputs, made[-1].outputs)
    return True


def _axes(node: ir.Node, lengths: Sequence[int], kernel: Sequence[int]) -> list[Axis] | None:
    n = len(kernel)
    strides, pads = ints(node, "strides") or (1,) * n, ints(node, "pads") or (0,) * (2 * n)
    more = ints(node, "output_padding") or (0,) * n
    found = [
        Axis.of(length, k, s, (pads[i], pads[n + i]), more[i])
        for i, (length, k, s) in enumerate(zip(lengths, kernel, strides, strict=True))
    ]
    known = [axis for axis in found if axis is not None]
    return known if len(known) == n else None


def _limits(clamp: ir.Node | None) -> bool:
    """Whether a node is a Relu, or a Clip with constant bounds."""
    if clamp is None or not is_op(clamp, "Relu", "Clip"):
        return False
    return all(value is None or constant(value) is not None for value in clamp.inputs[1:])


def _phases(weight: NDArray[np.float32], groups: int, axes: Sequence[Axis]) -> NDArray[np.float32]:
    """The weight (I, O / group, K...) of a ConvTranspose as that of the Conv: (O s..., I / group, taps...)."""
    inputs, outputs, *kernel = weight.shape
    room = [(0, axis.taps * axis.stride - k) for axis, k in zip(axes, kernel, strict=True)]
    full = np.pad(weight, [(0, 0), (0, 0), *room])
    split = full.reshape(groups, inputs // groups, outputs, *(n for a in axes for n in (a.taps, a.stride)))
    taps = tuple(range(3, 3 + 2 * len(axes), 2))
    turned = np.flip(split, taps).transpose(0, 2, *(t + 1 for t in taps), 1, *taps)
    return np.ascontiguousarray(turned.reshape(-1, inputs // groups, *(axis.taps for axis in axes)))


def _shuffled(
    graph: ir.Graph, stem: str, x: ir.Value | None, axes: Sequence[Axis], channels: int
) -> list[ir.Node]:
    """The nodes that put phases side by side, and cut off what the pads of the transposed convolution leave out."""
    made: list[ir.Node] = []

    def add(op: str, what: str, *operands: Sequence[int], **attributes: int | str | Sequence[int]) -> None:
        nonlocal x
        constants = [
            add_constant(graph, f"{stem}.{what}.{i}", np.array(array, np.int64))
            for i, array in enumerate(operands)
        ]
        name = unique_node_name(graph, f"{stem}.{what}")
        made.append(ir.node(op, [x, *constants], attributes, name=name))
        x = made[-1].outputs[0]

    strides, places = [axis.stride for axis in axes], [axis.places for axis in axes]
    n = len(axes)
    if n == 2 and strides[0] == strides[1] > 1:
        add("DepthToSpace", "shuffle", blocksize=strides[0], mode="CRD")
    elif set(strides) != {1}:
        add("Reshape", "split", (0, channels, *strides, *places))
        add("Transpose", "turn", perm=(0, 1, *(a for i in range(n) for a in (2 + n + i, 2 + i))))
        add("Reshape", "join", (0, channels, *(a.stride * a.places for a in axes)))
    cut = [i for i, a in enumerate(axes) if (a.first, a.out) != (0, a.stride * a.places)]
    if cut:
        firsts = [axes[i].first for i in cut]
        ends = [axes[i].first + axes[i].out for i in cut]
        add("Slice", "cut", firsts, ends, [2 + i for i in cut])
    return made
