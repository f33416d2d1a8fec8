"""PyTorch modules and exported programs -> float graph, through PyTorch's own exporter.

The module's forward code runs once under tracing, in eval mode. PyTorch is imported only if a model of it is given.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.data.given import is_whole, leaves_at
from eightbit.data.specs import Place, set_places
from eightbit.errors import LoadError, MissingExtra
from eightbit.graph.notes import note
from eightbit.graph.source import naming
from eightbit.graph.source.formless import formless
from eightbit.graph.source.quiet import silence
from eightbit.graph.source.reason import reason

OPSET = 21  # the opset of prepared graphs; asking PyTorch for it saves a conversion


NUMBERS = "fiubc"
"""Kinds of NumPy arrays that become tensors."""
SHAPES = ("Dim.", "Constraint", "dynamic_shapes")
"""Words by which PyTorch says that an axis is not as free as it was asked to be."""


def is_torch(source: Any) -> bool:
    """Whether `source` is a torch.nn.Module, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def is_exported(source: Any) -> bool:
    """Whether `source` is a torch.export.ExportedProgram, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.export.ExportedProgram)


def unwrapped(module: Any) -> Any:
    """The author's module inside DataParallel, DistributedDataParallel and what torch.compile returns.

    Raises LoadError for TorchScript: PyTorch exports modules.
    """
    torch = sys.modules["torch"]
    if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return unwrapped(module.module)
    if isinstance(module, torch.jit.ScriptModule):
        raise LoadError(
            f"{module.original_name} is a TorchScript module, which PyTorch does not export; give the nn.Module that "
            "was traced or scripted"
        )
    inner = getattr(module, "_orig_mod", None)
    return module if inner is None else unwrapped(inner)


def from_torch(module: Any, example: Any) -> ir.Model:
    """Export a torch.nn.Module in eval mode with a dynamic batch axis.

    `example` is one input set: a tensor or array, a tuple with an entry for each argument, or a dict by argument;
    entries may be tuples, lists and dicts of tensors, and what is no tensor (None, a flag) becomes part of the program.
    Axis 0 of every tensor becomes the free batch axis. If an input is integer (token ids), axis 1 of it and of every
    input as long becomes free as well where the module allows it: the sequence axis. Where the module does not allow
    axis 0 of some tensor, as recurrent layers do not for their states, each tensor has those free that it allows.
    The module's training flags are as before afterwards.
    Raises LoadError if there is no example or PyTorch cannot export the module.
    """
    module, torch = unwrapped(module), sys.modules["torch"]
    if example is None:
        raise LoadError(
            "a torch module needs an example input: load(module, example=torch.randn(1, 3, 224, 224))"
        )
    _require_onnxscript()
    with _evaluating(module), silence(), torch.no_grad():
        call = _Call.of(module, example)
        try:
            model = _with_free_axes(call.doubled())
            if model is None:
                model = call.exported(None)
                note(model, "the module's code allows no free axis: the batch is that of the example")
        except Exception as cause:
            said = formless(call.module, call.args, call.kwargs, reason(cause))
            raise LoadError(f"PyTorch could not export {type(module).__name__}: {said}") from cause
    tensors = [place for place, value in leaves_at(example) if is_whole(value)]
    names = [str(value.name) for value in model.graph.inputs]
    if len(names) == len(tensors) and all(map(_is_named_after, names, tensors)):
        set_places(model, dict(zip(names, tensors, strict=True)))
    return model


def _is_named_after(name: str, place: Place) -> bool:
    """Whether an input's name is what PyTorch makes of where it lies: the parameter's, and all keys below."""
    keys = place[1:] if isinstance(next(iter(place), 0), int) else place
    return name.endswith(re.sub(r"\W", "_", "_".join(map(str, keys))))


def from_exported(program: Any) -> ir.Model:
    """A torch.export.ExportedProgram, with the axes free that it was exported with. Raises LoadError."""
    _require_onnxscript()
    try:
        with silence():
            return _to_onnx(program, (), {}, None)
    except Exception as cause:
        raise LoadError(f"PyTorch could not convert the exported program: {reason(cause)}") from cause


def from_exported_file(path: Path) -> ir.Model:
    """The program in a .pt2 file that torch.export.save wrote. Raises LoadError or MissingExtra."""
    try:
        import torch
    except ImportError:
        raise MissingExtra("torch", "torch") from None
    try:
        with silence():
            program = torch.export.load(path)
    except Exception as cause:
        raise LoadError(
            f"PyTorch could not read {path}: {reason(cause)}; write it again with torch.export.save"
        ) from cause
    return from_exported(program)


def _with_free_axes(call: _Call | None) -> ir.Model | None:
    """The graph of a call of several samples, with the axes free that may be; None where none may."""
    if call is None:
        return None
    try:
        return call.exported(call.free_axes())
    except Exception as cause:
        if not any(word in reason(cause) for word in SHAPES):
            raise
    model = call.exported(call.free_axes(states=True))
    free = any(not isinstance(d, int) for value in model.graph.inputs for d in value.shape or ())
    return model if free else None


@dataclass(frozen=True)
class _Call:
    """A module and one set of arguments for it, tensors where it takes tensors."""

    module: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, module: Any, example: Any) -> _Call:
        """The call that `example` stands for. Raises LoadError if it does not fit the module's forward."""
        torch = sys.modules["torch"]
        kinds = {p.dtype for p in module.parameters() if p.is_floating_point()}
        dtype = kinds.pop() if len(kinds) == 1 else None

        def tensor(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                if not (hasattr(value, "__array__") or _is_table(value)):
                    return value
                array = np.ascontiguousarray(value).reshape(
                    np.shape(value)
                )  # PyTorch takes no negative strides
                if array.dtype.kind not in NUMBERS:
                    raise LoadError(f"the example holds an array of {array.dtype}; give arrays of numbers")
                value = torch.as_tensor(array)
            return value.to(dtype) if dtype is not None and value.is_floating_point() else value

        given = _mapped(example, tensor)
        args, kwargs = ((), given) if isinstance(given, dict) else (given, {})
        args = tuple(args) if isinstance(args, tuple | list) else (args,)
        takes = signature(module.forward)
        try:
            takes.bind(*args, **kwargs)
        except TypeError as cause:
            names = ", ".join(map(str, takes.parameters.values()))
            raise LoadError(
                f"the example does not fit {type(module).__name__}.forward({names}): {cause}; give a tuple with an "
                "entry for each argument, or a dict by name"
            ) from cause
        return cls(_with_keywords_named(module, kwargs), args, kwargs)

    def doubled(self) -> _Call | None:
        """This call with two samples where it has one: an axis of size 1 would be taken for a constant of the program.

        Samples lie on axis 0; where the module does not run so, on axis 1 of tensors of three axes and more (the
        states of recurrent layers). None for a module that runs one sample alone.
        """
        if not any(t.shape[axis_of(t)] == 1 for t in self._tensors for axis_of in SAMPLES if t.ndim):
            return self
        for axis_of in SAMPLES:
            found = self._changed(partial(_twice, axis_of=axis_of))
            with suppress(Exception):
                found.module(*found.args, **found.kwargs)
                return found
        return self if any(t.shape[0] > 1 for t in self._tensors if t.ndim) else None

    def free_axes(self, *, states: bool = False) -> dict[str, Any]:
        """The free axes of each argument; with `states`, as many of each tensor's first two as the module allows."""
        dim = sys.modules["torch"].export.Dim
        tokens = {
            t.shape[1]
            for t in self._tensors
            if t.ndim >= 2 and not t.is_floating_point() and not t.is_complex()
        }

        def free(t: Any) -> Any:
            if not _is_tensor(t):
                return None
            axes = {0: dim.AUTO if states else dim.DYNAMIC} if t.ndim else {}
            if (t.ndim >= 2 and t.shape[1] in tokens) or (states and t.ndim >= 3):
                axes[1] = dim.AUTO
            return axes

        bound = signature(self.module.forward).bind(*self.args, **self.kwargs).arguments
        return {name: _mapped(value, free) for name, value in bound.items()}

    def exported(self, shapes: dict[str, Any] | None) -> ir.Model:
        return _to_onnx(self.module, self.args, self.kwargs, shapes)

    @property
    def _tensors(self) -> list[Any]:
        found: list[Any] = []
        self._changed(found.append)
        return [t for t in found if _is_tensor(t)]

    def _changed(self, change: Callable[[Any], Any]) -> _Call:
        return replace(self, args=_mapped(self.args, change), kwargs=_mapped(self.kwargs, change))


def _to_onnx(source: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any) -> ir.Model:
    if args and isinstance(args[-1], dict) and not kwargs:
        args = (*args, {})  # a dict at the end is taken for keyword arguments
    program = sys.modules["torch"].onnx.export(
        source, args, kwargs=kwargs, dynamic_shapes=shapes, opset_version=OPSET, dynamo=True, verbose=False
    )
    # Through protobuf: the weights must not share memory with a module that may be trained on.
    model = ir.from_proto(ir.to_proto(program.model))
    naming.rename(model, naming.torch_scope, keep_parameters=True)
    return model


def _require_onnxscript() -> None:
    try:
        import onnxscript  # noqa: F401  torch.onnx.export(dynamo=True) stands on it
    except ImportError:
        raise MissingExtra("onnxscript", "torch") from None


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """The module in eval mode for a while, its weights in the order of their axes.

    With weights in channels_last PyTorch exports what pools and flattens as arithmetic on addresses.
    """
    training = [(part, part.training) for part in module.modules()]
    moved = [(p, p.data) for p in module.parameters() if _is_channels_last(p)]
    try:
        module.eval()
        for p, data in moved:
            p.data = data.clone(memory_format=sys.modules["torch"].contiguous_format)
        yield
    finally:
        for p, data in moved:
            p.data = data
        for part, flag in training:
            part.training = flag


def _is_channels_last(tensor: Any) -> bool:
    """Whether a weight lies so; one of 1x1 kernels lies in both orders, and its strides say which is meant."""
    torch = sys.modules["torch"]
    if torch.nn.parameter.is_lazy(tensor) or tensor.layout != torch.strided:
        return False
    orders = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.ndim in orders and tensor.is_contiguous(memory_format=orders[tensor.ndim])


def _with_keywords_named(module: Any, kwargs: Mapping[str, Any]) -> Any:
    """`module`, or a copy whose forward takes by name what goes into its **kw, which PyTorch's exporter refuses."""
    takes = signature(module.forward)
    others = [p for p in takes.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    more = [name for name in kwargs if name not in takes.parameters]
    if not more:
        return module

    def forward(*args: Any, **named: Any) -> Any:
        return type(module).forward(clone, *args, **named)

    clone = copy.copy(module)
    forward.__signature__ = Signature([*others, *(Parameter(n, Parameter.KEYWORD_ONLY) for n in more)])  # type: ignore[attr-defined]
    clone.forward = forward
    return clone


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with what lies in its tuples, lists and dicts changed."""
    if isinstance(value, Mapping):
        return {key: _mapped(part, change) for key, part in value.items()}
    if isinstance(value, tuple | list) and not _is_table(value):
        parts = [_mapped(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return change(value)


def _is_table(value: Any) -> bool:
    """Whether `value` is a list of lists of numbers, an array to be."""
    return isinstance(value, list) and is_whole(value) and isinstance(value[0], list)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, sys.modules["torch"].Tensor)


def _state_axis(tensor: Any) -> int:
    return 1 if tensor.ndim >= 3 and tensor.shape[1] == 1 else 0


SAMPLES: tuple[Callable[[Any], int], ...] = (lambda tensor: 0, _state_axis)
"""Where the samples lie in a tensor: what is tried, in this order."""


def _twice(value: Any, axis_of: Callable[[Any], int]) -> Any:
    if not _is_tensor(value):
        return value
    axis = axis_of(value)
    single = value.ndim > axis and value.shape[axis] == 1
    return sys.modules["torch"].cat([value, value], axis) if single else value
