"""What the data say about a layer's input: the second moments and the mean of what its weights multiply.

In: a float graph, its layers, calibration data. Out, for each layer: `hessian` = sum of x xᵀ over all positions x that
meet the weights (patches of a convolution, rows of a MatMul), and `total` = their sum. Rounding that looks at data
(`rounding`) and bias correction (`correct`) need nothing more, so memory does not grow with the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.errors import CalibrationError
from eightbit.graph.feeds import samples, specs
from eightbit.graph.run import FloatSession
from eightbit.quant.calibrate import Progress
from eightbit.quant.layout import Layout


@dataclass(frozen=True)
class Moments:
    """Sums over `count` positions, for `G` groups of `K` inputs each.

    `hessian` (G, K, K) float64 is the sum of x xᵀ, `total` (G, K) float64 the sum of x.
    """

    hessian: NDArray[np.float64]
    total: NDArray[np.float64]
    count: int

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.hessian + other.hessian, self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean position, (G, K)."""
        return self.total / max(1, self.count)


def layer_moments(
    model: ir.Model, layers: tuple[str, ...], data: Any, *, progress: Progress | None = None
) -> dict[str, Moments]:
    """Moments of the inputs of the named layers over `data` (see `feeds.samples`)."""
    wanted = set(layers)
    nodes = {str(node.name): node for node in model.graph if node.name in wanted}
    inputs = {name: str(node.inputs[0].name) for name, node in nodes.items()}  # type: ignore[union-attr]
    layouts = {name: Layout.of(node) for name, node in nodes.items()}
    session = FloatSession(model, list(dict.fromkeys(inputs.values())))
    found: dict[str, Moments] = {}
    for count, sample in enumerate(samples(data, specs(model), CalibrationError), start=1):
        tensors = session.run(sample)
        seen: dict[Any, Moments] = {}  # layers that read one tensor alike share its moments
        for name in nodes:
            key = inputs[name], layouts[name].window
            if key not in seen:
                seen[key] = _moments(layouts[name].positions(tensors[inputs[name]]))
            found[name] = found[name] + seen[key] if name in found else seen[key]
        if progress is not None:
            progress("moments", count)
    return found


def _moments(x: NDArray[np.float32]) -> Moments:
    """Moments of the columns of `x` (G, K, N)."""
    # One group goes through a plain product, which BLAS knows to be symmetric; many small ones go in a stack.
    hessian = (x[0] @ x[0].T)[None] if len(x) == 1 else np.matmul(x, x.transpose(0, 2, 1))
    return Moments(hessian.astype(np.float64), x.sum(axis=2).astype(np.float64), x.shape[2])
