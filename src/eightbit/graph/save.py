"""A graph to the bytes of an ONNX file, and to a file that opens, or none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from eightbit.errors import ExportError, LoadError
from eightbit.files import check_place, write_whole
from eightbit.graph.packing import packed
from eightbit.graph.run import to_proto
from eightbit.graph.sharing import shared


def save_graph(model: ir.Model, path: str | os.PathLike[str], read: Callable[[bytes], object]) -> Path:
    """Write `model` as one ONNX file and return its path.

    What opens such a file, `read`, reads the bytes first: that costs a tenth of a second for a ResNet-50 in int8, and
    what cannot be opened is not written. The bytes then go to a temporary file beside the place, which takes its name;
    an interrupted save loses nothing. Raises ExportError if the place cannot be written, or the file could not be read.
    """
    check_place(path)
    data = file_bytes(model)
    try:
        read(data)
    except LoadError as cause:
        raise ExportError(
            f"{os.fspath(path)} is not written, for it would not open: {cause}; please report the model"
        ) from cause
    return write_whole(data, path)


def file_bytes(model: ir.Model) -> bytes:
    """The bytes of the file that `save_graph` writes. Raises EngineError above 2 GiB.

    Constants that hold the same are one (`sharing`), and weights of four and two bits are packed (`packing`).
    Shapes of inner tensors are left out: readers infer them, and in a small network they outweigh the biases.
    """
    proto = to_proto(packed(shared(model)))
    del proto.graph.value_info[:]
    return proto.SerializeToString()
