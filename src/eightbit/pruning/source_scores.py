"""What the model that a graph was made from says of its channels: the scales of BatchNorm, the slopes of the loss.

Loading folds BatchNorm into the layers, and a graph has no gradients. So these are read off the source itself: a torch
module, or, for the scales, an ONNX file that still has its BatchNormalization nodes. Layers keep their names in the
graph; a channel's score is that of the layer's output channel, and a unit's the sum over the layers that make it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.data.feeds import as_numpy
from eightbit.data.given import given, leaves
from eightbit.data.replay import once
from eightbit.data.specs import TensorSpec
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.graph.model import constant, is_op
from eightbit.graph.source.load import load_graph
from eightbit.graph.source.torch_module import is_torch
from eightbit.model import Model

Rows = dict[str, NDArray[np.float64]]
"""A score for each output channel, (C,), by the name of the layer."""
TOGETHER = 32
"""Samples of a batch, where the data are one large one."""


def norm_scales(source: Any, data: Any, inputs: tuple[TensorSpec, ...]) -> Rows:
    """`|gamma|` of the BatchNorm behind each layer that has one.

    A torch module is run once, on the first batch of `data`, to see which layer a BatchNorm reads. Raises
    QuantizationError for a source whose BatchNorm was folded already, or that has none.
    """
    if isinstance(source, Model):
        raise QuantizationError(
            "load folds BatchNorm into the layers; give prune the torch module or the ONNX file itself"
        )
    found = _torch_scales(source, data, inputs) if is_torch(source) else _graph_scales(source)
    if not found:
        raise QuantizationError(
            f"this {type(source).__name__} has no BatchNorm behind a layer; rank by Magnitude()"
        )
    return found


def taylor_rows(module: Any, data: Any, inputs: tuple[TensorSpec, ...]) -> Rows:
    """The squared change of the loss without each output channel, to first order, in the mean over batches.

    A channel's is (g b + sum g w)² over its weights w and bias b with gradients g; where a BatchNorm follows, w and b
    are its scale and shift. The loss is the cross entropy of `data`'s labels. Raises QuantizationError for anything but
    a torch module, CalibrationError for data without labels or that can be read only once.
    """
    if not is_torch(module):
        raise QuantizationError(
            f"Taylor() needs gradients, and a {type(module).__name__} has none; give a torch module, or rank by "
            "Reconstruction(), which needs none"
        )
    if data is None or once(data):
        raise CalibrationError("Taylor() needs labelled data that can be read more than once")
    import torch

    readers = _readers(module, next(_batches(data, inputs))[0])
    parts = dict(module.named_modules())
    total: Rows = {}
    was = [(part, part.training) for part in module.modules()]
    module.eval()
    count = 0
    with torch.enable_grad():
        for arrays, labels in _batches(data, inputs):
            if labels is None:
                raise CalibrationError("Taylor() needs labels: give (inputs, labels)")
            module.zero_grad(set_to_none=True)
            outputs = module(*_tensors(module, arrays))
            said = outputs[0] if isinstance(outputs, tuple | list) else outputs
            truth = torch.as_tensor(labels).long().to(said.device)
            torch.nn.functional.cross_entropy(said, truth).backward()
            for name, norm in readers.items():
                change = _changes(parts[name] if norm is None else norm)
                total[name] = total.get(name, np.zeros(len(change))) + change**2
            count += 1
    module.zero_grad(set_to_none=True)
    for part, training in was:
        part.training = training
    return {name: rows / count for name, rows in total.items()}


def _changes(part: Any) -> NDArray[np.float64]:
    """The sum of gradient times value over the parameters of each output channel, (C,)."""
    transposed = type(part).__name__.startswith("ConvTranspose")
    found = 0.0
    for parameter in (part.weight, part.bias):
        if parameter is not None and parameter.grad is not None:
            product = (parameter.detach() * parameter.grad).double()
            product = product.transpose(0, 1) if transposed and product.ndim > 1 else product
            found = found + product.flatten(1).sum(1) if product.ndim > 1 else found + product
    return np.asarray(found.cpu() if hasattr(found, "cpu") else np.zeros(len(part.weight)))


def _torch_scales(module: Any, data: Any, inputs: tuple[TensorSpec, ...]) -> Rows:
    readers = _readers(module, next(_batches(data, inputs))[0])
    return {
        name: norm.weight.detach().abs().double().cpu().numpy()
        for name, norm in readers.items()
        if norm is not None and norm.weight is not None
    }


def _readers(module: Any, arrays: tuple[Any, ...]) -> dict[str, Any]:
    """Each layer of a torch module that ran, with the BatchNorm that reads its output, or None."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd

    made: dict[int, tuple[str, Any]] = {}
    found: dict[str, Any] = {}
    handles = []

    def after(name: str) -> Any:
        def hook(part: Any, given: Any, output: Any) -> None:
            found.setdefault(name, None)
            made[id(output)] = name, output  # kept, so that no other tensor takes over its id

        return hook

    def before(norm: Any, given: Any) -> None:
        if id(given[0]) in made:
            found[made[id(given[0])][0]] = norm

    for name, part in module.named_modules():
        if isinstance(part, torch.nn.Linear | _ConvNd):
            handles.append(part.register_forward_hook(after(name)))
        elif isinstance(part, _BatchNorm):
            handles.append(part.register_forward_pre_hook(before))
    was = [(part, part.training) for part in module.modules()]
    try:
        with torch.no_grad():
            module.eval()(*_tensors(module, arrays))
    finally:
        for handle in handles:
            handle.remove()
        for part, training in was:
            part.training = training
    return found


def _tensors(module: Any, arrays: tuple[Any, ...]) -> list[Any]:
    """Arrays as tensors where the module's parameters are."""
    import torch

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return [torch.as_tensor(array).to(device) for array in arrays]


def _graph_scales(source: Any) -> Rows:
    found: Rows = {}
    for node in load_graph(source).graph:
        if is_op(node, "BatchNormalization") and node.inputs[0] is not None:
            layer, scale = node.inputs[0].producer(), constant(node.inputs[1])
            if layer is not None and scale is not None:
                found[str(layer.name)] = np.abs(scale.astype(np.float64))
    return found


def _batches(data: Any, inputs: tuple[TensorSpec, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Batches of at most TOGETHER samples: the inputs in their order, and labels or None."""
    for batch, labels in given(data, inputs, CalibrationError):
        if isinstance(batch, Mapping):
            arrays = tuple(as_numpy(batch[spec.name]) for spec in inputs)
        else:
            arrays = tuple(as_numpy(leaf) for leaf in leaves(batch))
        arrays = tuple(a.astype(s.dtype, copy=False) for a, s in zip(arrays, inputs, strict=True))
        truth = None if labels is None else as_numpy(labels)
        for start in range(0, len(arrays[0]), TOGETHER):
            part = slice(start, start + TOGETHER)
            yield tuple(a[part] for a in arrays), None if truth is None else truth[part]
