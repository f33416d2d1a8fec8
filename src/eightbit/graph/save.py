"""A graph to the bytes of an ONNX file, and to a file that appears whole or not at all."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import onnx
import onnx_ir as ir

from eightbit.files import write_whole
from eightbit.graph.packing import packed
from eightbit.graph.run import to_proto

SMALL = 256
"""Bytes below which a constant is not worth looking at."""


def save_graph(model: ir.Model, path: str | os.PathLike[str]) -> Path:
    """Write `model` as one ONNX file and return its path.

    The bytes go to a temporary file beside it, which then takes the name; an interrupted save loses nothing.
    Raises ExportError if the place cannot be written.
    """
    return write_whole(file_bytes(model), path)


def file_bytes(model: ir.Model) -> bytes:
    """The bytes of the file that `save_graph` writes. Raises EngineError above 2 GiB.

    Weights of four and two bits are packed (`packing`); constants that hold the same are written once.
    Shapes of inner tensors are left out: readers infer them, and in a small network they outweigh the biases.
    """
    proto = to_proto(packed(model))
    del proto.graph.value_info[:]
    _write_once(proto.graph)
    return proto.SerializeToString()


def _write_once(graph: onnx.GraphProto) -> None:
    """Leave one of the large constants that hold the same, in place: a kernel that many layers share is many in a graph
    whose layers may be rounded apart.
    """
    fixed = {value.name for value in (*graph.input, *graph.output)}
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    renamed: dict[str, str] = {}
    for tensor in graph.initializer:
        if len(tensor.raw_data) < SMALL or tensor.name in fixed:
            continue
        held = first.setdefault(
            (tensor.data_type, tuple(tensor.dims), sha256(tensor.raw_data).digest()), tensor.name
        )
        if held != tensor.name:
            renamed[tensor.name] = held
    if not renamed:
        return
    kept = [tensor for tensor in graph.initializer if tensor.name not in renamed]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    waiting = [graph]
    while waiting:
        for node in waiting.pop().node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs
