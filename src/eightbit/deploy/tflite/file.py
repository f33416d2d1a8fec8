"""The bytes of a .tflite file: the flatbuffer of TensorFlow Lite's schema, which the package ai-edge-litert brings.

Constants begin at multiples of 16 bytes, as the schema asks and microcontrollers need. The file names one signature,
`serving_default`, whose inputs and outputs have the names of the quantized graph's; its metadata say which runtime is
the oldest that knows all the operators.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from eightbit.deploy.tflite.net import Net, Operator, Tensor
from eightbit.deploy.tflite.prepare import net_of
from eightbit.errors import MissingExtra
from eightbit.files import write_whole
from eightbit.integer.program import Program

SIGNATURE = "serving_default"
ALIGNMENT = 16
OPERATORS: dict[str, tuple[str, int, str]] = {
    "ABS": ("", 1, "1.13.0"),
    "ADD": ("AddOptions", 2, "1.14.0"),
    "AVERAGE_POOL_2D": ("Pool2DOptions", 2, "1.14.0"),
    "BATCH_MATMUL": ("BatchMatMulOptions", 2, "2.3.0"),
    "BROADCAST_TO": ("BroadcastToOptions", 2, "2.5.0"),
    "CAST": ("CastOptions", 1, "1.5.0"),
    "CEIL": ("", 1, "1.14.0"),
    "CONCATENATION": ("ConcatenationOptions", 2, "1.14.0"),
    "CONV_2D": ("Conv2DOptions", 3, "1.14.0"),
    "COS": ("", 1, "1.14.0"),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", 3, "1.14.0"),
    "DEQUANTIZE": ("", 5, "2.7.0"),
    "DIV": ("DivOptions", 1, "1.6.0"),
    "ELU": ("", 1, "1.14.0"),
    "EQUAL": ("", 1, "1.14.0"),
    "EXP": ("", 1, "1.7.0"),
    "FLOOR": ("", 1, "1.9.0"),
    "FULLY_CONNECTED": ("FullyConnectedOptions", 12, "2.17.0"),
    "GATHER": ("GatherOptions", 2, "1.14.0"),
    "GATHER_ND": ("", 3, "2.5.0"),
    "GELU": ("GeluOptions", 1, "2.9.0"),
    "GREATER": ("", 1, "1.14.0"),
    "GREATER_EQUAL": ("", 1, "1.14.0"),
    "HARD_SWISH": ("", 1, "1.15.0"),
    "LEAKY_RELU": ("LeakyReluOptions", 1, "1.13.1"),
    "LESS": ("", 1, "1.14.0"),
    "LESS_EQUAL": ("", 1, "1.14.0"),
    "LOG": ("", 1, "1.14.0"),
    "LOGICAL_AND": ("", 1, "1.11.0"),
    "LOGICAL_NOT": ("", 1, "1.11.0"),
    "LOGICAL_OR": ("", 1, "1.11.0"),
    "LOGISTIC": ("", 1, "1.14.0"),
    "MAXIMUM": ("MaximumMinimumOptions", 2, "1.14.0"),
    "MAX_POOL_2D": ("Pool2DOptions", 2, "1.14.0"),
    "MEAN": ("ReducerOptions", 2, "1.14.0"),
    "MINIMUM": ("MaximumMinimumOptions", 2, "1.14.0"),
    "MIRROR_PAD": ("MirrorPadOptions", 2, "2.3.0"),
    "MUL": ("MulOptions", 2, "1.14.0"),
    "NEG": ("", 1, "1.9.0"),
    "PAD": ("PadOptions", 2, "1.14.0"),
    "PADV2": ("PadV2Options", 2, "1.14.0"),
    "POW": ("", 1, "1.10.0"),
    "PRELU": ("", 1, "1.8.0"),
    "QUANTIZE": ("QuantizeOptions", 2, "1.15.0"),
    "REDUCE_MAX": ("ReducerOptions", 2, "1.14.0"),
    "REDUCE_MIN": ("ReducerOptions", 1, "1.11.0"),
    "REDUCE_PROD": ("ReducerOptions", 1, "1.11.0"),
    "RELU": ("", 2, "2.1.0"),
    "RELU6": ("", 1, "1.5.0"),
    "RESHAPE": ("ReshapeOptions", 1, "1.5.0"),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", 3, "2.2.0"),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", 3, "2.3.0"),
    "ROUND": ("", 1, "1.14.0"),
    "RSQRT": ("", 1, "1.10.0"),
    "SELECT_V2": ("", 1, "2.2.0"),
    "SIN": ("", 1, "1.9.0"),
    "SOFTMAX": ("SoftmaxOptions", 2, "1.14.0"),
    "SQRT": ("", 1, "1.10.0"),
    "SQUARED_DIFFERENCE": ("", 1, "1.13.1"),
    "STRIDED_SLICE": ("StridedSliceOptions", 2, "1.14.0"),
    "SUB": ("SubOptions", 1, "1.6.0"),
    "SUM": ("ReducerOptions", 1, "1.10.0"),
    "TANH": ("", 1, "1.14.0"),
    "TRANSPOSE_CONV": ("TransposeConvOptions", 3, "2.3.0"),
    "TRANSPOSE": ("TransposeOptions", 2, "1.14.0"),
}
"""The options that say something, the version that takes what is written here, and TensorFlow's first release with it
(lite/tools/versioning)."""


@dataclass(frozen=True)
class TfliteFile:
    """What was written: where, how many bytes, and how many operators of each kind."""

    path: Path
    size: int
    operators: Mapping[str, int]

    def __str__(self) -> str:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(self.operators.items()))
        return f"{self.path}: {self.size:,} bytes; {counted}"


def write_tflite(program: Program, path: str | os.PathLike[str]) -> TfliteFile:
    """Write the program as a .tflite file, whole or not at all; one sample a call.

    Raises ExportError for what TensorFlow Lite cannot say (all reasons at once) and for a place that cannot be written,
    MissingExtra without the extra `litert`.
    """
    net = net_of(program)
    data = to_bytes(net)
    write_whole(data, Path(path))
    return TfliteFile(Path(path), len(data), Counter(operator.kind for operator in net.operators))


def schema() -> ModuleType:
    """The module of the schema. Raises MissingExtra where it is not installed."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as cause:
        raise MissingExtra("ai-edge-litert, whose schema a .tflite file needs,", "litert") from cause
    found: ModuleType = schema_py_generated
    return found


def to_bytes(net: Net) -> bytes:
    """The file of a network."""
    fb = schema()
    import flatbuffers

    made = fb.ModelT(version=3, description="eightbit")
    buffers = [b""]  # the first one is that of tensors without data
    index = {name: i for i, name in enumerate(net.tensors)}
    tensors = []
    for tensor in net.tensors.values():
        place = 0
        if tensor.data is not None:
            place = len(buffers)
            buffers.append(tensor.data.tobytes())
        tensors.append(_tensor(fb, tensor, place))
    kinds = sorted({operator.kind for operator in net.operators})
    made.operatorCodes = [_code(fb, kind) for kind in kinds]
    ends = [[index[port.buffer] for port in ports] for ports in (net.inputs, net.outputs)]
    operators = [_operator(fb, operator, kinds, index) for operator in net.operators]
    made.subgraphs = [fb.SubGraphT(tensors, *ends, operators, "main")]
    maps = [
        [fb.TensorMapT(port.tensor, index[port.buffer]) for port in ports]
        for ports in (net.inputs, net.outputs)
    ]
    made.signatureDefs = [fb.SignatureDefT(*maps, SIGNATURE, 0)]
    made.metadata = [fb.MetadataT("min_runtime_version", len(buffers))]
    buffers.append(_oldest_runtime(kinds).encode().ljust(16, b"\0"))
    made.buffers = [_buffer(fb, data) for data in buffers]
    builder = flatbuffers.Builder(sum(map(len, buffers)) + 4096)
    builder.Finish(made.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _buffer(fb: Any, data: bytes) -> Any:
    class Aligned(fb.BufferT):  # the generated class aligns bytes as bytes
        def Pack(self, builder: Any) -> int:
            place = None
            if data:
                builder.StartVector(1, len(data), ALIGNMENT)
                builder.head -= len(data)
                builder.Bytes[builder.head : builder.head + len(data)] = data
                place = builder.EndVector()
            fb.BufferStart(builder)
            if place is not None:
                fb.BufferAddData(builder, place)
            return int(fb.BufferEnd(builder))

    return Aligned()


def _tensor(fb: Any, tensor: Tensor, buffer: int) -> Any:
    kind = getattr(fb.TensorType, tensor.dtype.name.upper())
    made = fb.TensorT(list(tensor.shape), kind, buffer, tensor.name, hasRank=True)
    q = tensor.quantization
    if q is not None:
        zeros = np.full(q.scale.shape, q.zero_point, np.int64)
        made.quantization = fb.QuantizationParametersT(
            scale=q.scale.astype(np.float32), zeroPoint=zeros, quantizedDimension=q.axis
        )
    return made


def _code(fb: Any, kind: str) -> Any:
    code = getattr(fb.BuiltinOperator, kind)
    return fb.OperatorCodeT(min(code, 127), None, OPERATORS[kind][1], code)


def _operator(fb: Any, operator: Operator, kinds: list[str], index: dict[str, int]) -> Any:
    ends = [[index[name] for name in names] for names in (operator.inputs, operator.outputs)]
    made = fb.OperatorT(kinds.index(operator.kind), *ends)
    options = OPERATORS[operator.kind][0]
    if options:
        made.builtinOptionsType = getattr(fb.BuiltinOptions, options)
        made.builtinOptions = getattr(fb, f"{options}T")(**operator.options)
    return made


def _oldest_runtime(kinds: list[str]) -> str:
    releases = [OPERATORS[kind][2] for kind in kinds] or ["1.5.0"]
    return max(releases, key=lambda text: tuple(map(int, text.split("."))))
