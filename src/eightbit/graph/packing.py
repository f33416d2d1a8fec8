"""Narrow weights: one byte a code while the graph is worked on, two or four codes a byte in its file.

In memory every weight code is an int8 behind DequantizeLinear, which is what integer kernels take. In the file a
tensor whose codes fit four or two bits is an INT4 or INT2 tensor, and a Cast to int8 stands behind it:

    INT4 codes -> Cast(to INT8) -> DequantizeLinear -> Conv

A DequantizeLinear of INT4 itself would leave the convolution in float; the Cast is a constant that ONNX Runtime folds
when it loads the file, so the file runs on integer kernels there, whoever opens it. INT2 needs opset 25.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from eightbit.arith.packing import pack, width_of
from eightbit.graph.checker import check
from eightbit.graph.model import constant, is_op
from eightbit.graph.names import counted, unique_name, unique_node_name
from eightbit.graph.run import to_proto

TYPES = {2: ir.DataType.INT2, 4: ir.DataType.INT4}
OPSETS = {2: (25, 13), 4: (21, 10)}
"""The first opset and file version that know a width."""
WORTH = 128
"""Bytes that packing must save: the Cast and the names around it take some 80."""


def packed_widths(model: ir.Model) -> dict[str, int]:
    """Which constants `packed` packs: `{name of the codes: 2 or 4}`.

    A file of an opset below 21 holds no INT4; and where the checker does not take the graph at opset 25, two bits are
    kept as four.
    """
    if model.opset_imports.get("", 0) < OPSETS[4][0]:
        return {}
    found = {}
    for node in model.graph:
        value = node.inputs[0] if is_op(node, "DequantizeLinear", "Gather") else None
        if value is None or not value.is_initializer() or value.is_graph_output():
            continue
        codes = constant(value)
        if codes is None or codes.dtype != np.int8:
            continue
        width = width_of(codes)
        if codes.size * (8 - width) >= 8 * WORTH:
            found[str(value.name)] = width
    if 2 in found.values() and not _fits_opset(model, *OPSETS[2]):
        return dict.fromkeys(found, 4)
    return found


def packed(model: ir.Model) -> ir.Model:
    """A copy whose narrow weights are INT4 and INT2 tensors, ready to be written; `model` itself if it has none."""
    widths = packed_widths(model)
    if not widths:
        return model
    result = model.clone()
    _raise_opset(result, *(max(pair) for pair in zip(*(OPSETS[w] for w in widths.values()), strict=True)))
    with counted(result.graph):
        for name, width in widths.items():
            _pack(result.graph, name, width)
    return result


def _pack(graph: ir.Graph, name: str, width: int) -> None:
    """Put a tensor of `width` bits and a Cast where the int8 codes `name` are, in place."""
    value = graph.initializers[name]
    codes = constant(value)
    assert codes is not None
    narrow = unique_name(graph, f"{name}{width}")
    tensor = ir.PackedTensor(pack(codes, width), TYPES[width], shape=ir.Shape(codes.shape), name=narrow)
    source = ir.Value(
        name=narrow, type=ir.TensorType(TYPES[width]), shape=ir.Shape(codes.shape), const_value=tensor
    )
    del graph.initializers[name]
    value.name = None
    wide = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT8), shape=ir.Shape(codes.shape))
    ir.convenience.replace_all_uses_with(value, wide)
    graph.register_initializer(source)
    called = unique_node_name(graph, f"{name}_Cast")
    cast = ir.node("Cast", [source], {"to": int(ir.DataType.INT8)}, outputs=[wide], name=called)
    graph.insert_before(_first_reader(graph, wide), [cast])


def unpack_in_place(model: ir.Model) -> int:
    """Make the INT4 and INT2 constants behind a Cast to int8 int8 constants again; returns how many."""
    graph, count = model.graph, 0
    for node in list(graph):
        source = node.inputs[0] if is_op(node, "Cast") else None
        if source is None or source.dtype not in TYPES.values() or node.outputs[0].is_graph_output():
            continue
        codes = constant(source)
        if codes is None or node.attributes["to"].value != ir.DataType.INT8:
            continue
        old = node.outputs[0]
        name, old.name = str(old.name), None
        tensor = ir.tensor(codes.astype(np.int8), name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(codes.shape), const_value=tensor
        )
        graph.register_initializer(value)
        ir.convenience.replace_all_uses_with(old, value)
        graph.remove(node, safe=True)
        if source.is_initializer() and not source.uses():
            del graph.initializers[str(source.name)]
        count += 1
    return count


def _first_reader(graph: ir.Graph, value: ir.Value) -> ir.Node:
    users = {use.node for use in value.uses()}
    return next(node for node in graph if node in users)


def _raise_opset(model: ir.Model, opset: int, ir_version: int) -> None:
    """From 21 to 25 the operators only gained types and attributes whose defaults are what they did before."""
    model.opset_imports[""] = max(model.opset_imports[""], opset)
    model.ir_version = max(model.ir_version, ir_version)


def _fits_opset(model: ir.Model, opset: int, ir_version: int) -> bool:
    raised = model.clone()
    _raise_opset(raised, opset, ir_version)
    try:
        check(to_proto(raised))
    except onnx.checker.ValidationError:
        return False
    return True
