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
    "ADD": ("AddOptions", 2, "1.14.0"),
    "AVERAGE_POOL_2D": ("Pool2DOptions", 2, "1.14.0"),
    "BATCH_MATMUL": ("BatchMatMulOptions", 2, "2.3.0"),
    "CAST": ("CastOptions", 1, "1.5.0"),
    "CONCATENATION": ("ConcatenationOptions", 2, "1.14.0"),
    "CONV_2D": ("Conv2DOptions", 3, "1.14.0"),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", 3, "1.14.0"),
    "FULLY_CONNECTED": ("FullyConnectedOptions", 12, "2.17.0"),
    "GATHER": ("GatherOptions", 2, "1.14.0"),
    "MAX_POOL_2D": ("Pool2DOptions", 2, "1.14.0"),
    "MAXIMUM": ("MaximumMinimumOptions", 2, "1.14.0"),
    "MEAN": ("ReducerOptions", 2, "1.14.0"),
    "MINIMUM": ("MaximumMinimumOptions", 2, "1.14.0"),
    "MIRROR_PAD": ("MirrorPadOptions", 2, "2.3.0"),
    "MUL": ("MulOptions", 2, "1.14.0"),
    "PAD": ("PadOptions", 2, "1.14.0"),
    "PADV2": ("PadV2Options", 2, "1.14.0"),
    "QUANTIZE": ("QuantizeOptions", 2, "1.15.0"),
    "RELU": ("", 2, "2.1.0"),
    "RESHAPE": ("ReshapeOptions", 1, "1.5.0"),
    "SOFTMAX": ("SoftmaxOptions", 2, "1.14.0"),
    "STRIDED_SLICE": ("StridedSliceOptions", 2, "1.14.0"),
    "TRANSPOSE": ("TransposeOptions", 2, "1.14.0"),
}
"""The options, the version that takes int8, and TensorFlow's first release with it (lite/tools/versioning)."""


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
    kinds = {"int8": fb.TensorType.INT8, "int32": fb.TensorType.INT32}
    made = fb.TensorT(list(tensor.shape), kinds[tensor.dtype.name], buffer, tensor.name, hasRank=True)
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
