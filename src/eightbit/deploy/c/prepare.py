"""A program that C can do, as a plan; or why it cannot, all reasons at once."""

from __future__ import annotations

from eightbit.arith.fixedpoint import FIXED_POINT, Arithmetic
from eightbit.deploy.c.rules import RULES
from eightbit.deploy.c.steps import Builder, Plan
from eightbit.deploy.layout.refusals import NO_CODES
from eightbit.deploy.layout.shapes import shapes_of
from eightbit.errors import EngineError, ExportError
from eightbit.integer import program as p
from eightbit.integer.engine import prepare


def plan_of(program: p.Program, arithmetic: Arithmetic) -> Plan:
    """What the C network does, for one sample a call where the batch axis is free.

    Raises ExportError for operations that C does not do, free lengths beside the batch, ONNX arithmetic.
    """
    if arithmetic not in FIXED_POINT:
        raise ExportError(
            "ONNX arithmetic rounds in float, which C does without: choose 'tflite' or 'single'"
        )
    faults = [f"{op.name}: {NO_CODES[type(op)]}" for op in program.ops if type(op) in NO_CODES]
    windowed = (op for op in program.ops if isinstance(op, p.Conv | p.MaxPool | p.AveragePool))
    faults += [
        f"{op.name}: its window has {len(op.strides)} axes, C has kernels for one and two"
        for op in windowed
        if len(op.strides) > 2
    ]
    faults += [
        f"{name}: it has codes of 16 bits, C has 8" for name, i in program.tensors.items() if i.itype.bits > 8
    ]
    if faults:
        raise ExportError("the network cannot be written in C:\n  " + "\n  ".join(faults))
    try:
        prepare(program, arithmetic)
        builder = Builder(program, shapes_of(program), arithmetic)
        for op in program.ops:
            RULES[type(op)](op, builder)
    except EngineError as cause:
        raise ExportError(f"the network cannot be written in C: {cause}") from cause
    return builder.plan()
