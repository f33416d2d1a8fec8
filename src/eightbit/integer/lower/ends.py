"""Where the codes of a node come from and go to: what every rule of lowering asks first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.arith.affine import dequantize, quantize
from eightbit.graph.model import is_op, title
from eightbit.integer import program as p
from eightbit.integer.lower.codes import CodeTensors

Make = Callable[[str, tuple[str, ...], tuple[str, ...]], p.Op]
"""An operation from its name, inputs and outputs."""


def requantize_table(x: p.TensorInfo, y: p.TensorInfo) -> NDArray[np.integer] | None:
    """Codes of `x` as codes of `y`, through float32 as ONNX does it; None if the two are the same."""
    return None if x.params == y.params else quantize(dequantize(p.all_codes(x.itype), x.params), y.params)


def carry(node: ir.Node, codes: CodeTensors, *makes: Make, output: int = 0) -> list[p.Op] | str:
    """Operations that carry codes, one after another; followed by a table where the output has another scale."""
    ends = ends_of(node, codes, 1, output=output)
    if isinstance(ends, str):
        return ends
    (x,), y = ends
    table, first = requantize_table(codes.tensors[x], codes.tensors[y]), title(node)
    names = [first if output == 0 else codes.node_names.fresh(f"{first}_{output}")]
    names += [codes.node_names.fresh(f"{names[0]}_step") for _ in makes[1:]]
    ops: list[p.Op] = []
    for i, (name, make) in enumerate(zip(names, makes, strict=True)):
        made, last = y, i + 1 == len(makes)
        if not last or table is not None:
            made = codes.names.fresh(f"{y}_before")
            shape = codes.tensors[y].shape if last else None
            codes.tensors[made] = replace(codes.tensors[x], shape=shape)
        ops.append(make(name, (ops[-1].outputs[0] if ops else x,), (made,)))
    if table is not None:
        name = codes.node_names.fresh(f"{names[0]}_requantize")
        ops.append(p.Lookup(name, ops[-1].outputs, (y,), table, p.REQUANTIZE))
    return ops


def ends_of(
    node: ir.Node, codes: CodeTensors, count: int, *, to_float: bool = False, output: int = 0
) -> tuple[tuple[str, ...], str] | str:
    """The codes that the first `count` inputs and an output of `node` are; or why they are not.

    With `to_float` an output that no QuantizeLinear reads will do: it is a float tensor, and not in `codes.tensors`.
    """
    names = [codes.read(value) for value in node.inputs[:count]]
    value = node.outputs[output]
    made = codes.written(value)
    if None in names:
        return f"its input {names.index(None)} is not codes of one scale"
    if made is None and to_float and not any(is_op(use.node, "QuantizeLinear") for use in value.uses()):
        made = value.name
    if made is None:
        return "its output is not quantized, or is also read in float"
    return tuple(str(n) for n in names), made
