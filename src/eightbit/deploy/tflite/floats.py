"""Nodes of float islands as TensorFlow Lite's float operators: functions, comparisons, reductions, norms, resizing.

One table, `FLOATS`, says what is written and which nodes of an op are not; lint reads it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from eightbit.deploy.tflite import elementwise, images, places, reductions
from eightbit.deploy.tflite.build import Builder
from eightbit.deploy.tflite.elementwise import Write, function
from eightbit.deploy.tflite.islands import FloatNode


@dataclass(frozen=True)
class Row:
    """How an op is written, and why one node of it is not."""

    write: Write
    refusal: Callable[[ir.Node], str | None] = lambda node: None


def no_builtin(node: ir.Node) -> str | None:
    """Why a node has no float operator; None if it has."""
    row = FLOATS.get(node.op_type)
    return f"it is {node.op_type}" if row is None else row.refusal(node)


def float_node(op: FloatNode, b: Builder) -> None:
    """A node that is no operation of codes."""
    FLOATS[op.node.op_type].write(op, b)


FUNCTIONS = {
    "Relu": "RELU",
    "Sigmoid": "LOGISTIC",
    "Tanh": "TANH",
    "HardSwish": "HARD_SWISH",
    "Exp": "EXP",
    "Log": "LOG",
    "Sqrt": "SQRT",
    "Abs": "ABS",
    "Neg": "NEG",
    "Floor": "FLOOR",
    "Ceil": "CEIL",
    "Round": "ROUND",
    "Sin": "SIN",
    "Cos": "COS",
    "Sub": "SUB",
    "Div": "DIV",
    "PRelu": "PRELU",
    "Where": "SELECT_V2",
    "And": "LOGICAL_AND",
    "Or": "LOGICAL_OR",
    "Not": "LOGICAL_NOT",
    "Equal": "EQUAL",
    "Less": "LESS",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
    "LessOrEqual": "LESS_EQUAL",
}
"""Operators that read what the nodes read, and have no options."""
REDUCTIONS = {
    "ReduceMean": "MEAN",
    "ReduceSum": "SUM",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
}


FLOATS: Mapping[str, Row] = {
    **{op: Row(function(kind)) for op, kind in FUNCTIONS.items()},
    **{op: Row(reductions.reduce(kind), reductions.axes_known) for op, kind in REDUCTIONS.items()},
    "Pow": Row(elementwise.power),
    "Max": Row(function("MAXIMUM"), elementwise.two),
    "Min": Row(function("MINIMUM"), elementwise.two),
    "Elu": Row(function("ELU"), elementwise.elu),
    "LeakyRelu": Row(function("LEAKY_RELU", alpha="alpha")),
    "Gelu": Row(elementwise.gelu),
    "Clip": Row(elementwise.clip, elementwise.bounds_known),
    "HardSigmoid": Row(elementwise.hard_sigmoid),
    "Reciprocal": Row(elementwise.reciprocal),
    "Identity": Row(elementwise.same),
    "Cast": Row(elementwise.cast),
    "ReduceL2": Row(reductions.length, reductions.axes_known),
    "LayerNormalization": Row(reductions.norm, reductions.one_output),
    "InstanceNormalization": Row(reductions.norm),
    "Gather": Row(places.gather),
    "GatherND": Row(places.gather_nd, places.batches),
    "Expand": Row(places.expand),
    "Resize": Row(images.resize, images.resizable),
    "ConvTranspose": Row(images.transposed_conv, images.transposable),
    "Pad": Row(places.pad, places.pads_known),
    "Split": Row(places.split),
    "Sum": Row(elementwise.total, elementwise.two),
}
"""By op type; those that codes have, too, are not here (`islands.SHARED`), but for a Pad with other numbers than 0."""
