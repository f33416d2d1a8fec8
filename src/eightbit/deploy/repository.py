"""A model repository as NVIDIA Triton and KServe's Triton runtime read it: NAME/config.pbtxt and NAME/1/model.onnx.

In: a graph. Out: a folder. Source of the layout and of the fields: Triton
Inference Server, "Model Repository" and "Model Configuration".
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from eightbit.data.specs import TensorSpec, output_specs, specs
from eightbit.errors import ExportError
from eightbit.files import write_whole
from eightbit.graph.save import file_bytes

MOST_TOGETHER = 64
"""Samples that the server may put into one run, where the model takes any number."""
TYPES = {
    **{f"float{bits}": f"TYPE_FP{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"TYPE_INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"TYPE_UINT{bits}" for bits in (8, 16, 32, 64)},
    "bool": "TYPE_BOOL",
}
"""Triton's name of a dtype; strings are TYPE_STRING."""


@dataclass(frozen=True)
class Repository:
    """What was written: the repository, the model's name in it, and how many samples a run may hold (0: as fixed)."""

    path: Path
    name: str
    together: int

    def __str__(self) -> str:
        runs = f"up to {self.together} samples a run" if self.together else "one request a run"
        return f"{self.path}: model {self.name}, version 1, {runs}"


def write_repository(model: ir.Model, folder: str | os.PathLike[str], name: str) -> Repository:
    """Write a model into the repository `folder`.

    The folder is made if need be, and what else lies in it stays. config.pbtxt comes last: a server that watches the
    folder finds a whole model or none. Raises ExportError.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not name.strip("."):
        raise ExportError(f"{name!r} is no name of a model: use letters, digits, '_', '-' and '.'")
    most = together(model)
    text, content = config(name, specs(model), output_specs(model), most), file_bytes(model)
    path = Path(folder, name, "1", "model.onnx")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise ExportError(f"cannot make the folder {path.parent}: {cause.strerror or cause}") from cause
    write_whole(content, path)
    write_whole(text.encode(), Path(folder, name, "config.pbtxt"))
    return Repository(Path(folder), name, most)


def together(model: ir.Model) -> int:
    """The samples of different requests that a run may hold: `MOST_TOGETHER` where every first axis is free, else 0.

    It is 0, too, where activations are quantized in every run by one range a tensor: that is the whole batch's, and an
    answer would depend on who else asked.
    """
    inputs = specs(model)
    free = all(spec.shape and spec.shape[0] is None for spec in (*inputs, *output_specs(model)))
    dynamic = any(node.op_type == "DynamicQuantizeLinear" for node in model.graph.all_nodes())
    return MOST_TOGETHER if free and inputs and not dynamic else 0


def config(name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], most: int) -> str:
    """The text of config.pbtxt, for runs of up to `most` samples. Raises ExportError for a dtype that Triton lacks.

    With batches Triton counts the samples itself, and no axis of `dims` does.
    """
    lines = [
        f"# {name}: int8, written by eightbit",
        f"name: {quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {most}",
    ]
    for kind, ends in (("input", inputs), ("output", outputs)):
        for spec in ends:
            dims = ", ".join("-1" if n is None else str(n) for n in spec.shape[bool(most) :])
            lines += [
                f"{kind} {{",
                *(f"  name: {quoted(spec.name)}", f"  data_type: {_type(spec)}", f"  dims: [{dims}]"),
                "}",
            ]
    if most:
        lines.append("dynamic_batching { }")
    lines += ["instance_group { kind: KIND_CPU }", "version_policy { latest { num_versions: 1 } }"]
    return "\n".join(lines) + "\n"


def _type(spec: TensorSpec) -> str:
    found = "TYPE_STRING" if spec.dtype.kind in "OSU" else TYPES.get(np.dtype(spec.dtype).name)
    if found is None:
        raise ExportError(f"{spec.name!r} is {spec.dtype}, which Triton has no type for: {', '.join(TYPES)}")
    return found


def quoted(text: str) -> str:
    r"""A string of protobuf's text format; names come from strangers' files.

    >>> print(quoted('a"b'))
    "a\042b"
    """
    plain = (chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\{b:03o}" for b in text.encode())
    return f'"{"".join(plain)}"'
