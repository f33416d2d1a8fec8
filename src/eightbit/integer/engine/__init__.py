"""The NumPy engine: the living definition of every integer operation.

In: a `Program`, float feeds. Out: float outputs, or every tensor of codes on the way. In ONNX arithmetic the codes
equal ONNX Runtime's at every tensor; all products and sums of codes are exact, so they are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.errors import EngineError
from eightbit.integer import program as p
from eightbit.integer.engine import conv, dynamic_gemm, elementwise, embedding, gemm, movement, pool, softmax

Array = NDArray[np.generic]
Kernel = Callable[..., "Array | tuple[Array, ...]"]
IslandRunner = Callable[[p.FloatIsland, Mapping[str, Array]], Mapping[str, Array]]

KERNELS: dict[type[p.Op], Callable[..., Kernel]] = {
    p.Quantize: elementwise.quantize_input,
    p.Dequantize: elementwise.dequantize_output,
    p.Conv: conv.conv,
    p.Gemm: gemm.gemm,
    p.MatMul: gemm.matmul,
    p.GemmToFloat: gemm.gemm,
    p.MatMulToFloat: gemm.matmul,
    p.DynamicQuantize: dynamic_gemm.dynamic_quantize,
    p.DynamicGemm: dynamic_gemm.dynamic_gemm,
    p.Embedding: embedding.embedding,
    p.Add: elementwise.binary,
    p.Mul: elementwise.binary,
    p.MaxPool: pool.max_pool,
    p.AveragePool: pool.average_pool,
    p.GlobalAveragePool: pool.global_average_pool,
    p.Softmax: softmax.softmax,
    p.Lookup: elementwise.lookup,
    p.Concat: movement.concat,
    p.Reshape: movement.reshape,
    p.ReshapeTo: movement.reshape_to,
    p.Flatten: movement.flatten,
    p.Squeeze: movement.squeeze,
    p.Unsqueeze: movement.unsqueeze,
    p.Transpose: movement.transpose,
    p.Slice: movement.slice_,
    p.Pad: movement.pad,
    p.Take: movement.take,
    p.ReduceMax: movement.reduce_max,
}
"""What makes the function of each operation; a `FloatIsland` is run by the caller's runner instead."""

_PREPARED: WeakKeyDictionary[p.Program, dict[Arithmetic, tuple[Kernel | None, ...]]] = WeakKeyDictionary()


def run(
    program: p.Program,
    feeds: Mapping[str, Array],
    *,
    arithmetic: str | Arithmetic = Arithmetic.ONNX,
    island: IslandRunner | None = None,
    keep: bool = False,
) -> dict[str, Array]:
    """Run `program` on float `feeds` by input name; returns `{output name: float array}`.

    With `keep`, the result also holds every tensor of codes by its name. `island(op, {name: array})` runs a part
    left in float. Constants of the operations are prepared on the first run of a program and kept with it.
    Raises EngineError for a missing feed, an unknown arithmetic, a float island without a runner, an operation that the
    arithmetic lacks (16 bits, for one, which only ONNX arithmetic has), or tensors that do not fit an operation.
    """
    missing = [name for name in program.inputs if name not in feeds]
    if missing:
        raise EngineError(f"no feed for input {missing[0]!r}; the program reads {', '.join(program.inputs)}")
    kernels = prepare(program, Arithmetic.of(arithmetic, EngineError))
    values: dict[str, Array] = {**program.constants, **{n: np.asarray(feeds[n]) for n in program.inputs}}
    last_use = {name: i for i, op in enumerate(program.ops) for name in op.inputs}
    for i, (op, kernel) in enumerate(zip(program.ops, kernels, strict=True)):
        if kernel is not None:
            made = _apply(kernel, op, values)
            values.update(zip(op.outputs, made if isinstance(made, tuple) else (made,), strict=True))
        elif isinstance(op, p.FloatIsland) and island is not None:
            values.update(island(op, {name: values[name] for name in op.inputs}))
        else:
            raise EngineError(
                f"{op.name} is left in float ({', '.join(op.inputs)} -> {', '.join(op.outputs)}); pass island=, for"
                " example eightbit.deploy.sessions.run_island"
            )
        for name in op.inputs:
            if last_use[name] == i and not keep and name not in program.outputs:
                values.pop(name, None)
    result = {name: values[name] for name in program.outputs}
    if keep:
        dynamic_codes = (op.outputs[0] for op in program.ops if isinstance(op, p.DynamicQuantize))
        result.update({name: values[name] for name in (*program.tensors, *dynamic_codes) if name in values})
    return result


def _apply(kernel: Kernel, op: p.Op, values: Mapping[str, Array]) -> Array | tuple[Array, ...]:
    """Run one operation. Only here its inputs' shapes are known, and NumPy says what does not fit."""
    inputs = [values[name] for name in op.inputs]
    try:
        return kernel(*inputs)
    except (ValueError, IndexError, OverflowError, MemoryError) as cause:
        given = ", ".join(f"{name} {array.shape}" for name, array in zip(op.inputs, inputs, strict=True))
        raise EngineError(
            f"{op.name} ({type(op).__name__}) cannot run on {given}: {cause}; give other inputs, or quantize anew"
        ) from cause


def prepare(program: p.Program, arithmetic: Arithmetic) -> tuple[Kernel | None, ...]:
    """The function of every operation, None for a float island; made once for a program and an arithmetic."""
    kept = _PREPARED.setdefault(program, {})
    if arithmetic not in kept:
        if arithmetic is not Arithmetic.ONNX:
            _refuse_wide(program, arithmetic)
        kept[arithmetic] = tuple(
            None if isinstance(op, p.FloatIsland) else KERNELS[type(op)](op, program, arithmetic)
            for op in program.ops
        )
    return kept[arithmetic]


def _refuse_wide(program: p.Program, arithmetic: Arithmetic) -> None:
    """C and D are defined for int32 accumulators; the runtimes that use them have other rules for 16 bits, or none."""
    wide = [name for name, info in program.tensors.items() if info.itype.bits > 8]
    wide += [
        op.name
        for op in program.ops
        if isinstance(op, p.Conv | p.Gemm | p.GemmToFloat) and op.weight.dtype == np.int16
    ]
    if wide:
        raise EngineError(
            f"{wide[0]!r} has codes of 16 bits, which {arithmetic.name} arithmetic has no rule for; run the program in"
            " ONNX arithmetic, or quantize to 8 bits"
        )
