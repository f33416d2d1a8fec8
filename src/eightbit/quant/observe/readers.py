"""What the reader of a tensor tells apart, where that is one function of single numbers: nothing on its flat ends."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.graph.functions import functions
from eightbit.quant.methods.observers import Histogram, Limits, State

FLAT = 2**-10
"""Of a function's span: a quarter of a code of its result, which eight bits do not tell apart."""


def as_read(model: ir.Model, states: Mapping[str, State]) -> dict[str, State]:
    """The states, histograms without what lies on a flat end of the function that alone reads their tensor.

    Codes below -3 are of no use to a HardSwish. `states` are those of the tensors that may become codes; each begins a
    function of its own.
    """
    found = dict(states)
    for function in functions(model, states):
        state = states.get(str(function.root.name))
        if isinstance(state, Histogram) and state.exponent is not None and function.reads_alone:
            result = function.at(state.centers.astype(np.float32))
            lo, hi = _between_flat_ends(state.centers, result)
            if state.extremes.lo < hi and lo < state.extremes.hi:  # else all of it lies on one flat end
                found[str(function.root.name)] = state.within(lo, hi)
    return found


def _between_flat_ends(x: NDArray[np.float64], y: NDArray[np.float32]) -> Limits:
    """Where `y` (N,), of rising `x` (N,) around zero, leaves the value of its left end and reaches that of its right.

    The whole of `x` where a value is not finite or all are alike.
    """
    flat = FLAT * (y.max() - y.min())
    left, right = (np.abs(y - end) > flat for end in (y[0], y[-1]))
    if not np.isfinite(flat) or not left.any():
        return float(x[0]), float(x[-1])
    lo, hi = x[max(0, int(np.argmax(left)) - 1)], x[min(len(x) - 1, len(x) - int(np.argmax(right[::-1])))]
    return min(float(lo), 0.0), max(float(hi), 0.0)
