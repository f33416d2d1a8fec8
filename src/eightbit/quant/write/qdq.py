"""Write the codes into the graph: QuantizeLinear and DequantizeLinear pairs around integer work.

In: a prepared float graph, its placement, the parameters of each tensor and the codes of each layer. Out: the same
graph, in which constant weights are int8 and biases int32, and which ONNX Runtime fuses to integer kernels. Weights
and activations of more than 8 bits are int16 and uint16; ONNX Runtime has no kernels for them and computes in float32.

A float tensor `t` becomes `t_q` (codes) and `t_dq`, with scale `t_s` and zero point `t_z`; a weight `w` becomes the
constants `w_q`, `w_s`, `w_z` and the value `w_dq`. Where a tensor of the model has such a name already, ours get a
number: `graph.coded` reads off which codes are whose.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.arith.affine import QuantParams, quantize
from eightbit.graph.coded import CODES
from eightbit.graph.forms import FUSED, is_layer
from eightbit.graph.model import (
    add_constant,
    constant,
    drop_unread,
    input_at,
    register_constant,
    set_constant,
)
from eightbit.graph.names import counted, unique_name, unique_node_name, unique_stem
from eightbit.quant.choose.placement import Placement
from eightbit.quant.encode.weights import EncodedLayer
from eightbit.quant.observe.layout import Layout


def insert_qdq(
    model: ir.Model,
    placement: Placement,
    *,
    params: Mapping[str, QuantParams],
    layers: Mapping[str, EncodedLayer],
) -> None:
    """Quantize every tensor of `placement` by `params` and every layer's weight by `layers`, in place.

    `params` has an entry for each tensor of `placement.observed`; `layers` for each name in `placement.layers`.
    """
    with counted(model.graph):
        _write(_Writer(model.graph, placement, params), placement, layers)
    drop_unread(model.graph)


def _write(writer: _Writer, placement: Placement, layers: Mapping[str, EncodedLayer]) -> None:
    graph = writer.graph
    for node in list(graph):
        if node.name in placement.absorbed:
            writer.drop_clamp(node)
    inside = {*placement.layers, *placement.integer, *placement.moves, *placement.functions}
    held = {island.node for island in placement.islands if island.op in FUSED}
    originals = list(graph)
    for value in [*graph.inputs, *(out for node in originals for out in node.outputs)]:
        if value.name in placement.sources:
            writer.pair(value, inside, held)
    for node in originals:
        layer = layers.get(str(node.name))
        if layer is not None:
            writer.constants_of_layer(node, layer)
        elif node.name in placement.integer:
            writer.constants_of_integer(node)


class _Writer:
    """Edits one graph; keeps the constants already written so that tensors can share them."""

    def __init__(self, graph: ir.Graph, placement: Placement, params: Mapping[str, QuantParams]) -> None:
        self.graph = graph
        self.sources = placement.sources
        self.params = params
        self.scales: dict[str, tuple[ir.Value, ir.Value]] = {}

    def drop_clamp(self, node: ir.Node) -> None:
        """Remove a clamp that saturation makes redundant: its producer yields the clamp's output directly."""
        before, name = node.inputs[0], node.outputs[0].name
        assert before is not None
        ir.convenience.replace_all_uses_with(node.outputs[0], before, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        before.name = name

    def pair(self, value: ir.Value, inside: set[str], held: set[str]) -> None:
        """Put Q and DQ behind a float value, and lead its consumers to the dequantized one.

        ONNX Runtime makes an integer kernel of any layer between DQ and Q, float weights or not (it quantizes them
        itself, in a pass called WeightBiasQuantization). The nodes in `held` shall stay in float, so they read the
        value through a Sum of one term, which no runtime fuses.
        """
        name = value.name
        assert name is not None
        producer = value.producer()
        is_integer = producer is not None and producer.name in inside
        users = [
            (node, index)
            for node, index in value.uses()
            if is_integer or node.name in inside or node.name is None
        ]
        is_output = value.is_graph_output() and is_integer
        scale, zero_point = self._parameters(self.sources[name])
        made, codes = self._coded(value, name, zero_point)
        after = self._value(f"{name}_dq", ir.DataType.FLOAT, value.shape)
        if is_output:  # the outer name stays at the outer border
            value.name, after.name = unique_name(self.graph, f"{name}_f"), name
        dq = self._node("DequantizeLinear", [codes, scale, zero_point], after, f"{name}_DQ")
        pair = [*made, dq]
        outside = [user for user in users if user[0].name in held]
        if outside:
            copy = self._value(f"{name}_held", ir.DataType.FLOAT, value.shape)
            pair.append(self._node("Sum", [after], copy, f"{name}_held"))
        for node, index in users:
            node.replace_input_with(index, copy if (node, index) in outside else after)
        if is_output:
            for index, output in enumerate(self.graph.outputs):
                if output is value:
                    self.graph.outputs[index] = after
        if producer is None:
            first = next(iter(self.graph))
            self.graph.insert_before(first, pair)
        else:
            self.graph.insert_after(producer, pair)

    def _coded(self, value: ir.Value, name: str, zero_point: ir.Value) -> tuple[list[ir.Node], ir.Value]:
        """The nodes that make codes of a float value, and the codes.

        Codes of fewer than eight bits lie in a byte, and Q alone would use all of it: a Clip of the codes cuts them
        off. What carries codes (`sources`) carries them as they are.
        """
        source = self.sources[name]
        scale, _ = self._parameters(source)
        itype = self.params[source].itype
        codes = self._value(f"{name}_q", zero_point.dtype, value.shape)
        if itype.bits >= 8 or source != name:
            return [self._node("QuantizeLinear", [value, scale, zero_point], codes, f"{name}_Q")], codes
        wide = self._value(f"{name}_wide", zero_point.dtype, value.shape)
        ends = [
            add_constant(self.graph, f"{name}_{end}", np.asarray(bound, itype.dtype))
            for end, bound in (("lowest", itype.qmin), ("highest", itype.qmax))
        ]
        q = self._node("QuantizeLinear", [value, scale, zero_point], wide, f"{name}_Q")
        return [q, self._node("Clip", [wide, *ends], codes, f"{name}_Clip")], codes

    def constants_of_layer(self, node: ir.Node, layer: EncodedLayer) -> None:
        """Replace a layer's float weight and bias by codes behind DequantizeLinear."""
        weight = node.inputs[1]
        assert weight is not None and weight.name is not None and is_layer(node)
        name = self._stem(weight.name)
        node.replace_input_with(1, self._weight(node, name, layer))
        if layer.bias is None:
            return
        old = input_at(node, 2)
        stem = (
            f"{name}_bias" if old is None else str(old.name)
        )  # bias correction may bring a bias where none was
        if layer.bias_scale is None:
            set_constant(node, 2, layer.bias, stem=stem)
            return
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        axis = 0 if layer.scale.ndim else None
        scale = layer.bias_scale if axis is not None else layer.bias_scale[:1].reshape(())
        node.replace_input_with(2, self._dequantized(node, self._stem(stem), layer.bias, scale, None, axis))

    def _weight(self, node: ir.Node, name: str, layer: EncodedLayer) -> ir.Value:
        """The float value of a layer's codes.

        Groups lie along one axis in ONNX. A convolution's go over channels and taps, so its codes are kept as a matrix,
        one row an output channel, and take the weight's shape behind DequantizeLinear.
        """
        layout, codes, scale = Layout.of(node), layer.weight, layer.scale
        zeros = np.zeros(scale.shape, codes.dtype)
        if layer.group is None:
            axis = layout.axis if scale.ndim else None
            return self._dequantized(node, name, codes, scale, zeros, axis)
        if codes.ndim == 2:
            scale = scale if layout.axis == 0 else np.ascontiguousarray(scale.T)
            axis = 1 - layout.axis
            return self._dequantized(node, name, codes, scale, zeros.reshape(scale.shape), axis, layer.group)
        rows = np.ascontiguousarray(layout.rows(codes).reshape(len(scale), -1))
        flat = self._dequantized(node, name, rows, scale, zeros, 1, layer.group)
        shape = add_constant(self.graph, f"{name}_shape", np.asarray(codes.shape, np.int64))
        whole = self._value(f"{name}_whole", ir.DataType.FLOAT, ir.Shape(codes.shape))
        self.graph.insert_before(node, [self._node("Reshape", [flat, shape], whole, f"{name}_whole")])
        return whole

    def constants_of_integer(self, node: ir.Node) -> None:
        """Quantize the constant operands of an integer op by the parameters found for them."""
        for index, value in enumerate(node.inputs):
            array, p = constant(value), self.params.get(str(value.name) if value is not None else "")
            if array is None or p is None or value is None:
                continue
            codes = quantize(array.astype(np.float32), p).astype(p.itype.dtype)
            zero_point = np.asarray(p.zero_point, p.itype.dtype)
            name = self._stem(str(value.name))
            node.replace_input_with(index, self._dequantized(node, name, codes, p.scale, zero_point, None))

    def _dequantized(
        self,
        node: ir.Node,
        name: str,
        codes: NDArray[np.generic],
        scale: NDArray[np.float32],
        zero_point: NDArray[np.integer] | None,
        axis: int | None,
        group: int = 0,
    ) -> ir.Value:
        arrays = ((CODES, codes), ("_s", scale), *([] if zero_point is None else [("_z", zero_point)]))
        inputs = [register_constant(self.graph, name + ending, array) for ending, array in arrays]
        after = _typed(f"{name}_dq", ir.DataType.FLOAT, ir.Shape(codes.shape))
        attributes = ({} if axis is None else {"axis": axis}) | ({"block_size": group} if group else {})
        dq = self._node("DequantizeLinear", inputs, after, f"{name}_DQ", attributes)
        self.graph.insert_before(node, [dq])
        return after

    def _parameters(self, source: str) -> tuple[ir.Value, ir.Value]:
        if source not in self.scales:
            p = self.params[source]
            scale = add_constant(self.graph, f"{source}_s", np.asarray(p.scale, np.float32))
            zero_point = add_constant(self.graph, f"{source}_z", np.asarray(p.zero_point, p.itype.dtype))
            self.scales[source] = scale, zero_point
        return self.scales[source]

    def _stem(self, name: str) -> str:
        """What the names around a constant begin with; numbered for the second node that reads it (tied weights)."""
        return unique_stem(self.graph, name, (CODES, "_s", "_z", "_dq"))

    def _value(self, stem: str, dtype: ir.DataType | None, shape: ir.Shape | None) -> ir.Value:
        return _typed(unique_name(self.graph, stem), dtype, shape)

    def _node(
        self,
        op: str,
        inputs: list[ir.Value],
        output: ir.Value,
        stem: str,
        attributes: Mapping[str, int] | None = None,
    ) -> ir.Node:
        return ir.node(op, inputs, attributes, outputs=[output], name=unique_node_name(self.graph, stem))


def _typed(name: str, dtype: ir.DataType | None, shape: ir.Shape | None) -> ir.Value:
    return ir.Value(name=name, type=None if dtype is None else ir.TensorType(dtype), shape=shape)
