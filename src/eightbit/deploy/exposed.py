"""Every tensor of codes of a network, as an engine computes it: what engines that show outputs alone are made to show.

In: an integer program. Out: the same operations with an output for each tensor of codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import quantize
from eightbit.graph.names import Names
from eightbit.integer import program as p
from eightbit.integer.program import Codes, Program

Array = NDArray[np.generic]


def exposed(program: Program) -> tuple[Program, dict[str, str]]:
    """A program that also gives out each tensor of codes that an operation makes, and `{that output: tensor}`."""
    made = [name for op in program.ops for name in op.outputs if name in program.tensors]
    names = Names([*program.outputs, *(name for op in program.ops for name in (*op.inputs, *op.outputs))])
    shown = {names.fresh(f"{name}_shown"): name for name in made}
    borders = tuple(p.Dequantize(output, (name,), (output,)) for output, name in shown.items())
    return replace(program, outputs=tuple(shown), ops=(*program.ops, *borders)), shown


class Exposed:
    """A program that an engine, by `start`, makes ready with an output for each tensor of codes."""

    def __init__(self, program: Program, start: Callable[[Program], Any]) -> None:
        made, self._shown = exposed(program)
        self._tensors = program.tensors
        self._runner = start(made)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Codes]:
        """`{tensor: canonical codes}`, exactly those that the engine made: floats of codes give the codes back."""
        found = self._runner.run(feeds)
        return {
            name: quantize(found[output], self._tensors[name].params) for output, name in self._shown.items()
        }
