"""Weights on disk: safetensors files, float32 or float16, written under a temporary name and renamed."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from eightbit.errors import LoadError


def save_checkpoint(model: nn.Module, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write the model's tensors to `path`, floats as `dtype`; BatchNorm's step counters are left out."""
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Fill the model from `path`; float16 tensors are widened to the model's float32.

    Raises:
        LoadError: the file cannot be read, or its tensors are not the model's.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LoadError(f"checkpoint {path} cannot be read: {error}") from error
    fill(model, tensors, str(path))


def fill(model: nn.Module, tensors: dict[str, torch.Tensor], source: str) -> None:
    """Copy `tensors` into the model and check that nothing is missing, left over or mis-shaped.

    Raises:
        LoadError: names the tensors at fault.
    """
    wanted = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    missing, extra = wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys()
    if missing or extra:
        raise LoadError(
            f"{source} does not fit the model: missing {sorted(missing)[:5]}, not in the model {sorted(extra)[:5]}"
        )
    for name, value in wanted.items():
        if tensors[name].shape != value.shape:
            raise LoadError(
                f"{source}: tensor {name!r} has shape {tuple(tensors[name].shape)}, "
                f"the model's is {tuple(value.shape)}"
            )
    model.load_state_dict(tensors, strict=False)  # copies into the model's dtype; names were checked above
