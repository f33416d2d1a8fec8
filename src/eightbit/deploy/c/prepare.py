"""A program that C can do, as a plan; or why it cannot, all reasons at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eightbit.arith.fixedpoint import FIXED_POINT, Arithmetic
from eightbit.deploy.c.rules import REFUSED, RULES
from eightbit.deploy.c.steps import Builder, Plan, Shape
from eightbit.errors import EngineError, ExportError
from eightbit.integer import program as p
from eightbit.integer.engine import prepare, run


def plan_of(program: p.Program, arithmetic: Arithmetic) -> Plan:
    """What the C network does, for one sample a call where the batch axis is free.

    Raises ExportError for operations that C does not do, free lengths beside the batch, ONNX arithmetic.
    """
    if arithmetic not in FIXED_POINT:
        raise ExportError(
            "ONNX arithmetic rounds in float, which C does without: choose 'tflite' or 'single'"
        )
    faults = [f"{op.name}: {REFUSED[type(op)]}" for op in program.ops if type(op) in REFUSED]
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


def shapes_of(program: p.Program, batch: int = 1) -> Mapping[str, Shape]:
    """The shape of every tensor of codes, by a run on zeros. A free first axis of an input becomes `batch` long."""
    feeds = {name: np.zeros(shape, np.float32) for name, shape in input_shapes(program, batch).items()}
    values = run(program, feeds, keep=True)
    return {name: values[name].shape for name in program.tensors}


def input_shapes(program: p.Program, batch: int = 1) -> dict[str, Shape]:
    """The shape of every input that becomes codes."""
    shapes: dict[str, Shape] = {}
    for op in program.ops:
        if not isinstance(op, p.Quantize):
            continue
        found = program.tensors[op.outputs[0]].shape
        if found is None or None in found[1:]:
            raise ExportError(
                f"input {op.inputs[0]!r} has shape {found}; C needs every length but the batch's: load the model with"
                " those fixed"
            )
        shapes[op.inputs[0]] = tuple(batch if n is None else n for n in found)
    return shapes
