"""A program that TensorFlow Lite can say, as a network; or why it cannot, all reasons at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.layout.refusals import NO_CODES
from eightbit.deploy.layout.shapes import shapes_of, values_on_zeros
from eightbit.deploy.tflite.build import Builder
from eightbit.deploy.tflite.floats import no_builtin
from eightbit.deploy.tflite.islands import opened
from eightbit.deploy.tflite.net import Net
from eightbit.deploy.tflite.rules import REFUSED, RULES
from eightbit.errors import EngineError, ExportError
from eightbit.integer import program as p
from eightbit.integer.engine import prepare


def net_of(program: p.Program) -> Net:
    """The program as tensors and operators, for one sample a call where the batch axis is free.

    Float islands become float operators. Raises ExportError for operations that TensorFlow Lite does not do, free
    lengths beside the batch, 16 bits.
    """
    _refuse(_faults(program, REFUSED))
    try:
        prepare(program, Arithmetic.TFLITE)
        values = values_on_zeros(program)
        in_operations, faults = opened(program, values, no_builtin)
        _refuse([*faults, *_faults(in_operations, REFUSED)])
        builder = Builder(in_operations, values)
        for op in in_operations.ops:
            RULES[type(op)](op, builder)
    except EngineError as cause:
        raise ExportError(f"{HEAD}: {cause}") from cause
    return replace(
        builder.net(), in_float=tuple(op.name for op in in_operations.ops if _is_float(op, program))
    )


def _is_float(op: p.Op, program: p.Program) -> bool:
    """Whether an operation computes floats; a border and a table only hand them out."""
    return not isinstance(op, p.Dequantize | p.Embedding) and op.outputs[0] not in program.tensors


HEAD = "the network cannot be written as .tflite"


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise ExportError(f"{HEAD}:\n  " + "\n  ".join(faults))


def _faults(program: p.Program, refused: Mapping[type[p.Op], str]) -> list[str]:
    """A line for each operation that is `refused`, or has three axes, and each tensor of 16 bits."""
    faults = [f"{op.name}: {refused[type(op)]}" for op in program.ops if type(op) in refused]
    faults += [
        f"{op.name}: its window has {len(op.strides)} axes, TensorFlow Lite's int8 ones have one or two"
        for op in program.ops
        if isinstance(op, p.Conv | p.MaxPool | p.AveragePool) and len(op.strides) > 2
    ]
    faults += [
        f"{name}: it has codes of 16 bits; a .tflite of this writer has 8"
        for name, info in program.tensors.items()
        if info.itype.bits > 8
    ]
    return faults


def micro_net_of(program: p.Program) -> Net:
    """The same for TFLite Micro, in integers alone.

    Raises ExportError, too, for a Softmax in which its interpreter would end the process. That is a check in
    reference/softmax.h: the exponentials of a row must sum to less than 512.
    """
    _refuse(_faults(program, NO_CODES))
    net = net_of(program)
    shapes = shapes_of(program)
    for op in program.ops:
        if isinstance(op, p.Softmax) and shapes[op.inputs[0]][op.axis] > LONGEST_SOFTMAX:
            raise ExportError(
                f"{op.name}: Softmax over {shapes[op.inputs[0]][op.axis]:,} codes, and TFLite Micro stops where"
                f" exponentials sum to {LONGEST_SOFTMAX + 1}: leave the Softmax out, the largest code stays the largest"
            )
    return net


LONGEST_SOFTMAX = 511
