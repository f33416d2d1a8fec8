"""What the reader of a tensor tells apart, where that is one function of single numbers: nothing on its flat ends."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.graph.functions import function_roots, tabulated
from eightbit.quant.methods.observers import Histogram, Limits, State

FLAT = 2**-10
"""Of a function's span: a quarter of a code of its result, which eight bits do not tell apart."""


def as_read(model: ir.Model, states: Mapping[str, State]) -> dict[str, State]:
    """The states, histograms without what lies on a flat end of the function that alone reads their tensor.

    Codes below -3 are of no use to a HardSwish. `states` are those of the tensors that may become codes; each begins a
    function of its own.
    """
    trees: dict[ir.Value, list[ir.Node]] = {}
    for node, root in function_roots(model, starts=states).items():
        trees.setdefault(root, []).append(node)
    found = dict(states)
    for root, nodes in trees.items():
        state, inside = states.get(str(root.name)), set(nodes)

        def leaves(value: ir.Value, inside: set[ir.Node] = inside) -> bool:
            return value.is_graph_output() or any(use.node not in inside for use in value.uses())

        ends = [node.outputs[0] for node in nodes if leaves(node.outputs[0])]
        if (
            isinstance(state, Histogram)
            and state.exponent is not None
            and len(ends) == 1
            and not leaves(root)
        ):
            result = tabulated(nodes, root, ends[0], state.centers.astype(np.float32))
            found[str(root.name)] = state.within(*_between_flat_ends(state.centers, result))
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
