"""What an output of a graph is joined from: boxes in pixels and scores below one are judged apart, not in one sum.

scores: 4 dB    boxes: 37 dB    together: 37 dB
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.graph.forms import Form, ops
from eightbit.graph.model import attribute, dims, is_op

MOVES = ops(Form.MOVE)


@dataclass(frozen=True)
class Joint:
    """The lengths of the parts of an output along `axis`, in the order in which they lie."""

    axis: int
    rank: int
    sizes: tuple[int, ...]

    def split(self, name: str, array: Any) -> dict[str, Any]:
        """The parts of `array`, called as NumPy would take them: `name[:, 4:22]`. Whole if it has another shape."""
        if np.ndim(array) != self.rank or np.shape(array)[self.axis] != sum(self.sizes):
            return {name: array}
        ends = np.cumsum(self.sizes).tolist()
        return dict(zip(self.names(name), np.split(array, ends[:-1], axis=self.axis), strict=True))

    def names(self, name: str) -> list[str]:
        """What the parts of the output `name` are called."""
        axes, ends = [":"] * self.axis, np.cumsum(self.sizes).tolist()
        places = [f"{end - size}:{end}" for end, size in zip(ends, self.sizes, strict=True)]
        return [f"{name}[{', '.join([*axes, place])}]" for place in places]


def joints(model: ir.Model) -> dict[str, Joint]:
    """The outputs of a graph that a Concat makes of parts of known lengths, by name."""
    found = {}
    for output in model.graph.outputs:
        node, rank = output.producer(), dims(output)
        if node is None or rank is None or not is_op(node, "Concat") or len(node.inputs) < 2:
            continue
        axis = int(attribute(node, "axis", 0)) % len(rank)
        shapes = [dims(value) for value in node.inputs]
        sizes = [None if shape is None or len(shape) != len(rank) else shape[axis] for shape in shapes]
        if all(sizes):
            found[str(output.name)] = Joint(axis, len(rank), tuple(size for size in sizes if size))
    return found


def shares(model: ir.Model) -> set[str]:
    """The outputs and parts of outputs that a Sigmoid or a Softmax makes: shares of one, as likelihoods are."""
    found: set[str] = set()
    joined = joints(model)
    for output in model.graph.outputs:
        name, node = str(output.name), output.producer()
        if name in joined:
            assert node is not None
            marks = [_is_share(value) for value in node.inputs]
            found.update(part for part, mark in zip(joined[name].names(name), marks, strict=True) if mark)
        elif _is_share(output):
            found.add(name)
    return found


def _is_share(value: ir.Value | None) -> bool:
    """Whether a value comes out of such a function, or of moves behind one."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in MOVES:
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return node is not None and is_op(node, "Sigmoid", "HardSigmoid", "Softmax")


def apart(outputs: Mapping[str, Any], found: Mapping[str, Joint]) -> dict[str, Any]:
    """The outputs of a run, those that are joined part by part."""
    parts: dict[str, Any] = {}
    for name, array in outputs.items():
        parts |= found[name].split(name, array) if name in found else {name: array}
    return parts
