"""A graph to a file that appears whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx_ir as ir

from eightbit.errors import ExportError
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


def write_whole(data: bytes, path: str | os.PathLike[str]) -> Path:
    """Write `data` to `path` through a temporary file in the same folder. Raises ExportError."""
    target = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; this one is an ordinary output
        os.replace(temporary, target)
    except BaseException as cause:  # Ctrl-C too must not leave the temporary file behind
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        if not isinstance(cause, OSError):
            raise
        raise ExportError(
            f"cannot write {target}: {cause.strerror or cause}; choose a writable place"
        ) from cause
    return target
