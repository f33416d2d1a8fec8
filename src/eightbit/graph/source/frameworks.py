"""PyTorch and Keras models -> float graph, through the frameworks' own exporters.

Both exporters run the model's forward code once under tracing; neither is imported unless its model is given.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from eightbit.errors import LoadError, MissingExtra
from eightbit.graph.source import naming
from eightbit.graph.source.quiet import silence

OPSET = 21  # the opset of prepared graphs; asking PyTorch for it saves a conversion
COPIES = "TF2ONNX_CATCH_ERRORS"
"""If it is set, to whatever, tf2onnx makes no copies of the graph to go back to."""


def is_torch(source: Any) -> bool:
    """Whether `source` is a torch.nn.Module, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def is_keras(source: Any) -> bool:
    """Whether `source` is a keras.Model, without importing keras."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(source, keras.Model)


def from_torch(module: Any, example: Any) -> ir.Model:
    """Export a torch.nn.Module in eval mode with a dynamic batch axis.

    `example` is one input set: a tensor or array, a tuple of them, or a dict of keyword arguments. Axis 0
    of every tensor becomes the free batch axis. If an input is integer (token ids), axis 1 of it and of
    every input as long becomes free as well where the module allows it: the sequence axis.
    The module's training flags are as before afterwards.
    Raises LoadError if there is no example or PyTorch cannot export the module.
    """
    if example is None:
        raise LoadError(
            "a torch module needs an example input: load(module, example=torch.randn(1, 3, 224, 224))"
        )
    torch = sys.modules["torch"]
    try:
        import onnxscript  # noqa: F401  torch.onnx.export(dynamo=True) stands on it
    except ImportError:
        raise MissingExtra("onnxscript", "torch") from None

    def tensor(value: Any) -> Any:
        value = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
        # An axis of size 1 in the example would be taken for a constant of the program.
        return torch.cat([value, value]) if value.ndim and value.shape[0] == 1 else value

    args, kwargs, shapes = _arguments(example, tensor, torch)
    training = [(m, m.training) for m in module.modules()]
    try:
        with silence(), torch.no_grad():
            module.eval()
            program = torch.onnx.export(
                module,
                args,
                kwargs=kwargs,
                dynamic_shapes=shapes,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as cause:
        raise LoadError(f"PyTorch could not export {type(module).__name__}: {_reason(cause)}") from cause
    finally:
        for part, flag in training:
            part.training = flag
    # Through protobuf: the weights must not share memory with a module that may be trained on.
    model = ir.from_proto(ir.to_proto(program.model))
    naming.rename(model, naming.torch_scope, keep_parameters=True)
    return model


def from_keras(model: Any, example: Any) -> ir.Model:
    """Export a keras.Model with its inputs as the source takes them (NHWC) and a free batch axis.

    Without `example`, the model is called once on zeros of its declared input shapes.
    Raises LoadError if these are unknown or Keras cannot export the model.
    """
    for package in ("tensorflow", "tf2onnx"):
        try:
            with silence():
                __import__(package)
        except ImportError:
            raise MissingExtra(package, "tensorflow") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            with silence():
                model(_keras_example(model) if example is None else example, training=False)
                _export(model, path)
        except LoadError:
            raise
        except Exception as cause:
            raise LoadError(f"Keras could not export {type(model).__name__}: {_reason(cause)}") from cause
        graph = ir.from_proto(onnx.load(path))
    layers = [layer.name for layer in model._flatten_layers(include_self=False)]
    naming.rename(graph, naming.keras_scope(model.name, layers), keep_parameters=False)
    return graph


def _export(model: Any, path: Path) -> None:
    """Export to ONNX, in a third less time without the copy of all weights that tf2onnx makes for each of its passes.

    The copies are there so that a pass that fails can be left out; if one does, we start again with them.
    """
    before = os.environ.get(COPIES)
    os.environ[COPIES] = "FALSE" if before is None else before
    try:
        model.export(str(path), format="onnx", verbose=False)
    except Exception:
        del os.environ[COPIES]
        model.export(str(path), format="onnx", verbose=False)
    finally:
        os.environ.pop(COPIES, None)
        if before is not None:
            os.environ[COPIES] = before


def _arguments(example: Any, tensor: Any, torch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Positional and keyword arguments of torch.onnx.export, and the free axes of both."""
    if isinstance(example, Mapping):
        kwargs = {str(k): tensor(v) for k, v in example.items()}
        return (), kwargs, dict(zip(kwargs, _free_axes(list(kwargs.values()), torch), strict=True))
    args = tuple(tensor(v) for v in (example if isinstance(example, tuple | list) else (example,)))
    return args, {}, tuple(_free_axes(list(args), torch))


def _free_axes(tensors: list[Any], torch: Any) -> list[dict[int, Any]]:
    dim = torch.export.Dim
    tokens = {t.shape[1] for t in tensors if t.ndim >= 2 and not t.is_floating_point() and not t.is_complex()}
    axes: list[dict[int, Any]] = []
    for t in tensors:
        free = {0: dim.DYNAMIC} if t.ndim else {}
        if t.ndim >= 2 and t.shape[1] in tokens:
            free[1] = dim.AUTO
        axes.append(free)
    return axes


def _keras_example(model: Any) -> Any:
    if not model.inputs:
        raise LoadError(
            f"the shapes of {model.name}'s inputs are unknown; give an example: load(model, example=x)"
        )
    for tensor in model.inputs:
        if any(d is None for d in tensor.shape[1:]):
            raise LoadError(
                f"input '{tensor.name}' of {model.name} has shape {tensor.shape}; give an example of a size"
            )
    zeros = [np.zeros((1, *t.shape[1:]), t.dtype) for t in model.inputs]
    return zeros[0] if len(zeros) == 1 else zeros


def _reason(cause: BaseException) -> str:
    """The line of an exporter's long message that says what went wrong: the innermost cause's first."""
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__
