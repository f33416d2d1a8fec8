"""Transformers by hand, in the spellings of several exporters: shape arithmetic, layer norms, free and fixed axes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS = 16, 2


class Nodes:
    """Nodes and constants under construction; each call of `op` returns the name of a new tensor."""

    def __init__(self, seed: int = 0) -> None:
        self.rng, self.numbers = np.random.default_rng(seed), count()
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"t{next(self.numbers)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, array: object) -> str:
        name = f"w{next(self.numbers)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        return self.constant((self.rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32))

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(inputs, outputs)), self.weight(outputs))

    def layer_norm(self, x: str, parts: bool) -> str:
        if not parts:
            return self.op("LayerNormalization", x, self.weight(WIDTH), self.weight(WIDTH), axis=-1)
        centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        squares = self.op("Pow", centred, self.constant(np.float32(2)))
        variance = self.op("Add", self.op("ReduceMean", squares, axes=[-1]), self.constant(np.float32(1e-5)))
        unit = self.op("Div", centred, self.op("Sqrt", variance))
        return self.op("Add", self.op("Mul", unit, self.weight(WIDTH)), self.weight(WIDTH))

    def targets(self, x: str, spelling: str) -> tuple[str, str]:
        """The Reshape targets that split heads and join them, computed from the shape of `x`."""
        head = WIDTH // HEADS
        if spelling == "zeros":
            return self.ints(0, 0, HEADS, head), self.ints(0, 0, WIDTH)
        shape = self.op("Shape", x)
        if spelling == "slices":
            leading = self.op("Slice", shape, self.ints(0), self.ints(2))
            return self.op("Concat", leading, self.ints(HEADS, head), axis=0), shape
        batch, length = (
            self.op("Unsqueeze", self.op("Gather", shape, self.constant(np.int64(axis))), self.ints(0))
            for axis in (0, 1)
        )
        split = self.op("Concat", batch, length, self.ints(HEADS, head), axis=0)
        return split, self.op("Concat", batch, length, self.ints(WIDTH), axis=0)

    def block(self, x: str, spelling: str, parts: bool) -> str:
        y = self.layer_norm(x, parts)
        split, joined = self.targets(x, spelling)
        q, k, v = (
            self.op("Transpose", self.op("Reshape", self.linear(y, WIDTH, WIDTH), split), perm=perm)
            for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = self.op("Div", self.op("MatMul", q, k), self.constant(np.float32(np.sqrt(WIDTH // HEADS))))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        back = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
        x = self.op("Add", x, self.linear(back, WIDTH, WIDTH))
        inner = self.op("Relu", self.linear(self.layer_norm(x, parts), WIDTH, 2 * WIDTH))
        return self.op("Add", x, self.linear(inner, 2 * WIDTH, WIDTH))


def transformer(
    layers: int,
    axes: Sequence[int | str | None] = ("N", "T"),
    spelling: str = "concat",
    *,
    parts: bool = False,
) -> onnx.ModelProto:
    """`layers` blocks on (batch, sequence, 16); about 45 nodes a block if layer norms are spelled out in `parts`.

    `spelling` of the Reshape targets: "concat" and "slices" compute them from the shape of the residual stream, "zeros"
    copies axes.
    """
    g, x = Nodes(), "x"
    for _ in range(layers):
        x = g.block(x, spelling, parts)
    g.nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        g.nodes,
        "transformer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*axes, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 3)],
        g.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
