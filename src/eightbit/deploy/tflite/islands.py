"""Float islands as operations of the program: what TensorFlow Lite has a float builtin for, node by node.

In: an integer program. Out: one without islands. A node that has an operation among those of codes becomes that one, on
float tensors, by the rule that reads it where it is integer; a layer keeps its weights, as codes where they are codes;
any other becomes a `FloatNode`, which `floats` writes. What has no operator is refused by name, all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.deploy.layout.shapes import Array, island_graph
from eightbit.graph.forms import refusal
from eightbit.graph.model import attribute, constant, input_at, is_op, title
from eightbit.graph.names import Names
from eightbit.graph.prepare.settle import settle
from eightbit.graph.windows import window
from eightbit.integer import program as p
from eightbit.integer.lower import rules
from eightbit.integer.lower.codes import CodeTensors

Builtin = Callable[[ir.Node], str | None]
"""Why a node that is no operation of codes has no float builtin, either; None if it has one."""
NUMBERS = p.TensorInfo(np.float32(1), 0)
"""What the rules of codes are told of a float tensor: one scale for all, so that none needs another."""
ELSEWHERE = "use another operation, or keep that part outside the network"
SHARED = frozenset(
    {
        *("Add", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool", "Softmax", "Concat", "Reshape"),
        *("Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Pad"),
    }
)
"""What is written alike for floats and for codes."""


@dataclass(frozen=True, eq=False)
class FloatNode(p.Op):
    """A node of a float island; an input that it leaves out has the name ""."""

    node: ir.Node


class Floats(CodeTensors):
    """Float tensors, seen as the rules of codes see codes."""

    def read(self, value: ir.Value | None) -> str | None:
        """The tensor itself."""
        return None if value is None else self.written(value)

    def written(self, value: ir.Value) -> str | None:
        """The tensor itself."""
        self.tensors[str(value.name)] = NUMBERS
        return value.name

    def array(self, value: ir.Value | None) -> NDArray[np.float32] | None:
        """A constant, or what constant codes stand for."""
        found = self.fixed(value)
        if found is None:
            return constant(value)
        along = (-1, *(1,) * (found.codes.ndim - 1 - found.axis)) if found.scale.size > 1 else ()
        codes = found.codes.astype(np.float32) - found.zero_point.astype(np.float32).reshape(along)
        return np.asarray(codes * found.scale.reshape(along), np.float32)


def opened(program: p.Program, values: Mapping[str, Array], builtin: Builtin) -> tuple[p.Program, list[str]]:
    """The program with operations in place of its islands, and their constants among its own; a line for each node
    that cannot be written. `values` hold every tensor of a run.
    """
    ops, constants, faults = list[p.Op](), dict[str, NDArray[Any]](program.constants), list[str]()
    names = Names()
    for op in program.ops:
        if not isinstance(op, p.FloatIsland):
            ops.append(op)
            continue
        floats = Floats(names, names)
        graph = _settled(op, values)
        fixed = [*graph.initializers.values(), *(v for node in graph for v in node.outputs)]
        constants |= {str(v.name): array for v in fixed if (array := floats.array(v)) is not None}
        for node in graph:
            if str(node.outputs[0].name) in constants:
                continue
            made = _operations(node, floats, builtin)
            if isinstance(made, str):
                faults.append(f"{title(node)}: {made}")
            else:
                ops.extend(made)
    return replace(program, ops=tuple(ops), constants=constants), faults


def _settled(island: p.FloatIsland, values: Mapping[str, Array]) -> ir.Graph:
    """Its graph for the shapes of one run, with all computed that constants and shapes decide, and types forgotten:
    the rules of codes ask for float32, and what moves or adds numbers here does so for integers, too.
    """
    model = island_graph(island)
    for value in model.graph.inputs:
        value.shape = ir.Shape(values[str(value.name)].shape)
    settle(model)
    for value in (*model.graph.inputs, *(v for node in model.graph for v in node.outputs)):
        value.type = None
    return model.graph


def _operations(node: ir.Node, floats: Floats, builtin: Builtin) -> list[p.Op] | str:
    """What a node is written by; or why it cannot be, and what to do."""
    made: list[p.Op] | str | None = None
    if node.domain not in ("", "ai.onnx"):
        made = f"it is {node.op_type} of {node.domain}"
    elif is_op(node, "Conv", "Gemm", "MatMul"):
        made = _layer(node, floats)
    else:
        if node.op_type in SHARED:
            made = refusal(node) or rules.RULES[node.op_type](node, floats)
        if made is None or isinstance(made, str):
            why = builtin(node)
            made = None if why is None else made or why
    if isinstance(made, str):
        return f"{made}, for which this writer has no float operator of TensorFlow Lite: {ELSEWHERE}"
    if made is not None:
        return made
    inputs, outputs = (
        tuple("" if v is None else str(v.name) for v in ends) for ends in (node.inputs, node.outputs)
    )
    return [FloatNode(title(node), inputs, outputs, node)]


def _layer(node: ir.Node, floats: Floats) -> list[p.Op] | str:
    """A convolution, or a product with a constant matrix, with weights in float or in codes; a product of two tensors.

    The bias is in float, too.
    """
    matrix: NDArray[Any] | None = floats.array(node.inputs[1])
    if is_op(node, "MatMul") and (matrix is None or matrix.ndim != 2):
        return rules.matmul(node, floats)
    why = refusal(node)
    if matrix is None or why is not None:
        return why or "its weight is not constant"
    transposed = bool(attribute(node, "transB", 0))
    axis = 0 if is_op(node, "Conv") or transposed else 1
    coded: tuple[NDArray[Any], NDArray[np.float32]] | None = _coded(node.inputs[1], floats, axis)
    weight, scale = coded or (matrix, np.ones(matrix.shape[axis], np.float32))
    given = None if is_op(node, "MatMul") else floats.array(input_at(node, 2))
    bias: NDArray[Any] = np.zeros(scale.shape, np.float32) if given is None else given.reshape(-1)
    x, y = str(floats.read(node.inputs[0])), str(node.outputs[0].name)
    if not is_op(node, "Conv"):
        return [p.Gemm(title(node), (x,), (y,), weight.T if transposed else weight, bias, scale)]
    way = window(node)
    assert way is not None and way.pads is not None  # or `refusal` had said so
    rest = way.strides, way.pads, way.dilations, way.groups
    return [p.Conv(title(node), (x,), (y,), weight, bias, scale, *rest)]


def _coded(value: ir.Value | None, floats: Floats, axis: int) -> tuple[p.Codes, NDArray[np.float32]] | None:
    """A weight that is int8 around zero, with one scale, or one for each place along `axis`; with those scales."""
    found = floats.fixed(value)
    if found is None or found.codes.dtype != np.int8 or found.zero_point.any():
        return None
    if found.scale.size > 1 and found.axis != axis:
        return None
    scales = np.broadcast_to(found.scale.reshape(-1), found.codes.shape[axis : axis + 1])
    return found.codes, scales.astype(np.float32)
