"""The few array functions that training needs, the same for every framework that can differentiate them.

`forward` is written once, against `Ops`; `torch_ops` says what each function is in PyTorch. Arrays are float32 unless
said otherwise, channels come before the spatial axes, and gradients are the usual ones where a function says no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

Tensor = Any
"""An array of the framework."""
FLOOR = 1.0
"""Added to the variance of sums in steps, of which a channel without weights has none."""


class Taps(NamedTuple):
    """Where a convolution looks, over one to three axes; `pads` are all those before, then all those after."""

    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    group: int


class Ops(Protocol):
    """What a framework is asked for."""

    def constant(self, array: np.ndarray) -> Tensor:
        """An array that is not learned."""

    def exp(self, x: Tensor) -> Tensor:
        """The exponential function."""

    def passed(self, x: Tensor, value: Tensor) -> Tensor:
        """`value`, with the gradient of `x`: the straight-through estimator."""

    def rounded(self, x: Tensor) -> Tensor:
        """The nearest integers, ties to even; no gradient."""

    def snapped(self, x: Tensor, lo: float, hi: float) -> Tensor:
        """The nearest integers, ties to even, held within bounds; the gradient of `x` within them, none outside."""

    def requantized(self, acc: Tensor, factor: Tensor, lo: float, hi: float) -> Tensor:
        """`snapped(acc * factor, lo, hi)` for `factor` above zero, which broadcasts."""

    def clipped(self, x: Tensor, lo: float, hi: float) -> Tensor:
        """`x` held within bounds; no gradient outside."""

    def still(self, x: Tensor) -> Tensor:
        """`x` without a gradient."""

    def convolved(self, x: Tensor, w: Tensor, bias: Tensor | None, taps: Taps, exact: bool) -> Tensor:
        """Convolution over one to three axes, zeros around it, plus `bias` (C,); `exact` sums in float64."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, `FLOOR` added to it, of every channel of (N, C, ...): (C,) each, without a gradient."""

    def normalized(self, x: Tensor, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(x - mean) / deviation · gain + offset in every channel, through which gradients go, and the moments."""

    def product(self, a: Tensor, b: Tensor, exact: bool) -> Tensor:
        """Matrix product; `exact` sums in float64."""

    def largest(
        self, x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> Tensor:
        """The largest of each window, without padding."""

    def highest(self, x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
        """The largest over `axes`, which stay with length 1 if `keep`."""

    def totals(self, x: Tensor, kernel: Sequence[int], strides: Sequence[int]) -> Tensor:
        """The sum of each window, without padding."""

    def padded(self, x: Tensor, widths: Sequence[tuple[int, int]], mode: str, value: float) -> Tensor:
        """Padding by `widths` (before, after) of every axis, in NumPy's modes."""

    def shape(self, x: Tensor) -> tuple[int, ...]:
        """The lengths of the axes."""

    def reshaped(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The same numbers in another shape."""

    def transposed(self, x: Tensor, perm: Sequence[int]) -> Tensor:
        """The axes in another order."""

    def joined(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """Concatenation."""

    def total(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """The sum over `axes`, which stay with length 1."""

    def softmax(self, x: Tensor, axis: int) -> Tensor:
        """Softmax along an axis."""

    def picked(self, table: Tensor, index: Tensor) -> Tensor:
        """`table[index]` for a tensor `index` of integers, which may be floats."""

    def unary(self, name: str, x: Tensor) -> Tensor:
        """The ONNX op of this name (`nodes.UNARY`), element by element."""

    def taken(self, x: Tensor, index: np.ndarray, axis: int) -> Tensor:
        """Entries of `x` along an axis, as `np.take`."""

    def chosen(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """`a` where the condition holds, else `b`."""

    def computed(self, function: Callable[..., np.ndarray], *given: Tensor) -> Tensor:
        """What `function`, in NumPy, makes of tensors: float32, without a gradient."""

    def floats(self, x: Tensor) -> Tensor:
        """As float32."""
