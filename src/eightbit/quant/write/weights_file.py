"""Quantized weights on their own: out of a QDQ graph into a safetensors file, and back behind a float graph's layers.

The file holds, for each layer, `<node>.weight` (codes, packed if they fit two or four bits), `<node>.scale`, and
where there is a bias `<node>.bias` with `<node>.bias_scale` if it is codes. Where it saves bytes, zeros are left out:
`<node>.where` has a bit for each code, and `<node>.weight` those that are not zero (`arith.sparse`). Its metadata hold
a map in JSON, for people and programs, under the key "eightbit": one entry a layer with the node, the tensor, bits,
granularity, axis of the output channels, shape, the bits a code takes in the file, and whether zeros are left out.
A file in which they are is of format 2, which versions that know format 1 alone refuse.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from eightbit.arith.packing import pack, unpack, width_of
from eightbit.arith.sparse import from_sparse, sparse_bytes, sparse_parts
from eightbit.errors import LoadError, QuantizationError
from eightbit.files import write_whole
from eightbit.graph.coded import float_name
from eightbit.graph.embeddings import float_table
from eightbit.graph.forms import LAYERS, channel_axis, is_layer
from eightbit.graph.model import attribute, constant, input_at, is_op
from eightbit.quant.choose.placement import Placement
from eightbit.quant.encode.weights import EncodedLayer
from eightbit.quant.observe.layout import Layout
from eightbit.quant.write.embeddings import encoded_tables, insert_tables
from eightbit.quant.write.qdq import insert_qdq
from eightbit.values.fields import AtLeast, OneOf, check

KEY = "eightbit"
DENSE, SPARSE = 1, 2
"""Formats of a file: with all codes, and with some layers' zeros left out."""
WORTH = 64
"""Bytes that leaving zeros out must save: the second tensor's name and place take some."""


@dataclass(frozen=True)
class _Entry:
    """What the map says of a layer, as far as reading needs it. Raises LoadError for what no layer has."""

    node: str
    shape: tuple[Annotated[int, AtLeast(0)], ...]
    packed: Annotated[int, OneOf(2, 4, 8, 16)]
    group: Annotated[int, AtLeast(1)] | None
    zeros: Literal["left out"] | None = None

    def __post_init__(self) -> None:
        check(self, LoadError)


def encoded_layers(qdq: ir.Model) -> dict[str, tuple[str, EncodedLayer]]:
    """The name of the weight, and its integers, for each layer (or table) of a QDQ graph whose weight is codes."""
    found = encoded_tables(qdq)
    for node in qdq.graph:
        if node.op_type in LAYERS and len(node.inputs) > 1:
            made = _encoded(node)
            if made is not None:
                found[str(node.name)] = made
    return found


def write_weights(qdq: ir.Model, path: str | os.PathLike[str]) -> Path:
    """Write the weights of a QDQ graph to a safetensors file, whole or not at all.

    Raises QuantizationError for a graph without quantized weights, ExportError if the place cannot be written.
    """
    return write_whole(weights_bytes(qdq), path)


def weights_bytes(qdq: ir.Model) -> bytes:
    """What `write_weights` writes. Raises QuantizationError for a graph without quantized weights."""
    layers = encoded_layers(qdq)
    if not layers:
        raise QuantizationError("the graph has no layer with quantized weights; quantize it first")
    nodes = {str(node.name): node for node in qdq.graph}
    tensors: dict[str, NDArray[Any]] = {}
    entries = []
    for node, (tensor, layer) in layers.items():
        width, sparse = width_of(layer.weight), is_sparse(layer.weight)
        if sparse:
            tensors[f"{node}.where"], tensors[f"{node}.weight"] = sparse_parts(layer.weight, width)
        else:
            tensors[f"{node}.weight"] = pack(layer.weight, width) if width < 8 else layer.weight
        tensors[f"{node}.scale"] = np.array(layer.scale, np.float32, order="C")
        if layer.bias is not None:
            tensors[f"{node}.bias"] = layer.bias
        if layer.bias_scale is not None:
            tensors[f"{node}.bias_scale"] = layer.bias_scale
        kinds = {0: "per tensor", 1: "per channel", 2: f"per group of {layer.group}"}
        entry = {
            "node": node,
            "tensor": tensor,
            "bits": int(np.abs(layer.weight.astype(np.int32)).max(initial=1)).bit_length() + 1,
            "granularity": kinds[layer.scale.ndim],
            "group": layer.group,
            "axis": channel_axis(nodes[node]),
            "shape": list(layer.weight.shape),
            "packed": width,
        }
        entries.append(entry | ({"zeros": "left out"} if sparse else {}))
    kept = SPARSE if any("zeros" in entry for entry in entries) else DENSE
    return save(tensors, metadata={KEY: json.dumps({"format": kept, "layers": entries}, indent=1)})


def is_sparse(codes: NDArray[np.integer]) -> bool:
    """Whether the file is smaller without the zeros among these codes."""
    width = width_of(codes)
    return sparse_bytes(codes, width) + WORTH < -(-codes.size * width // 8)


def with_weights(model: ir.Model, layers: Mapping[str, EncodedLayer]) -> ir.Model:
    """A weight-only QDQ graph: the float graph with `layers` in place of its own weights and biases, in float."""
    rows = {str(node.name) for node in model.graph if float_table(node) is not None}.intersection(layers)
    in_float = {
        name: replace(layer, bias=layer.real_bias, bias_scale=None)
        for name, layer in layers.items()
        if name not in rows
    }
    placement = Placement(tuple(in_float), (), (), {}, {}, ())
    written = model.clone()
    insert_qdq(written, placement, params={}, layers=in_float)
    insert_tables(written, {name: layers[name] for name in rows})
    return written


def read_weights(path: str | os.PathLike[str], model: ir.Model) -> dict[str, EncodedLayer]:
    """The layers of a file, checked against the float graph they shall go into.

    Raises LoadError for a file that is missing, truncated or of another kind, for a node that the graph does not have
    as a layer, and for a shape that differs.
    """
    file = Path(path)
    try:
        if not file.is_file():
            raise LoadError(f"{file} is no file; give the path of a .safetensors file")
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as cause:
        # A path or a data type that Python or NumPy does not know is none of safetensors' own errors.
        raise LoadError(f"{file} is truncated or no safetensors file: {cause}; copy it again") from cause
    try:
        nodes = {str(n.name): n for n in model.graph if is_layer(n) or float_table(n) is not None}
        return {entry.node: _decoded(entry, tensors, nodes) for entry in _entries(metadata)}
    except LoadError as cause:
        raise LoadError(f"{file}: {cause}") from cause


def _encoded(node: ir.Node) -> tuple[str, EncodedLayer] | None:
    """A layer's integers read off its DequantizeLinear nodes; None if its weight is float or a computed value."""
    source = node.inputs[1].producer() if node.inputs[1] is not None else None
    shape = None
    if is_op(source, "Reshape"):  # groups of a convolution: a matrix of codes takes the weight's shape
        assert source is not None
        target = constant(source.inputs[1])
        shape = None if target is None else tuple(int(d) for d in target)
        source = source.inputs[0].producer() if source.inputs[0] is not None else None
    if source is None or not is_op(source, "DequantizeLinear") or source.inputs[0] is None:
        return None
    codes, scale = constant(source.inputs[0]), constant(source.inputs[1])
    if codes is None or scale is None or codes.dtype not in (np.int8, np.int16):
        return None
    if shape is not None and np.prod(shape) != codes.size:
        return None  # 0 and -1 stand for lengths: a file of another's making
    group = attribute(source, "block_size", 0) or None
    if shape is None and group is not None and attribute(source, "axis", 1) == 0:
        scale = scale.T
    bias, bias_scale = _bias(node)
    if bias_scale is not None and bias is not None:
        if bias_scale.size not in (1, bias.size):
            return None  # a bias for each row of a batch, say: a file of another's making
        bias_scale = np.broadcast_to(bias_scale, bias.shape)
    codes = codes if shape is None else codes.reshape(shape)
    name = float_name(source.inputs[0])
    return name, EncodedLayer(codes, np.asarray(scale, np.float32), bias, bias_scale, group)


def _bias(node: ir.Node) -> tuple[NDArray[Any] | None, NDArray[np.float32] | None]:
    """Bias and scale of codes, or a float bias and None, or nothing."""
    value = input_at(node, 2)
    fixed = constant(value)
    if value is None or fixed is not None:
        return (None if fixed is None else np.ascontiguousarray(fixed.reshape(-1))), None
    source = value.producer()
    if source is None or not is_op(source, "DequantizeLinear"):
        return None, None
    codes, scale = constant(source.inputs[0]), constant(source.inputs[1])
    return None if codes is None else codes.reshape(-1), scale


def _entries(metadata: dict[str, str]) -> list[_Entry]:
    try:
        table = json.loads(metadata[KEY])
        if table["format"] not in (DENSE, SPARSE):
            raise LoadError(
                f"its weights are of format {table['format']!r}; this version reads {DENSE} and {SPARSE}"
            )
        return [
            _Entry(**{f.name: entry[f.name] for f in fields(_Entry) if f.name in entry or f.name != "zeros"})
            for entry in table["layers"]
        ]
    except (KeyError, TypeError, ValueError, RecursionError) as cause:
        raise LoadError(
            "it holds no map of quantized weights; eightbit.save_weights writes such files"
        ) from cause


def _decoded(entry: _Entry, tensors: dict[str, NDArray[Any]], nodes: dict[str, ir.Node]) -> EncodedLayer:
    name, shape = entry.node, entry.shape
    node = nodes.get(name)
    if node is None:
        raise LoadError(
            f"its layer {name!r} is none of the model's; the model has {', '.join(list(nodes)[:8])}: "
            "load the weights into the model that they were made from"
        )
    weight = constant(node.inputs[0 if is_op(node, "Gather") else 1])
    assert weight is not None
    if weight.shape != shape:
        raise LoadError(
            f"layer {name!r} has a weight of shape {weight.shape} in the model, {shape} in the file"
        )
    try:
        codes, scale = tensors[f"{name}.weight"], tensors[f"{name}.scale"]
        _is_of(name, "codes", codes, _TYPES.get(entry.packed, np.uint8))
        if entry.zeros is not None:
            codes = from_sparse(tensors[f"{name}.where"], codes, entry.packed, shape)
        else:
            codes = unpack(codes, entry.packed, shape) if entry.packed < 8 else codes.reshape(shape)
    except (KeyError, ValueError, QuantizationError) as cause:
        raise LoadError(f"layer {name!r}: its codes do not match the map ({cause})") from cause
    layout, group = Layout.of(node), entry.group
    channels = shape[layout.axis]
    inputs = layout.rows(weight).shape[2]
    alike = (
        [(channels, -(-inputs // group))]
        if group
        else [(channels,), *([] if is_op(node, "Gather") else [()])]
    )
    _is_of(name, "scales", scale, np.float32)
    if scale.shape not in alike:
        raise LoadError(f"layer {name!r}: scales of shape {scale.shape} do not fit {channels} channels")
    bias, bias_scale = tensors.get(f"{name}.bias"), tensors.get(f"{name}.bias_scale")
    if bias is not None:
        numbers: type[np.generic] = np.float32 if bias_scale is None else np.int32
        _is_of(name, "numbers of its bias", bias, numbers)
    if bias_scale is not None:
        _is_of(name, "scales of its bias", bias_scale, np.float32)
    for what, array in (("a bias", bias), ("scales of the bias", bias_scale)):
        if array is not None and array.shape != (channels,):
            raise LoadError(f"layer {name!r}: {what} of shape {array.shape} does not fit {channels} channels")
    return EncodedLayer(codes, scale, bias, bias_scale, group)


_TYPES: dict[int, type[np.generic]] = {8: np.int8, 16: np.int16}
"""Types by the bits that a code takes in the file; packed codes are bytes."""


def _is_of(layer: str, what: str, array: NDArray[Any], dtype: type[np.generic]) -> None:
    """Raise LoadError unless an array has the type that its part of the file has, and finite numbers."""
    if array.dtype != dtype:
        raise LoadError(f"layer {layer!r}: {what} are {array.dtype} in the file, not {np.dtype(dtype)}")
    if not np.isfinite(array).all():
        raise LoadError(f"layer {layer!r}: {what} hold NaN or Inf; copy the file again")
