"""Type and shape of a node's outputs from those of its inputs, node by node.

ONNX infers a whole graph at once or a single node; only the second can stand inside a walk that finds constants and
shape arithmetic on its way, so that one walk settles a network of any depth. An axis whose length cannot be inferred
gets a symbol of its own: two axes with one symbol have one length in every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import onnx
import onnx_ir as ir
from onnx import numpy_helper

from eightbit.errors import LoadError
from eightbit.graph.model import constant, is_op
from eightbit.graph.names import Names

MAX_KNOWN = 1024  # elements of a constant that inference may look at; targets, axes and pads hold fewer
ALIKE = ("GroupNormalization", "MeanVarianceNormalization")  # ONNX has no rule for them: like their input
Dim = int | str | None  # a length, the name of a free one, unknown


def dim(value: object) -> Dim:
    """One entry of an `ir.Shape` as a plain value."""
    if isinstance(value, int):
        return value
    return str(value.value) if isinstance(value, ir.SymbolicDim) and value.value is not None else None


def symbols(value: ir.Value | None) -> tuple[Dim, ...] | None:
    """The shape of `value` as plain values; None if even the rank is unknown."""
    return None if value is None or value.shape is None else tuple(dim(d) for d in value.shape)


class Inference:
    """Infers node after node of one model, in topological order.

    What the file says about inner tensors counts where inference knows nothing. A length that it contradicts shows
    that somebody changed the inputs and left the rest as it was: `stale` is then true, and the caller forgets it all.
    """

    def __init__(self, model: ir.Model) -> None:
        self.stale = False
        self._opsets = dict(model.opset_imports)
        self._imports = [onnx.helper.make_opsetid(name, v) for name, v in self._opsets.items()]
        self._ir_version = model.ir_version
        self._outputs = set(model.graph.outputs)
        self._given = {d for v in model.graph.inputs for d in symbols(v) or () if isinstance(d, str)}
        known = {d for n in model.graph for v in n.outputs for d in symbols(v) or () if isinstance(d, str)}
        self._names = Names(self._given | known)

    def infer(self, node: ir.Node) -> None:
        """Set dtype and shape of the outputs of `node`, in place, as far as they can be inferred.

        Raises LoadError for inputs of types that its operator does not take.
        """
        found = self._found(node)
        for value in node.outputs:
            proto = found.get(str(value.name))
            if proto is not None:
                kind = ir.serde.deserialize_type_proto_for_type(proto)
                if kind is not None and (value.type is None or value.dtype != kind.dtype):
                    value.type = kind
                shape = ir.serde.deserialize_type_proto_for_shape(proto)
                if shape is not None:
                    self.set_shape(value, [dim(d) for d in shape])

    def name_lengths(self, values: Iterable[ir.Value]) -> None:
        """Give a symbol to each axis of `values` that has neither length nor symbol, in place."""
        for value in values:
            known = symbols(value)
            if known is not None and None in known:
                value.shape = ir.Shape([self._names.fresh("unk") if d is None else d for d in known])

    def set_shape(self, value: ir.Value, found: Sequence[Dim]) -> None:
        """Merge what is known of a shape with what was just found out; None stands for nothing."""
        old = symbols(value)
        if old is None or len(old) != len(found):
            self.stale |= old is not None
            old = (None,) * len(found)
        known = [self._merged(was, now, value) for was, now in zip(old, found, strict=True)]
        if value.shape is None or tuple(known) != old:
            value.shape = ir.Shape(known)

    def _merged(self, old: Dim, new: Dim, value: ir.Value) -> Dim:
        if value in self._outputs:  # its shape is a promise to the caller: filled in, never changed
            return new if not isinstance(old, int) and (isinstance(new, int) or old is None) else old
        if isinstance(new, int) or new in self._given:
            self.stale |= isinstance(old, int) and old != new
            return new
        if isinstance(old, int) or old in self._given:
            return old
        return old if new is None else new

    def _found(self, node: ir.Node) -> dict[str, onnx.TypeProto]:
        """Types by output name; empty where ONNX has no rule for `node`, or not enough is known of its inputs."""
        inner = any(
            a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()
        )
        read = [v for v in node.inputs if v is not None]
        if inner or any(v.type is None for v in read):
            return {}
        try:
            version = self._opsets.get(node.domain, self._opsets.get("", 1))
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        except onnx.defs.SchemaError:
            return {}
        if not schema.has_type_and_shape_inference_function:
            return (
                {str(node.outputs[0].name): ir.serde.serialize_value(read[0]).type}
                if is_op(node, *ALIKE)
                else {}
            )
        try:
            return dict(
                onnx.shape_inference.infer_node_outputs(
                    schema,
                    ir.serde.serialize_node(node),
                    {str(v.name): ir.serde.serialize_value(v).type for v in read},
                    {str(v.name): t for v in read if (t := _small(v)) is not None},
                    opset_imports=self._imports,
                    ir_version=self._ir_version,
                )
            )
        except onnx.checker.ValidationError as cause:
            raise LoadError(
                f"node '{node.name}' ({node.op_type}): {str(cause).splitlines()[0]}; export the model again"
            ) from cause
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, KeyError):
            return {}  # the checker and ONNX Runtime say what is wrong with a node, better than inference does


def _small(value: ir.Value) -> onnx.TensorProto | None:
    shape = symbols(value)
    if shape is None or len(shape) > 1 or math.prod(d for d in shape if isinstance(d, int)) > MAX_KNOWN:
        return None
    array = constant(value)
    return (
        None if array is None or array.size > MAX_KNOWN else numpy_helper.from_array(array, str(value.name))
    )
