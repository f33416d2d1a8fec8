"""What the data say about a layer's input: the second moments and the mean of what its weights multiply.

In: a float graph, its layers, calibration data. Out, for each layer: `hessian` = sum of x xᵀ over the positions x that
meet the weights (patches of a convolution, rows of a MatMul), and `total` = their sum. Rounding that looks at data
(`rounding`) and bias correction (`correct`) need nothing more, so memory does not grow with the data. Neighbouring
patches of a large image are much alike, so a grid of some hundred of each sample speaks for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.errors import CalibrationError
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples
from eightbit.quant.observe.calibrate import Progress
from eightbit.quant.observe.layout import Layout

PATCHES = 8
"""Patches of a sample, for each input of the layer. With a hundred, weights alone came out the same within 0.3 dB."""
FLOOR = 1e-5
"""A hundred times the relative error of a sum in float32."""
SHRINK = 0.5
"""How far few data are distrusted. Of N positions the spread in K directions is known to about K / N of its mean, and
that much, times SHRINK, is added to every direction. Without it GPTQ pays out errors along directions that the data
happen not to have: MiniLM with 4-bit weights and 16 sentences falls to a cosine of 0.84, below nearest (0.90), and
comes to 0.97 with it; EfficientNet-Lite0 with 36 crops gains 0.9 dB. Anything from 0.3 to 1 does the same. Shrinkage
towards a multiple of the identity: Ledoit and Wolf 2004, A well-conditioned estimator for large-dimensional covariance
matrices."""
SQUARED = (1e-15, 1e15)
"""Peaks of an input whose sums of squares are far from both ends of float32."""
CONSTANT = 1e-4
"""Of its squared mean: an input whose spread is less is nearly constant. The sums of equal numbers round one way each
time, by up to 2e-4 of their value after a million, and a centred moment would be nothing but that."""
ELEMENTS = 2**20
"""Patches of several samples go into one product until they hold so many numbers."""


@dataclass(frozen=True)
class Moments:
    """Sums over `count` positions, for `G` groups of `K` inputs each.

    `hessian` (G, K, K) float64 is the sum of x xᵀ, `total` (G, K) float64 the sum of x.
    """

    hessian: NDArray[np.float64]
    total: NDArray[np.float64]
    count: int

    @classmethod
    def of(cls, x: NDArray[np.floating]) -> Moments:
        """Moments of the columns of `x` (G, K, N)."""
        return cls.over(summable(x))

    @classmethod
    def over(cls, x: NDArray[np.floating]) -> Moments:
        """The same of columns that are `summable` already."""
        # One group goes through a plain product, which BLAS knows to be symmetric; many small ones go in a stack.
        hessian = (x[0] @ x[0].T)[None] if len(x) == 1 else np.matmul(x, x.transpose(0, 2, 1))
        return cls(hessian.astype(np.float64), x.sum(axis=2, dtype=np.float64), x.shape[2])

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.hessian + other.hessian, self.total + other.total, self.count + other.count)

    def add(self, other: Moments) -> Moments:
        """The same sum, taken into this value's arrays: those of a wide layer are large and come with every sample."""
        np.add(self.hessian, other.hessian, out=self.hessian)
        np.add(self.total, other.total, out=self.total)
        return Moments(self.hessian, self.total, self.count + other.count)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean position, (G, K)."""
        return self.total / max(1, self.count)

    @property
    def centred(self) -> NDArray[np.float64]:
        """The sum of (x - mean)(x - mean)ᵀ, (G, K, K): what counts where the bias takes up the mean of the error.

        With `floor` on its diagonal.
        """
        return self.hessian - self.total[:, :, None] * self.mean[:, None, :] + self.floor

    @property
    def floor(self) -> NDArray[np.float64]:
        """What is added to the diagonal of `centred`, (G, K, K).

        SHRINK of the mean spread, times K over the count of positions; and FLOOR of the second moments' mean, so that
        `centred` is positive definite for a constant input, too.
        """
        inputs = self.hessian.shape[1]
        energy = np.einsum("gkk->g", self.hessian)
        spread = np.maximum(energy - (self.total * self.mean).sum(axis=1), 0)
        added = FLOOR * energy / inputs + SHRINK * spread / max(1, self.count)
        return added[:, None, None] * np.eye(inputs)


def summable(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """`x` (G, K, N), in float64 where float32 would lose its sums.

    That is where squares or their sum could overflow or vanish, and where an input is nearly `CONSTANT`.
    """
    if _plain(x):
        return x
    peak = max(x.max(initial=0), -x.min(initial=0))
    if not SQUARED[0] < peak < SQUARED[1]:
        return x.astype(np.float64)
    flat = x.shape[2] > 0 and x.var(axis=2) < CONSTANT * x.mean(axis=2) ** 2
    return x.astype(np.float64) if np.any(flat) else x


def _plain(x: NDArray[np.floating]) -> bool:
    """Whether sums of squares in float32 show beyond doubt that `summable` has nothing to do: nearly always, and in a
    third of the time that peaks and spreads take. Ten times CONSTANT is far above what such sums may be off.
    """
    positions = x.shape[2]
    squares = np.einsum("gkn,gkn->gk", x, x)
    largest = squares.max(initial=0)
    if not 4 * SQUARED[0] ** 2 * positions < largest < SQUARED[1] ** 2 / 4:
        return False
    level = positions * x.mean(axis=2).astype(np.float64) ** 2
    return bool(np.all(squares >= (1 + 10 * CONSTANT) * level))


def layer_moments(
    model: ir.Model, layers: tuple[str, ...], data: Any, *, progress: Progress | None = None
) -> dict[str, Moments]:
    """Moments of the inputs of the named layers over `data` (see `graph.samples`).

    Raises CalibrationError for data that do not fit or an input of a layer that is not finite.
    """
    wanted = set(layers)
    nodes = {str(node.name): node for node in model.graph if node.name in wanted}
    inputs = {name: str(node.inputs[0].name) for name, node in nodes.items()}  # type: ignore[union-attr]
    layouts = {name: Layout.of(node) for name, node in nodes.items()}
    keys = {name: (inputs[name], layouts[name].reading) for name in nodes}
    readers = {key: name for name, key in keys.items()}  # layers that read one tensor alike share its moments
    of_tensor: dict[str, list[Any]] = {}
    for key in readers:
        of_tensor.setdefault(key[0], []).append(key)
    session = FloatSession(model, list(of_tensor))
    found: dict[Any, Moments] = {}
    held: dict[Any, list[NDArray[np.float32]]] = {key: [] for key in readers}

    def take_in(key: Any) -> None:
        seen = Moments.of(held[key][0] if len(held[key]) == 1 else np.concatenate(held[key], axis=2))
        if not np.isfinite(seen.total).all():
            raise CalibrationError(
                f"tensor {key[0]!r}, which layer {readers[key]!r} reads, takes a value that is NaN or Inf; look for an "
                "overflow in the float model, or for such values in the data"
            )
        found[key] = found[key].add(seen) if key in found else seen
        held[key] = []

    for count, sample in enumerate(samples(model, data, CalibrationError), start=1):
        for tensor, values in session.each(sample):
            for key in of_tensor[tensor]:
                held[key].append(layouts[readers[key]].positions(values, thin=PATCHES))
                if sum(x.size for x in held[key]) >= ELEMENTS:
                    take_in(key)
        if progress is not None:
            progress("moments", count)
    for key in readers:
        if held[key]:
            take_in(key)
    return {name: found[key] for name, key in keys.items()}
