"""A program that TensorFlow Lite can say, as a network; or why it cannot, all reasons at once."""

from __future__ import annotations

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.layout.shapes import shapes_of
from eightbit.deploy.tflite.build import Builder
from eightbit.deploy.tflite.net import Net
from eightbit.deploy.tflite.rules import REFUSED, RULES
from eightbit.errors import EngineError, ExportError
from eightbit.integer import program as p
from eightbit.integer.engine import prepare


def net_of(program: p.Program) -> Net:
    """The program as tensors and operators, for one sample a call where the batch axis is free.

    Raises ExportError for operations that TensorFlow Lite does not do, free lengths beside the batch, 16 bits.
    """
    faults = [f"{op.name}: {REFUSED[type(op)]}" for op in program.ops if type(op) in REFUSED]
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
    if faults:
        raise ExportError("the network cannot be written as .tflite:\n  " + "\n  ".join(faults))
    try:
        prepare(program, Arithmetic.TFLITE)
        builder = Builder(program, shapes_of(program))
        for op in program.ops:
            RULES[type(op)](op, builder)
    except EngineError as cause:
        raise ExportError(f"the network cannot be written as .tflite: {cause}") from cause
    return builder.net()


def micro_net_of(program: p.Program) -> Net:
    """The same for TFLite Micro. Raises ExportError, too, for a Softmax in which its interpreter would end the process.

    That is a check in reference/softmax.h: the exponentials of a row must sum to less than 512.
    """
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
