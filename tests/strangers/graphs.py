"""Small ONNX graphs as strangers bring them, and data for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Feeds = dict[str, np.ndarray]
Shape = Sequence[int | str | None]


def node(op: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    """`node("Add", "a b", "c")`; "_" stands for an input or output that is left out. Named after its first output."""
    ins, outs = (["" if n == "_" else n for n in names.split()] for names in (inputs, outputs))
    name = next(n for n in outs if n)
    return helper.make_node(op, ins, outs, name=f"{name}_{op.lower()}", **attributes)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Shape | tuple[Shape, int]],
    outputs: dict[str, Shape | tuple[Shape, int]],
    constants: dict[str, object],
    *,
    opset: int = 17,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A model; inputs and outputs are float32 of the shape given, or (shape, element type)."""
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    body = helper.make_graph(list(nodes), "stranger", _infos(inputs), _infos(outputs), weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def weight(rng: np.random.Generator, *shape: int, gain: float = 1.0) -> np.ndarray:
    """Normal float32 values whose size keeps that of the activations: He's for (out, in, ...) shapes."""
    fan = int(np.prod(shape[1:])) or 1
    return (rng.standard_normal(shape) * gain * np.sqrt(2 / fan)).astype(np.float32)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Standard normal float32 values."""
    return rng.standard_normal(shape).astype(np.float32)


def _infos(tensors: dict[str, Shape | tuple[Shape, int]]) -> list[onnx.ValueInfoProto]:
    infos = []
    for name, told in tensors.items():
        typed = isinstance(told, tuple) and len(told) == 2 and isinstance(told[0], list | tuple)
        shape, dtype = told if typed else (told, TensorProto.FLOAT)
        infos.append(helper.make_tensor_value_info(name, int(dtype), shape))  # type: ignore[call-overload]
    return infos
