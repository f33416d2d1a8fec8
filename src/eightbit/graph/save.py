"""A graph to the bytes of an ONNX file, and to a file that appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

from eightbit.files import write_whole
from eightbit.graph.packing import packed
from eightbit.graph.run import to_proto


def save_graph(model: ir.Model, path: str | os.PathLike[str]) -> Path:
    """Write `model` as one ONNX file and return its path.

    The bytes go to a temporary file beside it, which then takes the name; an interrupted save loses nothing.
    Raises ExportError if the place cannot be written.
    """
    return write_whole(file_bytes(model), path)


def file_bytes(model: ir.Model) -> bytes:
    """The bytes of the file that `save_graph` writes. Raises EngineError above 2 GiB.

    Weights of four and two bits are packed (`packing`).
    Shapes of inner tensors are left out: readers infer them, and in a small network they outweigh the biases.
    """
    proto = to_proto(packed(model))
    del proto.graph.value_info[:]
    return proto.SerializeToString()
