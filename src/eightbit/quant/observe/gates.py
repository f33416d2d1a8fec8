"""Swishes on codes: x times a gate, both of them codes; ONNX Runtime has integer kernels for each step.

The gate of a Swish (SiLU) is a Sigmoid with codes of its own. They round once more than one function would: by 1/510 of
x at most, where the codes of the result round by 1/510 of the largest x.

That of a HardSwish is the codes of x again, cut off at both ends. With a scale s of which 3 is n steps, the codes q of
x and its zero point z,

    x = s (q - z),    clip(x / 6 + 1/2, 0, 1) = s / 6 (clip(q, z - n, z + n) - (z - n)),

and HardSwish is rounded once. Source of both functions: https://arxiv.org/abs/1905.02244, section 5.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from eightbit.arith.affine import QuantParams, params_from_range
from eightbit.graph.forms import NO_FORM
from eightbit.graph.functions import Function, functions
from eightbit.graph.model import is_op
from eightbit.quant.choose.placement import Placement
from eightbit.quant.choose.recipe import Activations
from eightbit.quant.observe.ranges import FIXED_LIMITS

GATES = ("HardSwish", "HardSigmoid", "Clip", "Min", "Max", "Sigmoid", "Swish")
"""Ops of which one at least is in a spelling."""
KNEE = 3.0
"""Where the gate of a HardSwish is closed, below zero, and fully open, above it."""
MOST_WIDER = 1.1
"""How much coarser the codes of x may become for 3 to be a whole number of steps: 0.8 dB."""
EXACT = 1e-6
"""How near to a whole number of steps 3 has to lie: scales are float32."""


@dataclass(frozen=True)
class Swish:
    """A function of `root`, spelled out in any way: `end` is `factor` times x sigmoid(x).

    With `hard` it is `factor` times x clip(x / 6 + 1/2, 0, 1).
    """

    root: str
    nodes: tuple[str, ...]
    end: str
    factor: float
    hard: bool


@dataclass(frozen=True)
class Gate:
    """Codes of a gate; with `bounds` those of x, cut off there, are the same codes."""

    params: QuantParams
    bounds: tuple[int, int] | None = None


def swishes(model: ir.Model, starts: Iterable[str]) -> tuple[Swish, ...]:
    """The functions of a graph, from one of the tensors named in `starts` to another, that are one."""
    coded = {*starts}
    between = (f for f in functions(model, coded) if {str(f.root.name), str(f.end.name)} <= coded)
    return tuple(found for function in between if (found := _swish(function)) is not None)


def _swish(function: Function) -> Swish | None:
    """What a function is, told from its values."""
    if not any(is_op(node, *GATES) for node in function.nodes):
        return None
    x = np.linspace(-3 * KNEE, 3 * KNEE, 181, dtype=np.float32)
    y = function.at(x).astype(np.float64)
    for hard, gate in ((True, np.clip(x / (2 * KNEE) + 0.5, 0, 1)), (False, 1 / (1 + np.exp(-x)))):
        factor = float(y[-1] / (x[-1] * gate[-1]))
        close = np.allclose(y, factor * x * gate, rtol=0, atol=1e-5 * abs(factor))
        if factor > 0 and close:
            nodes = tuple(str(node.name) for node in function.nodes)
            return Swish(str(function.root.name), nodes, str(function.end.name), factor, hard)
    return None


def on_codes(found: Iterable[Swish], placement: Placement) -> list[Swish]:
    """Those that a placement has between codes and codes."""
    alone = {island.node for island in placement.islands if island.reason == NO_FORM}
    inside, coded = alone.union(placement.functions), placement.sources
    return [s for s in found if s.root in coded and s.end in coded and inside.issuperset(s.nodes)]


def whole_steps(
    found: Iterable[Swish],
    placement: Placement,
    params: Mapping[str, QuantParams],
    choices: Mapping[str, Activations],
) -> dict[str, QuantParams]:
    """New parameters for the tensors that a HardSwish reads: a little wider, so that 3 is a whole number of steps.

    A tensor that would become coarser than `MOST_WIDER` allows, or has other than eight bits, has none: its HardSwish
    stays in float.
    """
    new = {}
    for source in dict.fromkeys(placement.sources[s.root] for s in on_codes(found, placement) if s.hard):
        p = params[source]
        scale, zero = float(p.scale), int(p.zero_point)
        top = (p.itype.qmax - zero) * scale
        steps = min(KNEE / scale, KNEE * (p.itype.qmax - p.itype.qmin) / (top + KNEE))
        n = int(steps * (1 + EXACT))
        if choices[source].symmetric:  # its zero point stays in the middle
            n = min(n, zero - p.itype.qmin)
        if p.itype.bits == 8 and n > 0 and KNEE / n <= MOST_WIDER * scale:
            zero_point = np.asarray(max(zero, p.itype.qmin + n), np.int32)
            new[source] = replace(p, scale=np.asarray(KNEE / n, np.float32), zero_point=zero_point)
    return new


def gate(swish: Swish, x: QuantParams) -> Gate | None:
    """The gate on codes of parameters `x`; None for other than eight bits.

    That of a HardSwish needs 3 to be a whole number of steps, and its own zero among the codes; that of a Swish a
    factor of 1, since its codes are made at once.
    """
    if x.itype.bits != 8 or not (swish.hard or abs(swish.factor - 1) < EXACT):
        return None
    if not swish.hard:
        return Gate(params_from_range(*FIXED_LIMITS["Sigmoid"], x.itype))
    steps = KNEE / float(x.scale)
    n, zero = round(steps), int(x.zero_point)
    if n == 0 or abs(steps - n) > EXACT * n or zero - n < x.itype.qmin:
        return None
    scale = np.asarray(swish.factor * float(x.scale) / (2 * KNEE), np.float32)
    params = QuantParams(scale, np.asarray(zero - n, np.int32), x.itype)
    return Gate(params, (zero - n, min(zero + n, x.itype.qmax)))
