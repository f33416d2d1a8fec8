"""Rules for ops that move numbers or combine them one by one.

A Reshape is read as blocks: runs of axes before it that hold the same numbers as runs of axes behind it. Where a block
splits labelled channels, one axis of the result carries them on and what lies beside it is joined: the heads of
attention (the widest axis but the last), or the channels of a group in a channel shuffle (the last of the block).
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from eightbit.graph.model import attribute, constant, dims, input_at, ints, is_op
from eightbit.pruning.follow import Follow, Rule, Use, data_of, shape_of
from eightbit.pruning.layer_rules import LAYER_RULES, aligned
from eightbit.pruning.units import Axes, Labels

ONE_BY_ONE = (
    *("Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "Where", "PRelu", "Sum", "Mean", "Clip", "Equal", "Greater"),
    *("Less", "And", "Or", "Not", "Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Sigmoid", "Swish"),
    *("HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign", "Mish", "Gelu", "Erf", "Exp", "Log", "Sqrt", "Abs"),
    *("Neg", "Reciprocal", "Sin", "Cos", "Round", "Floor", "Ceil", "Sign", "Identity", "Cast", "Dropout", "IsNaN"),
)  # fmt: skip
POOLS = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
REDUCES = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2")
ALONG = ("Softmax", "LogSoftmax", "Hardmax", "LayerNormalization", "RMSNormalization")
"""Ops that look at all positions along an axis; normalizations at those along the axes behind it, too."""


def _one_by_one(found: Follow, node: ir.Node) -> list[Axes] | None:
    rank = len(shape_of(node.outputs[0]))
    made: Axes = {}
    fixed = [(i, v, constant(v)) for i, v in enumerate(node.inputs) if v is not None]
    uses: dict[int, dict[int, Labels | None]] = {}
    for axis in range(rank):
        operands, own = [], []
        for index, value, array in fixed:
            shape = shape_of(value) if array is None else array.shape
            at = axis - rank + len(shape)
            if at < 0:
                continue
            if array is None:
                operands.append((shape[at], found.of(value).get(at)))
            elif shape[at] != 1:
                own.append((index, at))
        narrow = all(length == 1 for length, _ in operands)
        if narrow and own:
            for _, labels in operands:
                if labels is not None:
                    found.fix(node, {0: labels}, "repeats it along an axis")
            continue
        labels = aligned(found, node, [(None, x) for _, x in operands] if narrow else operands)
        if labels is None:
            continue
        made[axis] = labels
        for index, at in own:
            uses.setdefault(index, {})[at] = labels
    for index, axes in uses.items():
        found.use(node, index, axes)
    return [made]


def _pool(found: Follow, node: ir.Node) -> list[Axes] | None:
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return None
    axes = found.of(node.inputs[0])
    found.fix(node, axes, "pools over this axis", but=(0, 1))
    return [{axis: labels for axis, labels in axes.items() if axis < 2}]


def _along(found: Follow, node: ir.Node) -> list[Axes] | None:
    axes, rank = found.of(node.inputs[0]), len(shape_of(node.outputs[0]))
    first = int(attribute(node, "axis", -1)) % rank
    over = range(first, rank) if "Normalization" in node.op_type else (first,)
    found.fix(node, {a: x for a, x in axes.items() if a in over}, "looks at all of them together")
    return [{axis: labels for axis, labels in axes.items() if axis not in over}]


def _reduce(found: Follow, node: ir.Node) -> list[Axes] | None:
    given = constant(input_at(node, 1))
    over = ints(node, "axes") if given is None else tuple(int(a) for a in given.ravel())
    if not over:
        return None
    axes, rank = found.of(node.inputs[0]), len(shape_of(node.inputs[0]))  # type: ignore[arg-type]
    over = tuple(a % rank for a in over)
    found.fix(node, {a: x for a, x in axes.items() if a in over}, "looks at all of them together")
    left = [a for a in range(rank) if a not in over]
    places = {a: a if attribute(node, "keepdims", 1) else left.index(a) for a in left}
    return [{places[a]: labels for a, labels in axes.items() if a in places}]


def _transpose(found: Follow, node: ir.Node) -> list[Axes] | None:
    axes, rank = found.of(node.inputs[0]), len(shape_of(node.outputs[0]))
    perm = ints(node, "perm") or tuple(reversed(range(rank)))
    return [{to: axes[axis] for to, axis in enumerate(perm) if axis in axes}]


def _concat(found: Follow, node: ir.Node) -> list[Axes] | None:
    rank = len(shape_of(node.outputs[0]))
    at = int(attribute(node, "axis")) % rank
    parts = [(i, v, shape_of(v), found.of(v)) for i, v in enumerate(node.inputs) if v is not None]
    made: Axes = {}
    for axis in set(range(rank)) - {at}:
        labels = aligned(found, node, [(None, a.get(axis)) for _, v, _, a in parts if constant(v) is None])
        if labels is not None:
            made[axis] = labels
            for index, value, _, _ in parts:
                if constant(value) is not None:
                    found.use(node, index, {axis: labels})
    if any(at in axes for _, _, _, axes in parts):
        joined = []
        for _, _, shape, axes in parts:
            length = shape[at]
            if at not in axes and length is None:
                return None
            labels = axes.get(at)
            if labels is None:
                labels = found.units.fresh(int(length or 0))
                found.fix(node, {at: labels}, "puts a tensor that is not made by a layer beside them")
            joined.append(labels)
        made[at] = np.concatenate(joined)
    return [made]


def _split(found: Follow, node: ir.Node) -> list[Axes] | None:
    axes, shapes = found.of(node.inputs[0]), [shape_of(v) for v in node.outputs]
    at = int(attribute(node, "axis", 0)) % len(shapes[0])
    rest = {axis: labels for axis, labels in axes.items() if axis != at}
    if at not in axes:
        return [dict(rest) for _ in node.outputs]
    lengths = [shape[at] for shape in shapes]
    if None in lengths or (input_at(node, 1) is not None and constant(node.inputs[1]) is None):
        return None
    parts = np.split(axes[at], np.cumsum([int(n) for n in lengths if n is not None])[:-1])
    found.targets.append(Use(node, 1, dict(enumerate(parts))))
    return [rest | {at: part} for part in parts]


def _slice(found: Follow, node: ir.Node) -> list[Axes] | None:
    bounds = [constant(input_at(node, i)) for i in (1, 2, 3, 4)]
    starts, ends, over, steps = bounds
    axes, shape = found.of(node.inputs[0]), shape_of(node.inputs[0])  # type: ignore[arg-type]
    if starts is None or ends is None or (input_at(node, 3) is not None and over is None):
        return None
    places = range(len(starts)) if over is None else [int(a) % len(shape) for a in over]
    made = dict(axes)
    for entry, at in enumerate(places):
        if at not in axes:
            continue
        step = 1 if steps is None else int(steps[entry])
        if step != 1 or (input_at(node, 4) is not None and steps is None):
            found.fix(node, {at: made.pop(at)}, "reads every n-th of them")
            continue
        made[at] = axes[at][slice(int(starts[entry]), int(min(ends[entry], 2**62)))]
        found.bounds.append((node, entry, axes[at]))
    return [made]


def _pad(found: Follow, node: ir.Node) -> list[Axes] | None:
    axes, pads = found.of(node.inputs[0]), constant(input_at(node, 1))
    if axes and (pads is None or input_at(node, 3) is not None):
        return None
    wide = [] if pads is None else [a for a in axes if pads[a] or pads[a + len(pads) // 2]]
    found.fix(node, {a: axes[a] for a in wide}, "pads this axis")
    return [{axis: labels for axis, labels in axes.items() if axis not in wide}]


def _resize(found: Follow, node: ir.Node) -> list[Axes] | None:
    """Spatial axes are resized; the channels keep their number."""
    axes, before, after = found.of(node.inputs[0]), shape_of(node.inputs[0]), shape_of(node.outputs[0])  # type: ignore[arg-type]
    sizes = constant(input_at(node, 3))
    if axes and ((input_at(node, 3) is not None and sizes is None) or ints(node, "axes") is not None):
        return None
    kept = {axis: x for axis, x in axes.items() if before[axis] == after[axis] != None}  # noqa: E711
    found.fix(node, axes, "resizes this axis", but=tuple(kept))
    if sizes is not None:
        found.targets.append(Use(node, 3, kept))
    return [kept]


def _reshape(found: Follow, node: ir.Node) -> list[Axes] | None:
    """Reshape, Flatten, Squeeze, Unsqueeze: by the shapes before and behind.

    Where a Reshape computes its target, the lengths of labelled axes must be constants in it.
    """
    axes, before, after = found.of(node.inputs[0]), shape_of(node.inputs[0]), shape_of(node.outputs[0])  # type: ignore[arg-type]
    made: Axes = {}
    covered: set[int] = set()
    for ins, outs in blocks(before, after):
        labelled = [axis for axis in ins if axis in axes]
        if not labelled:
            continue
        axis = labelled[0]
        covered.add(axis)
        inner, outer = (
            math.prod(_known(before, part)) for part in (ins[ins.index(axis) + 1 :], ins[: ins.index(axis)])
        )
        table = np.tile(np.repeat(axes[axis], inner), outer).reshape(_known(after, outs))
        wide = [out for out in outs if after[out] != 1]
        to = _carrier(wide, after)
        if to is None:
            found.fix(node, {axis: axes[axis]}, "leaves no axis for them")
            continue
        turned = np.moveaxis(table, outs.index(to), -1).reshape(-1, int(after[to] or 0))
        made[to] = found.units.join_rows(turned)
    found.fix(node, axes, "merges them with others", but=tuple(covered))
    if is_op(node, "Reshape"):
        target = node.inputs[1]
        assert target is not None
        free = [a for a in made if constant_entry(target, a) is None]
        found.fix(node, {a: made.pop(a) for a in free}, "computes the length of this axis")
        found.targets.append(Use(node, 1, made))
    elif len(data_of(node)) > 1:
        return None
    return [made]


def _shape(found: Follow, node: ir.Node) -> list[Axes] | None:
    axes, rank = found.of(node.inputs[0]), len(shape_of(node.inputs[0]))  # type: ignore[arg-type]
    read = range(rank)[slice(int(attribute(node, "start", 0)), int(attribute(node, "end", rank)))]
    found.fix(node, {a: x for a, x in axes.items() if a in read}, "takes the length of this axis")
    return [{}]


def constant_entry(target: ir.Value, entry: int) -> tuple[int, int] | None:
    """Where entry i of a list of lengths is constant; None where it is computed.

    (-1, i) is in the constant itself, (k, j) in input k of the Concat that makes the list, its entry j.
    """
    if constant(target) is not None:
        return -1, entry
    node = target.producer()
    if node is None or not is_op(node, "Concat"):
        return None
    for number, value in enumerate(node.inputs):
        length = None if value is None else shape_of(value)[0] if dims(value) else None
        if length is None or (entry < length and constant(value) is None):
            return None
        if entry < length:
            return number, entry
        entry -= length
    return None


def _known(shape: tuple[int | None, ...], axes: list[int]) -> list[int]:
    return [int(shape[axis] or 0) for axis in axes]


def _carrier(outs: list[int], after: tuple[int | None, ...]) -> int | None:
    """The axis of a block's `outs` that carries the channels on."""
    if len(outs) < 2:
        return outs[0] if outs else None
    if outs[-1] < len(after) - 1:
        return outs[-1]
    return max(outs[:-1], key=lambda axis: (int(after[axis] or 0), axis))


def blocks(
    before: tuple[int | None, ...], after: tuple[int | None, ...]
) -> list[tuple[list[int], list[int]]]:
    """Runs of axes of two shapes, from the last backwards, that hold the same numbers and as few of them as can be.

    Free axes end the search: only what lies behind all of them is sure to hold the same.

    >>> blocks((None, 6, 4, 4), (None, 2, 3, 16))
    [([2, 3], [3]), ([1], [1, 2])]
    """
    found, ins, outs = [], list[int](), list[int]()
    i, o = len(before) - 1, len(after) - 1
    while i >= 0 and o >= 0:
        sizes = [before[a] for a in ins], [after[a] for a in outs]
        left, right = (math.prod(int(n or 0) for n in part) for part in sizes)
        if not ins or left < right:
            if before[i] is None:
                break
            ins.insert(0, i)
            i -= 1
        elif not outs or right < left:
            if after[o] is None:
                break
            outs.insert(0, o)
            o -= 1
        if ins and outs and math.prod(_known(before, ins)) == math.prod(_known(after, outs)):
            found.append((ins, outs))
            ins, outs = [], []
    return found


RULES: dict[str, Rule] = {
    **LAYER_RULES,
    **dict.fromkeys(ONE_BY_ONE, _one_by_one),
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(REDUCES, _reduce),
    **dict.fromkeys(ALONG, _along),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Shape": _shape,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Resize": _resize,
}
