"""The integer program: what a quantized network computes, as a list of small frozen operations.

Everything here is integers, plus the float32 scales they stand for. Codes are canonical, that is signed: int8, where a
uint8 tensor of an ONNX graph holds the same numbers plus 128, or int16 for tensors of 16 bits (uint16 less 32,768).
`eightbit.integer.lower` writes a program, `verify` checks it, the engine and the file writers read it. Float tensors
appear only at the borders and in a `FloatIsland`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import INT8, IntType, QuantParams

Codes = NDArray[np.integer]
"""int8, or int16."""
REQUANTIZE, CLIP_CODES, GATE = "Requantize", "ClipCodes", "Gate"
"""Kinds of Lookup that belong to no operator: codes of one scale as codes of another; codes of fewer than eight bits
cut off, scale and zero point as they are; codes of one tensor cut off, as codes of another."""


IN_A_TABLE = "a table of codes in the NumPy engine alone; ONNX Runtime computes it in float"
"""Why a node of `Lookup.replaces` is in float."""


@dataclass(frozen=True)
class TensorInfo:
    """What the codes of a tensor stand for: `real = scale * (code - zero_point)`, one scale for the whole tensor."""

    scale: np.float32
    zero_point: int
    itype: IntType = INT8
    shape: tuple[int | None, ...] | None = None

    @property
    def params(self) -> QuantParams:
        """The same as the affine map that `quantize` and `dequantize` take."""
        return QuantParams(
            np.asarray(self.scale, np.float32), np.asarray(self.zero_point, np.int32), self.itype
        )


@dataclass(frozen=True, eq=False)
class Op:
    """One operation: reads the tensors `inputs`, writes the tensors `outputs`; `name` is the node it came from."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Quantize(Op):
    """Float tensor to codes."""


@dataclass(frozen=True, eq=False)
class Dequantize(Op):
    """Codes to a float tensor."""


@dataclass(frozen=True, eq=False)
class Conv(Op):
    """Convolution over one to three spatial axes, batch and channels first.

    `weight` int8 or int16 (O, I/group, kernel...); `bias` int32 (O,) in units of `s_x * weight_scale`; `weight_scale`
    float32 (O,); `pads` are (begin..., end...) and pad with the input's zero point.
    """

    weight: Codes
    bias: NDArray[np.int32]
    weight_scale: NDArray[np.float32]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    group: int = 1


@dataclass(frozen=True, eq=False)
class Gemm(Op):
    """Product with a constant matrix over the last axis: (..., K) x (K, N) -> (..., N).

    `weight` int8 or int16 (K, N); `bias` int32 (N,); `weight_scale` float32 (N,).
    """

    weight: Codes
    bias: NDArray[np.int32]
    weight_scale: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MatMul(Op):
    """Product of two tensors of codes, (..., M, K) x (..., K, N) -> (..., M, N), as NumPy does it, vectors included."""


@dataclass(frozen=True, eq=False)
class GemmToFloat(Op):
    """`Gemm` whose accumulators leave as float32, for readers in float: one rounding less than through codes.

    `weight` int8 or int16 (K, N); `bias` int32 (N,) in units of `s_x * weight_scale`; `weight_scale` float32 (N,).
    """

    weight: Codes
    bias: NDArray[np.int32]
    weight_scale: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MatMulToFloat(Op):
    """`MatMul` of two activations whose accumulators leave as float32."""


@dataclass(frozen=True, eq=False)
class DynamicQuantize(Op):
    """Float tensor to codes by the range of its own values: outputs are the codes, their float32 scale, zero point.

    The scale is known only when the program runs, so the codes are not among the program's `tensors`.
    """


@dataclass(frozen=True, eq=False)
class DynamicGemm(Op):
    """Product of dynamic codes with a constant matrix, to float32: (..., K) x (K, N) -> (..., N).

    Inputs are the three outputs of a `DynamicQuantize`. `weight` int8 (K, N); `weight_scale` float32 (N,); `bias`
    float32 (N,), added after scaling, or None.
    """

    weight: Codes
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Embedding(Op):
    """Rows of a constant table, picked by integer ids (...), as float32 (..., K).

    `table` int8 (V, K), or int16 for rows of more than eight bits; `scale` float32 (V,), one a row. `ids_shape` and
    `ids_dtype` are those of the ids, as far as the graph knows.
    """

    table: Codes
    scale: NDArray[np.float32]
    ids_shape: tuple[int | None, ...] | None = None
    ids_dtype: str = "int64"


@dataclass(frozen=True, eq=False)
class Add(Op):
    """Sum of two tensors, broadcasting."""


@dataclass(frozen=True, eq=False)
class Mul(Op):
    """Product of two tensors, element by element, broadcasting."""


@dataclass(frozen=True, eq=False)
class MaxPool(Op):
    """Largest code in each window; padding never wins."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: bool = False


@dataclass(frozen=True, eq=False)
class AveragePool(Op):
    """Mean of each window; `count_include_pad` counts padding as zeros."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    ceil_mode: bool = False
    count_include_pad: bool = False


@dataclass(frozen=True, eq=False)
class GlobalAveragePool(Op):
    """Mean over all spatial axes, which stay with length 1."""


@dataclass(frozen=True, eq=False)
class Softmax(Op):
    """Softmax along `axis`."""

    axis: int


@dataclass(frozen=True, eq=False)
class Lookup(Op):
    """A function of one code: `output = table[code - smallest code]`; `kind` says which (Relu, REQUANTIZE, ...).

    The table has 256 entries for an input of 8 bits and 65,536 for one of 16. That of REQUANTIZE rounds in float, as
    ONNX does; other arithmetics have their own. `replaces` are nodes that a runtime without tables computes in float.
    """

    table: Codes
    kind: str
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Concat(Op):
    """Joining along `axis`; an input whose scale differs from the output's passes through its table first.

    The tables are those of REQUANTIZE.
    """

    axis: int
    tables: tuple[Codes | None, ...]


@dataclass(frozen=True, eq=False)
class Reshape(Op):
    """New shape, same codes; 0 copies the input's length at that place, -1 takes what is left."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ReshapeTo(Op):
    """`Reshape` to a shape that the program computes: inputs are the codes and an int64 tensor of lengths."""


@dataclass(frozen=True, eq=False)
class Flatten(Op):
    """To two axes: those before `axis`, and the rest."""

    axis: int


@dataclass(frozen=True, eq=False)
class Squeeze(Op):
    """Drop axes of length 1; every such axis if `axes` is None."""

    axes: tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class Unsqueeze(Op):
    """Insert axes of length 1 at the places `axes` of the output."""

    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Transpose(Op):
    """Reorder the axes by `perm`."""

    perm: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Slice(Op):
    """Python slices `start:stop:step` on the given axes; `bounds` holds (axis, start, stop, step)."""

    bounds: tuple[tuple[int, int | None, int | None, int], ...]


@dataclass(frozen=True, eq=False)
class Pad(Op):
    """Padding (begin..., end...) over all axes; `value` is the code to pad with in mode "constant"."""

    pads: tuple[int, ...]
    mode: str
    value: int


@dataclass(frozen=True, eq=False)
class Take(Op):
    """The codes at the places `index` along `axis`, as `numpy.take`; int64, of any rank, which takes the axis's place.

    What picks or repeats along axes is this: Gather, Tile, Expand, Resize to the nearest neighbour.
    """

    axis: int
    index: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ReduceMax(Op):
    """The largest code over `axes`, sorted and not negative; they stay with length 1 if `keep`."""

    axes: tuple[int, ...]
    keep: bool


@dataclass(frozen=True, eq=False)
class FloatIsland(Op):
    """A part of the network left in float: `model` is an ONNX file of `nodes`, float tensors in and out.

    `reasons` say of each node why it has no integer operation.
    """

    model: bytes
    nodes: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """Operations in the order they run. `inputs` and `outputs` name float tensors; `tensors` describes every tensor
    of codes by its name in the graph; `constants` are codes that no operation computes.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]
    tensors: Mapping[str, TensorInfo]
    constants: Mapping[str, Codes] = field(default_factory=dict)

    @property
    def in_float(self) -> dict[str, str]:
        """The nodes that run in float, and why each does; those too that are tables here alone."""
        islands = [op for op in self.ops if isinstance(op, FloatIsland)]
        tables = [op for op in self.ops if isinstance(op, Lookup)]
        found = {name: why for op in islands for name, why in zip(op.nodes, op.reasons, strict=True)}
        return found | {name: IN_A_TABLE for op in tables for name in op.replaces}

    def __str__(self) -> str:
        width = max((len(type(op).__name__) for op in self.ops), default=0)
        return "\n".join(
            f"{type(op).__name__:<{width}}  {', '.join(op.inputs)} -> {', '.join(op.outputs)}"
            for op in self.ops
        )


def canonical(codes: NDArray[np.generic]) -> Codes:
    """Codes as programs hold them: signed ones; unsigned ones less half their range (128, or 32,768), as such.

    >>> canonical(np.array([0, 128, 255], np.uint8)).tolist()
    [-128, 0, 127]
    """
    if codes.dtype.kind != "u":
        return codes  # type: ignore[return-value]  # int8 or int16
    bits = 8 * codes.itemsize
    flipped = np.bitwise_xor(codes, np.asarray(1 << (bits - 1), codes.dtype))
    return flipped.view(np.dtype(f"int{bits}"))


def all_codes(itype: IntType) -> NDArray[np.integer]:
    """Every code of a type, smallest first."""
    return np.arange(itype.qmin, itype.qmax + 1, dtype=itype.dtype)
