"""Everything that does not depend on an input is computed now.

Nodes whose inputs are all constants are run once in ONNX Runtime; nodes that hand on what they
get are removed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from eightbit.errors import EngineError
from eightbit.graph import run
from eightbit.graph.model import (
    add_constant,
    attribute,
    bypass,
    constant,
    input_at,
    is_op,
    make_constant,
    replace_node,
)

MAX_FOLDED_BYTES = 2**28  # a ConstantOfShape or Tile can promise any size
# Random ops are not constants, and a DequantizeLinear of a weight is a decision, not an accident.
UNFOLDABLE = {
    *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"),
    *("QuantizeLinear", "DequantizeLinear", "If", "Loop", "Scan"),
}


def fold_constant(node: ir.Node, opsets: Mapping[str, int]) -> bool:
    """Replace a node with constant inputs by initializers, in place."""
    if node.domain not in ("", "ai.onnx") or node.op_type in UNFOLDABLE or not node.inputs:
        return False
    inputs = [constant(v) for v in node.inputs]
    if any(a is None and v is not None for a, v in zip(inputs, node.inputs, strict=True)):
        return False
    if any(v.is_graph_output() for v in node.outputs) or _too_big(node):
        return False
    try:
        results = _evaluate(node, dict(opsets))
    except EngineError:
        return False  # ONNX Runtime lacks this op or type: it will say so when the model is run
    make_constant(node, results)
    return True


def squeeze_to_reshape(model: ir.Model) -> int:
    """Write float Squeeze/Unsqueeze with at most one free axis as Reshape to a constant; returns how many."""
    count = 0
    for node in list(model.graph):
        if not is_op(node, "Squeeze", "Unsqueeze"):
            continue
        output = node.outputs[0]
        if output.shape is None or output.dtype != ir.DataType.FLOAT:
            continue
        target = [d if isinstance(d, int) else -1 for d in output.shape]
        if target.count(-1) > 1:
            continue
        shape = add_constant(model.graph, f"{node.name}.1", np.array(target, np.int64))
        replace_node(node, ir.node("Reshape", [node.inputs[0], shape], name=node.name))
        count += 1
    return count


def drop_no_ops(model: ir.Model) -> int:
    """Remove Identity, Dropout, and Cast, Reshape, Transpose, Pad, Sum, Relu that change nothing; returns how many.

    And, of a Concat, constants without an element.
    """
    nodes = list(model.graph)
    dropped = sum(_drop_empty(node) for node in nodes if is_op(node, "Concat"))
    return dropped + sum(bypass(node, source) for node in nodes if (source := _passes_on(node)) is not None)


def _drop_empty(concat: ir.Node) -> bool:
    """Leave out the constants without an element, whose other axes ONNX Runtime lets differ."""
    arrays = [constant(value) for value in concat.inputs]
    kept = [i for i, array in enumerate(arrays) if array is None or array.size]
    if not kept or len(kept) == len(arrays):
        return False
    inputs = [concat.inputs[i] for i in kept]
    concat.resize_inputs(len(kept))
    for index, value in enumerate(inputs):
        concat.replace_input_with(index, value)
    return True


def _passes_on(node: ir.Node) -> ir.Value | None:
    """The input that `node` hands on unchanged, or None."""
    source = input_at(node, 0)
    if source is None:
        return None
    if is_op(node, "Identity"):
        return source
    if is_op(node, "Dropout"):
        training = constant(input_at(node, 2))
        off = input_at(node, 2) is None or (training is not None and not training.any())
        mask = node.outputs[1] if len(node.outputs) > 1 else None
        return source if off and (mask is None or not (mask.uses() or mask.is_graph_output())) else None
    if is_op(node, "Sum", "Mean", "Max", "Min", "Concat") and len(node.inputs) == 1:
        return source
    if is_op(node, "Relu"):
        return source if is_op(source.producer(), "Relu") else None
    if is_op(node, "Cast"):
        return source if source.dtype is not None and int(source.dtype) == attribute(node, "to") else None
    if is_op(node, "Transpose"):
        perm = attribute(node, "perm")
        return source if perm is not None and list(perm) == sorted(perm) else None
    if is_op(node, "Pad"):
        pads = constant(input_at(node, 1))
        return source if pads is not None and not pads.any() else None
    if is_op(node, "Reshape", "Expand"):
        shape = source.shape
        static = shape is not None and all(isinstance(d, int) for d in shape)
        return source if static and shape == node.outputs[0].shape else None
    return None


def _too_big(node: ir.Node) -> bool:
    total = 0
    for value in node.outputs:
        if value.shape is None or not all(isinstance(d, int) for d in value.shape):
            # Unknown before it is run: let only ops through that cannot outgrow their inputs.
            if is_op(
                node, "ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "OneHot", "EyeLike"
            ):
                return True
            continue
        total += 8 * math.prod(d for d in value.shape if isinstance(d, int))
    return total > MAX_FOLDED_BYTES


def _evaluate(node: ir.Node, opsets: dict[str, int]) -> list[np.ndarray]:
    """Run one node on its constant inputs, as written, in ONNX Runtime."""
    values: dict[ir.Value, ir.Value] = {}
    for value in node.inputs:
        if value is not None and value not in values:
            array = constant(value)
            assert array is not None
            name = f"i{len(values)}"
            tensor = ir.tensor(array, name=name)
            values[value] = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype))
            values[value].shape = ir.Shape(array.shape)
    outputs = [ir.Value(name=f"o{i}", type=v.type) for i, v in enumerate(node.outputs)]
    copy = ir.Node(
        node.domain,
        node.op_type,
        [None if v is None else values[v] for v in node.inputs],
        list(node.attributes.values()),
        outputs=outputs,
        name="node",
    )
    graph = ir.Graph(
        [], outputs, nodes=[copy], initializers=list(values.values()), opset_imports=opsets, name="g"
    )
    one = run.session(run.to_bytes(ir.Model(graph, ir_version=10)), optimize=False, threads=1)
    try:
        return [np.asarray(a) for a in one.run(None, {})]
    except Exception as cause:
        raise EngineError(str(cause)) from cause
