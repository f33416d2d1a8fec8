"""Small QDQ graphs by hand, in the naming of `quant.write.qdq`: the test material for `lower` and the engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """A QDQ graph under construction: uint8 activations, int8 weights, int32 biases.

    Every method returns the name of a dequantized float tensor, to be fed to the next one. `float_proto` is the graph
    that a user would have had before anybody quantized it.
    """

    def __init__(self, opset: int = 21) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.inits: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.params: dict[str, tuple[float, int]] = {}
        self.floats: dict[str, str] = {}  # of each dequantized tensor: what it stands for in the float graph
        self.numbers: dict[
            str, np.ndarray
        ] = {}  # the constants of the float graph that are codes in this one

    def const(self, name: str, array: np.ndarray) -> str:
        self.inits.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attrs: object) -> None:
        self.nodes.append(helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs))

    def pair(
        self, float_name: str, name: str, scale: float, zero_point: int, dtype: type[np.integer] = np.uint8
    ) -> str:
        """Q and DQ behind `float_name`; codes of `dtype` are called `name`_q."""
        self.params[f"{name}_q"] = (scale, zero_point)
        s = self.const(f"{name}_s", np.float32(scale))
        z = self.const(f"{name}_z", dtype(zero_point))
        self.node("QuantizeLinear", [float_name, s, z], [f"{name}_q"])
        self.node("DequantizeLinear", [f"{name}_q", s, z], [f"{name}_dq"])
        self.floats[f"{name}_dq"] = self.floats.get(float_name, float_name)
        return f"{name}_dq"

    def input(
        self,
        name: str,
        shape: Sequence[int | str],
        scale: float,
        zero_point: int,
        dtype: type[np.integer] = np.uint8,
    ) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return self.pair(name, name, scale, zero_point, dtype)

    def weight(self, name: str, codes: np.ndarray, scale: np.ndarray | float, axis: int | None = 0) -> str:
        codes = np.asarray(codes)
        scale = np.asarray(scale, np.float32)
        q, s = self.const(f"{name}_q", codes), self.const(f"{name}_s", scale)
        ins = [q, s]
        if codes.dtype != np.int32:
            ins.append(self.const(f"{name}_z", np.zeros(scale.shape, codes.dtype)))
        attrs = {} if scale.ndim == 0 else {"axis": axis}
        self.node("DequantizeLinear", ins, [f"{name}_dq"], **attrs)
        along = scale.reshape([-1 if i == axis else 1 for i in range(codes.ndim)]) if scale.ndim else scale
        self._stands_for(name, (codes * along).astype(np.float32))
        return f"{name}_dq"

    def codes(self, name: str, codes: np.ndarray, scale: float, zero_point: int) -> str:
        """A constant operand: uint8 codes behind a DequantizeLinear."""
        q = self.const(f"{name}_q", np.asarray(codes, np.uint8))
        s, z = self.const(f"{name}_s", np.float32(scale)), self.const(f"{name}_z", np.uint8(zero_point))
        self.node("DequantizeLinear", [q, s, z], [f"{name}_dq"])
        self._stands_for(name, floats_of(np.asarray(codes), scale, zero_point))
        return f"{name}_dq"

    def _stands_for(self, name: str, array: np.ndarray) -> None:
        self.floats[f"{name}_dq"] = name
        self.numbers[name] = array

    def op(
        self, op: str, inputs: Sequence[str], out: str, scale: float, zero_point: int, **attrs: object
    ) -> str:
        """One float node between the given DQs and a new pair."""
        self.node(op, inputs, [out], **attrs)
        return self.pair(out, out, scale, zero_point)

    def output(self, *names: str) -> None:
        for name in names:
            self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))

    def proto(self) -> onnx.ModelProto:
        return self._model(self.nodes, self.outputs, self.inits)

    def float_proto(self) -> onnx.ModelProto:
        """The graph without a code in it: activations as they are, weights and biases as the numbers they stand for.

        Each input is doubled first, by an addition: what only carries codes must find some. That sum leaves the graph,
        too, for codes that nothing reads are not made.
        """
        kept = [n for n in self.nodes if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
        renamed = {v.name: f"{v.name}_doubled" for v in self.inputs}
        doubling = [
            helper.make_node("Add", [name, name], [twice], name=twice) for name, twice in renamed.items()
        ]
        nodes = []
        for node in kept:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            stood_for = [self.floats.get(name, name) for name in node.input]
            copy.input[:] = [renamed.get(name, name) for name in stood_for]
            nodes.append(copy)
        outputs = [
            helper.make_tensor_value_info(self.floats.get(o.name, o.name), TensorProto.FLOAT, None)
            for o in self.outputs
        ]
        outputs += [
            helper.make_tensor_value_info(twice, TensorProto.FLOAT, None) for twice in renamed.values()
        ]
        read = {name for node in nodes for name in node.input}
        weights = [numpy_helper.from_array(array, name) for name, array in self.numbers.items()]
        return self._model(
            [*doubling, *nodes], outputs, [*(t for t in self.inits if t.name in read), *weights]
        )

    def _model(
        self,
        nodes: list[onnx.NodeProto],
        outputs: list[onnx.ValueInfoProto],
        weights: list[onnx.TensorProto],
    ) -> onnx.ModelProto:
        graph = helper.make_graph(nodes, "g", self.inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model)
        return model

    def model(self) -> ir.Model:
        return ir.from_proto(self.proto())


def scale_of(rng: np.random.Generator, low: float = 1e-3, high: float = 0.2) -> float:
    """A random float32 scale, log-uniform: its significand has all 24 bits in use."""
    return float(np.float32(np.exp(rng.uniform(np.log(low), np.log(high)))))


def floats_of(codes: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """The float32 values that quantize to uint8 `codes`."""
    return (np.float32(scale) * (codes.astype(np.int32) - zero_point).astype(np.float32)).astype(np.float32)
