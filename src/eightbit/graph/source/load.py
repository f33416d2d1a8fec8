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
    _refuse_unknown_domains(model)
    return model


def _refuse_unknown_domains(model: ir.Model) -> None:
    """An op outside the standard domain is welcome (it will run in float) if ONNX Runtime has it."""
    foreign = [n for g in model.graphs() for n in g if n.domain not in ("", "ai.onnx")]
    if not foreign:
        return
    try:
        run.session(run.to_bytes(model), optimize=False, threads=1)
    except EngineError as cause:
        ops = ", ".join(dict.fromkeys(f"{n.domain}::{n.op_type} (node '{n.name}')" for n in foreign))
        raise LoadError(f"ONNX Runtime cannot run {ops}: {cause}; export without these ops") from cause
