"""What nodes that only carry numbers ask for, read off their constants and the shapes around them.

A node that repeats or picks places along axes is a few index arrays, whatever it is called:

    y[i, j, ...] = x[index_0[i], index_1[j], ...]      Gather, Tile, Expand, Resize to the nearest neighbour

Each function says what a node does, or, as text, why that is not known before it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from eightbit.graph.model import attribute, constant, dims, input_at, ints
from eightbit.graph.run import FloatSession

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Picks:
    """Places along axes: the numbers at `index`, of any rank, along each axis; before that, `new` axes in front."""

    taken: tuple[tuple[int, Index], ...]
    new: int = 0


def picks(node: ir.Node) -> Picks | str:
    """What a Gather, Tile, Expand or Resize picks; or why that is not known."""
    return _READERS[node.op_type](node)


def parts(node: ir.Node) -> tuple[int, tuple[tuple[int, int], ...]] | str:
    """The axis of a Split and (start, stop) of each of its outputs; or why they are not known."""
    axis, shape = int(attribute(node, "axis", 0)), dims(node.inputs[0])
    given = input_at(node, 1)
    lengths = constant(given)
    if given is not None and lengths is None:
        return "its lengths are not constant"
    if lengths is None:
        if shape is None or shape[axis] is None:
            return "the length of the axis that it splits is not known"
        whole, count = int(shape[axis] or 0), len(node.outputs)
        each = -(-whole // count)
        lengths = np.diff(np.minimum(np.arange(count + 1) * each, whole))
    ends = np.cumsum(lengths).tolist()
    return axis, tuple(zip([0, *ends[:-1]], ends, strict=True))


def blocks(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | str:
    """A DepthToSpace or SpaceToDepth as a Reshape, the perm of a Transpose, and another Reshape; or why not."""
    shape, size = dims(node.inputs[0]), int(attribute(node, "blocksize", 1))
    if shape is None or len(shape) != 4 or None in shape[1:]:
        return "the lengths of its image are not known"
    c, h, w = (int(n or 0) for n in shape[1:])
    if node.op_type == "SpaceToDepth":
        split = (0, c, h // size, size, w // size, size)
        turned = (0, 1, 3, 5, 2, 4) if attribute(node, "mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
        return split, turned, (0, c * size**2, h // size, w // size)
    joined = (0, c // size**2, h * size, w * size)
    if attribute(node, "mode", "DCR") == "CRD":
        return (0, c // size**2, size, size, h, w), (0, 1, 4, 2, 5, 3), joined
    return (0, size, size, c // size**2, h, w), (0, 3, 4, 1, 5, 2), joined


def reduced(node: ir.Node) -> tuple[int, ...] | str:
    """The axes of a reduction, from the first; or why they are not known."""
    shape, given = dims(node.inputs[0]), input_at(node, 1)
    if shape is None:
        return "its rank is not known"
    axes = constant(given)
    if given is not None and axes is None:
        return "its axes are not constant"
    if axes is None or axes.size == 0:
        return () if attribute(node, "noop_with_empty_axes", 0) else tuple(range(len(shape)))
    return tuple(sorted(int(axis) % len(shape) for axis in axes.reshape(-1)))


def _gather(node: ir.Node) -> Picks | str:
    index = constant(input_at(node, 1))
    if index is None:
        return "its indices are not constant"
    return Picks(((int(attribute(node, "axis", 0)), np.asarray(index, np.int64)),))


def _tile(node: ir.Node) -> Picks | str:
    repeats, shape = constant(input_at(node, 1)), dims(node.inputs[0])
    if repeats is None or shape is None:
        return "its repeats are not constant, or its rank is not known"
    return _along(shape, [int(r) for r in repeats], lambda n, times: np.tile(np.arange(n), times))


def _expand(node: ir.Node) -> Picks | str:
    target, shape = constant(input_at(node, 1)), dims(node.inputs[0])
    if target is None or shape is None:
        return "its shape is not constant, or that of its input not known"
    new = max(0, len(target) - len(shape))
    times = [1] * (len(shape) - len(target)) + [int(n) for n in target]
    own = (*(1,) * new, *shape)
    repeated = [1 if n == have else n for n, have in zip(times, own, strict=True)]
    found = _along(own, repeated, lambda n, times: np.zeros(n * times, np.int64))
    return found if isinstance(found, str) else Picks(found.taken, new)


def _along(shape: Sequence[int | None], times: Sequence[int], index) -> Picks | str:  # type: ignore[no-untyped-def]
    longer = [axis for axis, n in enumerate(times) if n != 1]
    if any(shape[axis] is None for axis in longer):
        return "the length of an axis that it repeats is not known"
    return Picks(tuple((axis, index(int(shape[axis] or 0), times[axis])) for axis in longer))


def _resize(node: ir.Node) -> Picks | str:
    mode, how = (
        str(attribute(node, *pair))
        for pair in (("mode", "nearest"), ("coordinate_transformation_mode", "half_pixel"))
    )
    if mode != "nearest" or how == "tf_crop_and_resize":
        return f"it interpolates, in mode {mode}, {how}: only what picks the nearest neighbour keeps codes"
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return "it keeps the aspect ratio"
    shape, scales, sizes = dims(node.inputs[0]), constant(input_at(node, 2)), constant(input_at(node, 3))
    given = sizes if scales is None or not scales.size else scales
    if shape is None or given is None:
        return "its scales or sizes are not constant, or its rank is not known"
    axes = ints(node, "axes") or tuple(range(len(shape)))
    version = node.graph.opset_imports.get("", 21) if isinstance(node.graph, ir.Graph) else 21
    rounding = str(attribute(node, "nearest_mode", "round_prefer_floor"))
    found = []
    for axis, to in zip(axes, given, strict=True):
        length = shape[axis]
        if (length == to) if given is sizes else (to == 1):
            continue
        if length is None:
            return "the length of an axis that it resizes is not known"
        index = _nearest(length, to.item(), given is sizes, (how, rounding), version)
        found.append((axis % len(shape), np.array(index)))
    return Picks(tuple(found))


@lru_cache(maxsize=256)
def _nearest(length: int, to: float, is_size: bool, ways: tuple[str, str], version: int) -> tuple[int, ...]:
    """The places that ONNX Runtime's Resize picks of `length`, asked for on their numbers, which float32 holds."""
    operand = np.array([to], np.int64 if is_size else np.float32)
    inputs = ["x", "", "", "to"] if is_size else ["x", "", "to"]
    how, rounding = ways
    node = helper.make_node(
        "Resize",
        inputs,
        ["y"],
        mode="nearest",
        coordinate_transformation_mode=how,
        nearest_mode=rounding,
    )
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [length])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    graph = helper.make_graph([node], "resize", *ends, [numpy_helper.from_array(operand, "to")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)
    made = FloatSession(ir.from_proto(model)).run({"x": np.arange(length, dtype=np.float32)})["y"]
    return tuple(int(place) for place in made)


_READERS = {"Gather": _gather, "Tile": _tile, "Expand": _expand, "Resize": _resize}
