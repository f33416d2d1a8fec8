"""PyTorch module, Keras model, file of either or of ONNX, or proto -> float graph (`onnx_ir.Model`).

The graph that comes out has passed ONNX's checker, holds its weights, is finite, uses opset 13 or newer,
has unique node and tensor names, and carries no exporter metadata. `fold.prepare` takes it from here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from eightbit.data.specs import specs
from eightbit.errors import EngineError, LoadError
from eightbit.graph import run
from eightbit.graph.checker import check
from eightbit.graph.model import OURS, check_weights
from eightbit.graph.source import keras_model, naming, onnx_file, torch_module
from eightbit.graph.source.constants import hold_constant
from eightbit.graph.source.operands import check_operands
from eightbit.graph.source.paths import from_path
from eightbit.graph.source.precision import to_float32

WEIGHTS_APART = 4
"""The first IR version whose weights need not be among the inputs of a graph."""


def load_graph(
    source: Any, example: Any = None, *, name: str | None = None, constants: Mapping[str, Any] | None = None
) -> ir.Model:
    """Turn `source` into a float graph.

    `source`: a torch.nn.Module (needs `example`, one input set), a torch.export.ExportedProgram, a keras.Model (needs
    one if it is subclassed), a path (see `from_path`), the bytes of an ONNX file, an onnx.ModelProto or an
    onnx_ir.Model; `name` replaces the graph's name, `constants` hold inputs (see
    `hold_constant`). The source is not changed.
    Raises LoadError (unreadable, unsafe, not finite, op unknown to ONNX Runtime) or MissingExtra.
    """
    if isinstance(source, ir.Model):
        model = onnx_file.graph_of(ir.to_proto(source))
    elif isinstance(source, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
        model = onnx_file.graph_of(copy)
    elif isinstance(source, str | os.PathLike):
        model = from_path(source)
    elif isinstance(source, bytes):
        model = onnx_file.read_bytes(source)
    elif torch_module.is_torch(source):
        model = torch_module.from_torch(source, example)
    elif torch_module.is_exported(source):
        model = torch_module.from_exported(source)
    elif keras_model.is_keras(source):
        model = keras_model.from_keras(source, example)
    else:
        raise LoadError(
            f"a {type(source).__name__} cannot be loaded; give a torch.nn.Module, a keras.Model, "
            "the path of a model's file or an onnx.ModelProto"
        )
    finished = _finished(model, name)
    hold_constant(finished, constants or {})
    return finished


def _finished(model: ir.Model, name: str | None) -> ir.Model:
    if model.functions:
        passes.InlinePass()(model)
    passes.RemoveInitializersFromInputsPass()(model)
    model.ir_version = max(model.ir_version, WEIGHTS_APART)
    if any(naming.TORCH_SCOPES in node.metadata_props for node in model.graph):
        naming.rename(model, naming.torch_scope, keep_parameters=True)  # a file that PyTorch exported
    passes.ClearMetadataAndDocStringPass()(model)
    ours = {key: text for key, text in model.metadata_props.items() if key.startswith(OURS)}
    model.metadata_props.clear()
    model.metadata_props.update(ours)  # what `compare` needs to know of an equalized graph
    model.doc_string = model.graph.doc_string = None
    naming.fill_names(model)
    to_float32(model)
    if name is not None:
        model.graph.name = name
    specs(model)
    check_weights(model)
    check_operands(model)
    try:
        check(run.to_proto(model))
    except onnx.checker.ValidationError as cause:
        raise LoadError(f"the ONNX checker refuses the model: {str(cause).splitlines()[0]}") from cause
    _ask_for_foreign(model)
    return model


def _ask_for_foreign(model: ir.Model) -> None:
    """An op outside the standard domain is welcome (it will run in float) if ONNX Runtime has it.

    ONNX infers nothing past such an op, so ONNX Runtime is asked for the types and shapes of what it makes, too; they
    are set in place. Raises LoadError.
    """
    foreign = [n for g in model.graphs() for n in g if n.domain not in ("", "ai.onnx")]
    if not foreign:
        return
    outer = {str(v.name): v for n in foreign if n.graph is model.graph for v in n.outputs if v.name}
    proto = run.to_proto(model)
    given = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outer if name not in given)
    try:
        session = run.session(proto.SerializeToString(), optimize=False, threads=1)
    except EngineError as cause:
        ops = ", ".join(dict.fromkeys(f"{n.domain}::{n.op_type} (node '{n.name}')" for n in foreign))
        raise LoadError(f"ONNX Runtime cannot run {ops}: {cause}; export without these ops") from cause
    symbols = {d.value for value in model.graph.inputs for d in value.shape or () if not isinstance(d, int)}
    for told in session.get_outputs():
        kind, value = told.type.removeprefix("tensor(").removesuffix(")").upper(), outer.get(told.name)
        if value is None or value.is_graph_output() or kind not in ir.DataType.__members__:
            continue
        value.dtype = value.dtype or ir.DataType[kind]
        if value.shape is None and told.shape:  # of an unknown rank it is empty, as of rank 0
            value.shape = ir.Shape([d if isinstance(d, int) or d in symbols else None for d in told.shape])
