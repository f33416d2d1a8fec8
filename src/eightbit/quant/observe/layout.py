"""How a layer's weight meets its input: every Conv, Gemm and MatMul as rows times positions.

Rounding and correction see all layers alike: `rows` (G groups, C channels of the group, K inputs), and `positions`
(G, K, N), the vectors of the input that those rows are multiplied with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.arith.windows import by_axis, window_count
from eightbit.graph.forms import channel_axis
from eightbit.graph.model import fixed_shape
from eightbit.graph.windows import Window, window


@dataclass(frozen=True)
class Layout:
    """The axis of the output channels in a weight, and for a convolution its window.

    `stack` are the axes before the matrices of a MatMul whose weight holds many; a `vector` makes one channel.
    """

    axis: int
    window: Window | None = None
    stack: tuple[int, ...] = ()
    vector: bool = False

    @property
    def reading(self) -> tuple[Any, ...]:
        """What is equal for layers that, of one tensor, see the same positions."""
        return self.window, self.stack

    @classmethod
    def of(cls, node: ir.Node) -> Layout:
        """The layout of a Conv, Gemm or MatMul with a constant weight."""
        if node.op_type != "MatMul":
            return cls(channel_axis(node), window(node) if node.op_type == "Conv" else None)
        shape = fixed_shape(node.inputs[1])
        assert shape is not None
        return cls(channel_axis(node), None, shape[:-2], len(shape) == 1)

    def inputs(self, shape: tuple[int, ...]) -> int:
        """How many inputs each output channel of a weight of `shape` has: K of `rows`."""
        if self.vector or self.stack:
            return shape[0] if self.vector else shape[-2]
        return math.prod(shape) // max(1, shape[self.axis])

    def summed(self, shape: tuple[int, ...]) -> NDArray[np.int64] | None:
        """In which order ONNX Runtime's kernels add the K products of a row, for a weight of `shape`: (K,).

        A convolution's go tap by tap, in a tap channel by channel. None for depthwise ones, which add each by itself.
        """
        if self.window is None:
            return np.arange(self.inputs(shape))
        if shape[1] == 1 and shape[0] == self.window.groups:
            return None
        return np.arange(math.prod(shape[1:])).reshape(shape[1], -1).T.reshape(-1)

    def rows(self, weight: NDArray[Any]) -> NDArray[Any]:
        """A weight as (G, channels of the group, K), one row an output channel. Each matrix of a stack is a group."""
        if self.vector:
            return weight.reshape(1, 1, -1)
        if self.stack:
            return weight.reshape(-1, *weight.shape[-2:]).swapaxes(1, 2)
        groups = 1 if self.window is None else self.window.groups
        moved = np.moveaxis(weight, self.axis, 0)
        return moved.reshape(groups, moved.shape[0] // groups, -1)

    def weight(self, rows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The inverse of `rows`: back to a weight of `shape`."""
        if self.vector or self.stack:
            return rows.swapaxes(1, 2).reshape(shape)
        moved = (shape[self.axis], *shape[: self.axis], *shape[self.axis + 1 :])
        return np.moveaxis(rows.reshape(moved), 0, self.axis)

    def positions(self, x: NDArray[np.float32], *, thin: int | None = None) -> NDArray[np.float32]:
        """The vectors of the input `x` that the rows meet, as columns: (G, K, N), padding included.

        With `thin`, a convolution's are thinned out to every n-th along each spatial axis, with the smallest n that
        leaves no more than `thin * K` of each sample.
        """
        w = self.window
        if w is None:
            met = _met(x, self.stack) if self.stack else x.reshape(1, -1, x.shape[-1])
            return met.transpose(0, 2, 1)
        batch, channels = x.shape[:2]
        pads, strides = w.pads_over(x.shape[2:]), w.strides
        assert pads is not None  # every length is known
        out = [window_count(*axis) for axis in by_axis(x.shape[2:], w.kernel, strides, pads, w.dilations)]
        if any(pads):
            x = _padded(x, pads)
        if thin is not None:
            every = _every(out, thin * math.prod(w.kernel) * channels // w.groups)
            strides = tuple(s * every for s in strides)
            out = [-(-n // every) for n in out]
        columns = np.empty((batch, channels, int(np.prod(w.kernel)), *out), np.float32)
        for tap, index in enumerate(np.ndindex(*w.kernel)):  # tap by tap: each a strided copy of whole planes
            steps = zip(index, w.dilations, strides, out, strict=True)
            window = tuple(slice(i * d, i * d + (n - 1) * s + 1, s) for i, d, s, n in steps)
            columns[:, :, tap] = x[(slice(None), slice(None), *window)]
        columns = columns.reshape(batch, w.groups, -1, int(np.prod(out)))
        return np.moveaxis(columns, 0, 2).reshape(w.groups, columns.shape[2], -1)


def _met(x: NDArray[np.float32], stack: tuple[int, ...]) -> NDArray[np.float32]:
    """The rows of `x` (..., M, K) that each matrix of a stack meets when the two broadcast: (matrices, rows, K)."""
    x = x.reshape(-1, x.shape[-1]) if x.ndim < 2 else x
    lead = np.broadcast_shapes(x.shape[:-2], stack)
    wide = np.broadcast_to(x, (*lead, *x.shape[-2:]))
    whole = (1,) * (len(lead) - len(stack)) + stack
    own = [axis for axis, n in enumerate(whole) if n != 1]
    others = [axis for axis in range(wide.ndim - 1) if axis not in own]
    return wide.transpose(*own, *others, -1).reshape(math.prod(stack), -1, x.shape[-1])


def _padded(x: NDArray[np.float32], pads: tuple[int, ...]) -> NDArray[np.float32]:
    """`x` with zeros around its spatial axes; `np.pad` takes ten times as long over a small picture."""
    befores, afters = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    sides = [n + b + a for n, b, a in zip(x.shape[2:], befores, afters, strict=True)]
    wide = np.zeros((*x.shape[:2], *sides), x.dtype)
    inside = tuple(slice(b, b + n) for n, b in zip(x.shape[2:], befores, strict=True))
    wide[(slice(None), slice(None), *inside)] = x
    return wide


def _every(counts: list[int], at_most: int) -> int:
    """The smallest n for which every n-th of `counts` positions along each axis makes `at_most` or fewer."""
    every = 1
    while math.prod(-(-n // every) for n in counts) > max(1, at_most):
        every += 1
    return every
