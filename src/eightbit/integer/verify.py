"""Is this a program that can run? Every tensor made before it is read, every number within its type.

The bound on accumulators is exact: for each output channel, the largest magnitude that `bias + sum w (q - z)` can
take over all codes. With int8 codes and weights it must fit in int32; where either has 16 bits the accumulators are
int64, and must stay below 2^53, up to where the engine's float64 holds every integer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from eightbit.arith.affine import INT8
from eightbit.errors import EngineError
from eightbit.integer import program as p

INT32_MAX = 2**31 - 1
FLOAT64_EXACT = 2**53
CODES = (np.int8, np.int16)
DYNAMIC_MAGNITUDE = 255  # largest |q - z| where the zero point is not known beforehand
FLOAT32_TINY = float(np.finfo(np.float32).tiny)


def verify(program: p.Program) -> None:
    """Raise EngineError, listing every fault, unless the program is sound."""
    faults = [*_wiring(program), *_tensors(program)]
    if not faults:
        for op in program.ops:
            faults += [f"{op.name}: {fault}" for fault in _CHECKS.get(type(op), _nothing)(op, program)]
    if faults:
        raise EngineError("the integer program does not verify:\n  " + "\n  ".join(faults))


def _wiring(program: p.Program) -> Iterator[str]:
    known = {*program.inputs, *program.constants}
    for op in program.ops:
        for name in op.inputs:
            if name not in known:
                yield f"{op.name}: reads tensor {name!r}, which nothing before it writes"
        for name in op.outputs:
            if name in known:
                yield f"{op.name}: writes tensor {name!r}, which exists already"
            known.add(name)
    for name in program.outputs:
        if name not in known:
            yield f"output {name!r} is written by no operation"


def _tensors(program: p.Program) -> Iterator[str]:
    for op in program.ops:
        for name in _code_names(op):
            if name not in program.tensors:
                yield f"{op.name}: tensor {name!r} holds codes, but its scale and zero point are not described"
    for name, info in program.tensors.items():
        if not np.isfinite(info.scale) or info.scale < FLOAT32_TINY:
            yield f"tensor {name!r} has scale {info.scale}; it must be finite, positive and normal"
        if not info.itype.qmin <= info.zero_point <= info.itype.qmax:
            yield f"tensor {name!r} has zero point {info.zero_point}, outside [{info.itype.qmin}, {info.itype.qmax}]"
    for name, codes in program.constants.items():
        described = program.tensors.get(name)
        if codes.dtype not in CODES:
            yield f"constant {name!r} is {codes.dtype}; codes are int8 or int16"
        elif described is not None and codes.dtype != described.itype.dtype:
            yield f"constant {name!r} is {codes.dtype}, but described as {described.itype.name}"


def _code_names(op: p.Op) -> tuple[str, ...]:
    if isinstance(op, p.FloatIsland | p.DynamicQuantize | p.DynamicGemm | p.Embedding):
        return ()
    if isinstance(op, p.Quantize):
        return op.outputs
    if isinstance(op, p.ReshapeTo):
        return op.inputs[0], op.outputs[0]
    if isinstance(op, p.Dequantize | p.GemmToFloat | p.MatMulToFloat):
        return op.inputs
    return (*op.inputs, *op.outputs)


def accumulator_limits(op: p.Conv | p.Gemm | p.GemmToFloat, x: p.TensorInfo) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest accumulator, bias included, of each output channel over all inputs; int64 (O,)."""
    w = (op.weight if isinstance(op, p.Conv) else op.weight.T).astype(np.int64)
    w = w.reshape(w.shape[0], -1)
    low, high = x.itype.qmin - x.zero_point, x.itype.qmax - x.zero_point
    positive, negative = np.maximum(w, 0).sum(1), np.minimum(w, 0).sum(1)
    bias = op.bias.astype(np.int64)
    return bias + positive * low + negative * high, bias + positive * high + negative * low


def _dynamic(op: p.Op, program: p.Program) -> Iterator[str]:
    assert isinstance(op, p.DynamicGemm)
    channels = op.weight.shape[1]
    if op.weight.dtype != np.int8:
        yield f"weight is {op.weight.dtype}, not int8"
    for field, array in (("weight_scale", op.weight_scale), ("bias", op.bias)):
        if array is not None and not (array.dtype == np.float32 and array.shape == (channels,)):
            yield f"{field} is {array.dtype} {array.shape}, not float32 ({channels},)"
    worst = DYNAMIC_MAGNITUDE * np.abs(op.weight.astype(np.int64)).sum(0).max(initial=0)
    if worst > INT32_MAX:
        yield f"a channel can reach an accumulator of {int(worst):,}, beyond int32: use fewer inputs per output"


def _layer(op: p.Op, program: p.Program) -> Iterator[str]:
    assert isinstance(op, p.Conv | p.Gemm | p.GemmToFloat)
    channels = op.weight.shape[0] if isinstance(op, p.Conv) else op.weight.shape[1]
    if op.weight.dtype not in CODES:
        yield f"weight is {op.weight.dtype}, not int8 or int16"
    for field, dtype in (("bias", np.int32), ("weight_scale", np.float32)):
        if getattr(op, field).dtype != dtype:
            yield f"{field} is {getattr(op, field).dtype}, not {np.dtype(dtype)}"
    for field in ("bias", "weight_scale"):
        if getattr(op, field).shape != (channels,):
            yield f"{field} has shape {getattr(op, field).shape}; there are {channels} output channels"
            return
    if not np.all(np.isfinite(op.weight_scale) & (op.weight_scale >= FLOAT32_TINY)):
        yield "a weight scale is not finite, positive and normal"
    x = program.tensors[op.inputs[0]]
    low, high = accumulator_limits(op, x)
    worst = np.maximum(high, -low)
    narrow = x.itype == INT8 and op.weight.dtype == np.int8
    limit, name = (INT32_MAX, "int32") if narrow else (FLOAT64_EXACT, "2^53")
    if worst.max(initial=0) > limit:
        channel = int(worst.argmax())
        yield (
            f"channel {channel} can reach an accumulator of {int(worst[channel]):,}, beyond {name}; its bias is"
            f" {int(op.bias[channel]):,}: use fewer inputs per output, or a wider weight scale"
        )
    if isinstance(op, p.Conv) and channels % op.group:
        yield f"{channels} output channels do not divide into {op.group} groups"


def _same_scale(op: p.Op, program: p.Program) -> Iterator[str]:
    x, y = program.tensors[op.inputs[0]], program.tensors[op.outputs[0]]
    if (x.scale, x.zero_point) != (y.scale, y.zero_point):
        yield (
            f"carries codes of scale {x.scale}, zero point {x.zero_point} into {op.outputs[0]!r} with {y.scale},"
            f" {y.zero_point}; put a Lookup between them"
        )


def _lookup(op: p.Op, program: p.Program) -> Iterator[str]:
    assert isinstance(op, p.Lookup)
    x, y = program.tensors[op.inputs[0]].itype, program.tensors[op.outputs[0]].itype
    if op.table.shape != (2**x.bits,) or op.table.dtype != y.dtype:
        yield f"its table is {op.table.dtype} {op.table.shape}, not {y.dtype} ({2**x.bits},)"


def _concat(op: p.Op, program: p.Program) -> Iterator[str]:
    assert isinstance(op, p.Concat)
    if len(op.tables) != len(op.inputs):
        yield f"{len(op.inputs)} inputs, {len(op.tables)} tables"


def _embedding(op: p.Op, program: p.Program) -> Iterator[str]:
    assert isinstance(op, p.Embedding)
    if op.table.dtype not in CODES or op.table.ndim != 2:
        yield f"its table is {op.table.dtype} {op.table.shape}, not a matrix of int8 or int16 codes"
    elif op.scale.dtype != np.float32 or op.scale.shape != op.table.shape[:1]:
        yield f"its scales are {op.scale.dtype} {op.scale.shape}, not float32 ({len(op.table)},)"


def _take(op: p.Op, program: p.Program) -> Iterator[str]:
    assert isinstance(op, p.Take)
    yield from _same_scale(op, program)
    if op.index.dtype != np.int64:
        yield f"its index is {op.index.dtype}, not int64"


def _nothing(op: p.Op, program: p.Program) -> Iterator[str]:
    yield from ()


_CHECKS: dict[type[p.Op], Callable[[p.Op, p.Program], Iterator[str]]] = {
    p.Conv: _layer,
    p.Gemm: _layer,
    p.GemmToFloat: _layer,
    p.DynamicGemm: _dynamic,
    p.Lookup: _lookup,
    p.Concat: _concat,
    p.Embedding: _embedding,
    **dict.fromkeys(
        (
            *(p.MaxPool, p.Reshape, p.ReshapeTo, p.Flatten, p.Squeeze, p.Unsqueeze, p.Transpose, p.Slice),
            *(p.Pad, p.ReduceMax),
        ),
        _same_scale,
    ),
    p.Take: _take,
}
