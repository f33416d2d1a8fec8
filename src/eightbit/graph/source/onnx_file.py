"""An ONNX file or proto that a stranger made, read into a checked `onnx.ModelProto` or refused.

Parsing alone checks nothing: protobuf accepts many random bytes, `onnx.load` follows what the file says
about external data, and shape inference can exhaust memory. So sizes and paths are checked before
any of them is believed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import external_data_helper

from eightbit.errors import LoadError
from eightbit.graph.checker import check
from eightbit.graph.model import MAX_BYTES
from eightbit.graph.notes import drop_notes, note
from eightbit.graph.source.conversion import (
    COMMON_OPSET,
    MIN_OPSET,
    compared,
    converted,
    first_line,
    graphs,
    opset_of,
)
from eightbit.graph.source.dictionaries import scores_given

SUB_BYTE_BITS: dict[int, int] = {
    **dict.fromkeys((onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.FLOAT4E2M1), 4),
    **dict.fromkeys((onnx.TensorProto.INT2, onnx.TensorProto.UINT2), 2),
    **{kind: 6 for name, kind in onnx.TensorProto.DataType.items() if name.startswith("FLOAT6")},
}
PAIRS = (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128)
"""Types that take two numbers of the file for each of theirs."""


def read_file(path: str | os.PathLike[str]) -> ir.Model:
    """Read a file and the external data beside it; the result holds all weights and has passed the checker.

    Raises LoadError, naming the file, if it is missing, too big, truncated, not ONNX, or points outside.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        if not file.is_file():
            raise LoadError(f"{file} is not a file; give the path of an .onnx file")
        if size > MAX_BYTES:
            raise LoadError(f"{file} holds {size:,} bytes, more than the {MAX_BYTES:,} that are accepted")
        data = file.read_bytes()
    except (OSError, ValueError) as cause:  # ValueError: a zero byte in the path
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise LoadError(f"{file} cannot be read: {reason}; give the path of an .onnx file") from cause
    proto = _parsed(data, str(file))
    try:
        _load_external(proto, file)
        return graph_of(proto)
    except LoadError as cause:
        raise LoadError(f"{file}: {cause}") from cause.__cause__


def with_weights(file: Path) -> set[Path]:
    """A file that `read_file` has read, and the files beside it that hold its weights, as PyTorch writes them."""
    tensors = _tensors(_parsed(file.read_bytes(), str(file)).graph)
    entries = [e for t in tensors for e in t.external_data if e.key == "location"]
    return {file, *(file.parent / entry.value for entry in entries)}


def read_bytes(data: bytes) -> ir.Model:
    """The same for the bytes of a file that holds its weights itself."""
    return graph_of(_parsed(data, f"what these {len(data):,} bytes hold"))


def _parsed(data: bytes, called: str) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(data)
    except DecodeError as cause:
        raise LoadError(f"{called} is truncated or not an ONNX file; export or copy it again") from cause
    if proto.ir_version == 0 or not (proto.graph.node or proto.graph.output):
        raise LoadError(
            f"{called} is truncated or not an ONNX file: it holds no graph; export or copy it again"
        )
    return proto


def graph_of(proto: onnx.ModelProto) -> ir.Model:
    """The graph of a model in memory, which may be changed, after the checks, at opset 13 or newer. Raises LoadError.

    The notes that it brings are of another loading.
    """
    said = scores_given(proto)
    known = checked(proto)
    if (opset_of(known) or MIN_OPSET) < MIN_OPSET:
        known = converted(known)
        unsure = compared(proto, known)
        said += [] if unsure is None else [unsure]
    try:
        model = ir.from_proto(known)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError) as cause:
        reason: BaseException = cause
        while reason.__cause__ is not None:
            reason = reason.__cause__
        raise LoadError(f"the ONNX model cannot be read: {first_line(reason)}; export it again") from cause
    drop_notes(model)
    for text in said:
        note(model, text)
    return model


def checked(proto: onnx.ModelProto) -> onnx.ModelProto:
    """`proto` after the size checks and ONNX's checker.

    Raises LoadError naming the tensor or node at fault.
    """
    if proto.ir_version == 0 or not proto.graph.output:
        raise LoadError(
            "the ONNX model has no output, so that nothing could be asked of it; export it with one"
        )
    _check_texts(proto)
    for tensor in _tensors(proto.graph):
        _check_size(tensor)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for d in value.type.tensor_type.shape.dim:
            if d.HasField("dim_value") and d.dim_value == -1:
                d.Clear()  # what some exporters write for a free axis, and ONNX Runtime takes for one
        if any(d.HasField("dim_value") and d.dim_value < 0 for d in value.type.tensor_type.shape.dim):
            sizes = tuple(
                d.dim_value if d.HasField("dim_value") else d.dim_param
                for d in value.type.tensor_type.shape.dim
            )
            raise LoadError(
                f"'{value.name}' has shape {sizes}: no axis can be shorter than 0; -1 is a free one"
            )
    try:
        check(proto)
    except (onnx.checker.ValidationError, ValueError) as cause:
        raise LoadError(f"the ONNX checker refuses the model: {first_line(cause)}") from cause
    if opset_of(proto) is None:  # no node needs it, the checker has seen; those that quantization adds will
        proto.opset_import.add(domain="", version=COMMON_OPSET)
    return proto


def _check_texts(message: Message) -> None:
    """Refuse names that are no text: protobuf hands them over as bytes, and takes them back from nobody."""
    for field, value in message.ListFields():
        parts = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        if field.type == FieldDescriptor.TYPE_STRING:
            for text in parts:
                if isinstance(text, bytes):
                    raise LoadError(f"the {field.name} {text!r} is not text in UTF-8; export the model again")
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in parts:
                if not isinstance(
                    part, onnx.TensorProto
                ):  # whose numbers would be copied; its name is read somewhere
                    _check_texts(part)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for inner in graphs(graph):
        yield from inner.initializer
        for sparse in inner.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _check_size(tensor: onnx.TensorProto) -> None:
    """Compare what the dims promise with the bytes that are there, in Python integers: no overflow."""
    if any(d < 0 for d in tensor.dims):
        raise LoadError(f"tensor '{tensor.name}' has negative dims {list(tensor.dims)}")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise LoadError(
            f"tensor '{tensor.name}' keeps its data in another file; load the model from its path"
        )
    if tensor.HasField("raw_data"):
        wanted = _byte_count(tensor)
        if wanted is not None and wanted != len(tensor.raw_data):
            raise LoadError(
                f"tensor '{tensor.name}' with dims {list(tensor.dims)} needs {wanted:,} bytes, "
                f"the file holds {len(tensor.raw_data):,}; export or copy it again"
            )
        return
    try:
        numbers = getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))
    except KeyError:
        raise LoadError(f"tensor '{tensor.name}' has the unknown data type {tensor.data_type}") from None
    if int(tensor.data_type) not in (*SUB_BYTE_BITS, *PAIRS) and len(numbers) != math.prod(tensor.dims):
        raise LoadError(
            f"tensor '{tensor.name}' with dims {list(tensor.dims)} needs {math.prod(tensor.dims):,} numbers, "
            f"the file holds {len(numbers):,}; export or copy it again"
        )


def _byte_count(tensor: onnx.TensorProto) -> int | None:
    bits = SUB_BYTE_BITS.get(int(tensor.data_type))
    if bits is None:
        try:
            bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except KeyError:
            raise LoadError(f"tensor '{tensor.name}' has the unknown data type {tensor.data_type}") from None
        if tensor.data_type == onnx.TensorProto.STRING:
            return None
    return (math.prod(tensor.dims) * bits + 7) // 8


def _load_external(proto: onnx.ModelProto, file: Path) -> None:
    """Read external data into `proto`, refusing every path that leaves the model's own folder."""
    outside = [t for t in _tensors(proto.graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    total = 0
    for tensor in outside:
        total += _check_external(tensor, file.parent)
    if total > MAX_BYTES:
        raise LoadError(f"the external weights take {total:,} bytes, more than the {MAX_BYTES:,} accepted")
    try:
        for tensor in outside:
            external_data_helper.load_external_data_for_tensor(tensor, str(file.parent))
            tensor.ClearField("data_location")
            del tensor.external_data[:]
    except Exception as cause:  # onnx's own path checks raise several kinds
        raise LoadError(f"external data cannot be read: {first_line(cause)}") from cause


def _check_external(tensor: onnx.TensorProto, folder: Path) -> int:
    """Bytes of one external tensor once its location, offset and length are found harmless."""
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    said = f"tensor '{tensor.name}' keeps its data in {location!r}"
    if not location or os.path.isabs(location) or ".." in location.replace("\\", "/").split("/"):
        raise LoadError(f"{said}: only a relative path inside the model's folder is accepted")
    target = folder / location
    steps = [target, *list(target.parents)[: len(Path(location).parts) - 1]]
    if any(step.is_symlink() for step in steps):
        raise LoadError(f"{said}: it is a symbolic link, which is not followed; copy the file itself")
    if not target.is_file():
        raise LoadError(f"{said}: there is no such file beside the model")
    if target.stat().st_nlink > 1:
        raise LoadError(f"{said}: it is a hard link to another file; copy the file itself")
    try:
        offset = int(entries.get("offset", "0") or 0)
        length = int(entries["length"]) if entries.get("length") else None
    except ValueError:
        raise LoadError(f"{said}: its offset or length is no integer") from None
    wanted = _byte_count(tensor)
    length = wanted if length is None else length
    size = target.stat().st_size
    if offset < 0 or length is None or length < 0 or offset + length > size:
        raise LoadError(
            f"{said}: bytes {offset:,} to {offset + (length or 0):,} of a file of {size:,}; copy it again"
        )
    if wanted != length:
        raise LoadError(f"{said}: dims {list(tensor.dims)} need {wanted:,} bytes, {length:,} are declared")
    return length
