"""Which values of a QDQ graph are codes, and what they stand for: the reading glasses of `lower`.

A pair QuantizeLinear, DequantizeLinear with one scale around codes of 8 or 16 bits makes an integer tensor; a
DequantizeLinear of constants makes a weight, a bias or a constant operand. Codes are handed out signed: int8, int16.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.arith.affine import INT8, INT16
from eightbit.graph.coded import gated, quantizer
from eightbit.graph.model import attribute, constant, input_at, is_op, sole_consumer
from eightbit.graph.names import Names, node_names, tensor_names
from eightbit.integer.program import Codes, TensorInfo, canonical

CODE_TYPES = {
    np.dtype(np.uint8): (INT8, 128),
    np.dtype(np.int8): (INT8, 0),
    np.dtype(np.uint16): (INT16, 2**15),
    np.dtype(np.int16): (INT16, 0),
}
"""Of each type that codes may have in a graph: the canonical one, and what to take off to get there."""
BIAS_SCALE_RTOL = 1e-4  # a bias scale is s_x * s_w, rounded by whoever wrote the graph


@dataclass(frozen=True)
class Constant:
    """Constant codes behind a DequantizeLinear; `scale` is () or (C,) along `axis`; `zero_point` alike."""

    name: str
    codes: NDArray[np.integer]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int


@dataclass
class CodeTensors:
    """Looks up codes in one QDQ graph, and remembers what it has described."""

    names: Names
    """Of the graph's tensors and of the program's."""
    node_names: Names
    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    constants: dict[str, Codes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, graph: ir.Graph) -> CodeTensors:
        """Nothing looked up yet."""
        return cls(Names(tensor_names(graph)), Names(node_names(graph)))

    def describe(self, node: ir.Node) -> TensorInfo | None:
        """The parameters of a QuantizeLinear or DequantizeLinear: None unless constant, 8 or 16 bits, one scale."""
        scale = constant(input_at(node, 1))
        zero = constant(input_at(node, 2))
        if scale is None or scale.size != 1 or scale.dtype != np.float32:
            return None
        dtype = zero.dtype if zero is not None else _code_dtype(node)
        if dtype not in CODE_TYPES or attribute(node, "block_size", 0):
            return None
        itype, offset = CODE_TYPES[dtype]
        value = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
        assert value is not None
        shape = None if value.shape is None else tuple(d if isinstance(d, int) else None for d in value.shape)
        zero_point = (0 if zero is None else int(zero.item())) - offset
        return TensorInfo(np.float32(scale.item()), zero_point, itype, shape)

    def is_code_node(self, node: ir.Node) -> bool:
        """Whether `node` is a border between float values and activation codes (not a constant's)."""
        if is_op(node, "QuantizeLinear"):
            return self.describe(node) is not None
        if not is_op(node, "DequantizeLinear") or constant(node.inputs[0]) is not None:
            return False
        codes = node.inputs[0]
        made = quantizer(codes) is not None or gated(codes) is not None
        return made and self.describe(node) is not None

    def read(self, value: ir.Value | None) -> str | None:
        """The name of the codes whose DequantizeLinear made the float `value`; constants included, else None."""
        node = None if value is None else value.producer()
        if node is None or not is_op(node, "DequantizeLinear"):
            return None
        info = self.describe(node)
        codes = node.inputs[0]
        if info is None or codes is None or codes.name is None:
            return None
        fixed = constant(codes)
        if fixed is not None:
            self.constants[codes.name] = canonical(fixed)
        elif not self.is_code_node(node):
            return None
        known = self.tensors.setdefault(codes.name, info)
        if (known.scale, known.zero_point) != (info.scale, info.zero_point):
            self.problems.append(
                f"{node.name}: reads codes {codes.name!r} with scale {info.scale}, zero point {info.zero_point}, but"
                f" they were written with {known.scale}, {known.zero_point}; use one pair for both"
            )
        return codes.name

    def written(self, value: ir.Value) -> str | None:
        """The name of the codes that the one consumer of the float `value`, a QuantizeLinear, makes of it."""
        node = sole_consumer(value)
        if node is None or not is_op(node, "QuantizeLinear"):
            return None
        info = self.describe(node)
        name = node.outputs[0].name
        if info is None or name is None:
            return None
        self.tensors[name] = info
        return name

    def fixed(self, value: ir.Value | None) -> Constant | None:
        """The constant codes (weight or bias) whose DequantizeLinear made the float `value`."""
        node = None if value is None else value.producer()
        if node is None or not is_op(node, "DequantizeLinear") or attribute(node, "block_size", 0):
            return None
        codes, scale = constant(node.inputs[0]), constant(input_at(node, 1))
        if codes is None or scale is None or node.inputs[0] is None:
            return None
        zero = constant(input_at(node, 2))
        zeros = np.zeros(scale.shape, np.int64) if zero is None else zero.astype(np.int64)
        axis = attribute(node, "axis", 1)
        name = str(node.inputs[0].name)
        return Constant(name, codes, scale, zeros, axis % codes.ndim if codes.ndim else 0)


def _code_dtype(node: ir.Node) -> np.dtype | None:
    """Element type of a Q or DQ without zero point (uint8 is ONNX's default for Q)."""
    value = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    if value is None or value.dtype is None:
        return np.dtype(np.uint8) if node.op_type == "QuantizeLinear" else None
    return value.dtype.numpy()
