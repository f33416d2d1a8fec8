"""Rules for nodes that only carry codes: their numbers stay, and so do scale and zero point."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.graph import moves
from eightbit.graph.model import attribute, constant, dims, input_at, ints
from eightbit.integer import program as p
from eightbit.integer.lower.codes import CodeTensors
from eightbit.integer.lower.ends import Make, carry


def reshape(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Reshape to a constant shape, or to one that other nodes compute."""
    target_value = input_at(node, 1)
    shape = constant(target_value)
    if shape is None:
        lengths = str(target_value.name) if target_value is not None else ""
        return carry(node, codes, lambda name, x, y: p.ReshapeTo(name, (*x, lengths), y))
    target = tuple(int(d) for d in shape)
    return carry(node, codes, lambda n, x, y: p.Reshape(n, x, y, target))


def flatten(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Flatten."""
    return carry(node, codes, lambda n, x, y: p.Flatten(n, x, y, attribute(node, "axis", 1)))


def squeeze(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Squeeze of constant axes, or of all that have length 1."""
    axes = constant(input_at(node, 1))
    chosen = None if axes is None else tuple(int(a) for a in axes.reshape(-1))
    return carry(node, codes, lambda n, x, y: p.Squeeze(n, x, y, chosen))


def unsqueeze(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Unsqueeze at constant axes."""
    axes = constant(input_at(node, 1))
    assert axes is not None
    chosen = tuple(int(a) for a in axes.reshape(-1))
    return carry(node, codes, lambda n, x, y: p.Unsqueeze(n, x, y, chosen))


def transpose(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Transpose; without a perm the axes are reversed, which needs a known rank."""
    perm = ints(node, "perm")
    if perm is None:
        shape = dims(node.inputs[0])
        assert shape is not None
        perm = tuple(reversed(range(len(shape))))
    chosen = perm
    return carry(node, codes, lambda n, x, y: p.Transpose(n, x, y, chosen))


def slice_(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Slice with constant bounds."""
    given = [constant(v) for v in node.inputs[1:]]
    starts, ends, axes, steps = (
        None if i >= len(given) or given[i] is None else [int(v) for v in given[i]]  # type: ignore[union-attr]
        for i in range(4)
    )
    assert starts is not None and ends is not None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    bounds = tuple(
        (axis, start, None if step < 0 and end < -(2**31) + 2 else end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    )
    return carry(node, codes, lambda n, x, y: p.Slice(n, x, y, bounds))


def pad(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Pad by constant lengths; zeros are the zero point."""
    pads, axes = constant(input_at(node, 1)), constant(input_at(node, 3))
    shape = dims(node.inputs[0])
    assert pads is not None and shape is not None
    mode = attribute(node, "mode", "constant")
    chosen = range(len(shape)) if axes is None else [int(a) % len(shape) for a in axes]
    begin, end = [0] * len(shape), [0] * len(shape)
    for k, axis in enumerate(chosen):
        begin[axis], end[axis] = int(pads[k]), int(pads[len(pads) // 2 + k])
    x = codes.read(node.inputs[0])
    if x is None:
        return "its input is not codes"
    info = codes.tensors[x]
    return carry(node, codes, lambda n, x, y: p.Pad(n, x, y, (*begin, *end), mode, info.zero_point))


def split(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Split: a Slice an output."""
    found = moves.parts(node)
    assert not isinstance(found, str)
    axis, bounds = found
    ops: list[p.Op] = []
    for i, (start, stop) in enumerate(bounds):
        made = carry(node, codes, _cut(((axis, start, stop, 1),)), output=i)
        if isinstance(made, str):
            return made
        ops.extend(made)
    return ops


def pick(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """Gather, Tile, Expand and Resize to the nearest neighbour: places along axes, one axis after another."""
    if constant(node.inputs[0]) is not None:
        return "its table is not codes with a scale a row"
    found = moves.picks(node)
    assert not isinstance(found, str)
    steps: list[Make] = []
    if found.new:
        new = tuple(range(found.new))
        steps.append(lambda n, x, y: p.Unsqueeze(n, x, y, new))
    for axis, index in sorted(found.taken, key=lambda taken: len(np.ravel(taken[1]))):
        steps.append(_taken(axis, index))
    return carry(node, codes, *steps or [_whole])


def depth_to_space(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """DepthToSpace: a Transpose of blocks."""
    found = moves.blocks(node)
    assert not isinstance(found, str)
    split_up, perm, joined = found
    return carry(
        node,
        codes,
        lambda n, x, y: p.Reshape(n, x, y, split_up),
        lambda n, x, y: p.Transpose(n, x, y, perm),
        lambda n, x, y: p.Reshape(n, x, y, joined),
    )


def reduce_max(node: ir.Node, codes: CodeTensors) -> list[p.Op] | str:
    """ReduceMax over constant axes."""
    axes, keep = moves.reduced(node), bool(attribute(node, "keepdims", 1))
    assert not isinstance(axes, str)
    return carry(node, codes, lambda n, x, y: p.ReduceMax(n, x, y, axes, keep) if axes else _whole(n, x, y))


def _cut(bounds: tuple[tuple[int, int | None, int | None, int], ...]) -> Make:
    return lambda name, x, y: p.Slice(name, x, y, bounds)


def _taken(axis: int, index: NDArray[np.int64]) -> Make:
    return lambda name, x, y: p.Take(name, x, y, axis, index)


def _whole(name: str, x: tuple[str, ...], y: tuple[str, ...]) -> p.Op:
    """All codes as they are."""
    return p.Slice(name, x, y, ())
