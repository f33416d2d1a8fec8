"""Every tensor of a network in float and in int8, side by side: the noise of each, and how its values are spread.

In: a float graph, its QDQ graph, and feeds. Out: a `TensorError` or a `TensorHistogram` for each quantized tensor, in
the order of the graph. The int8 side are the codes that ONNX Runtime's optimized graph really computes; so the error
of a tensor includes all that was made on the way to it. Chapter 10.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.arith.noise import Noise
from eightbit.data.feeds import Feeds
from eightbit.deploy.sessions import IntegerTensors
from eightbit.graph.coded import code_tensors
from eightbit.graph.model import constant
from eightbit.graph.rescale.equalize import recorded_scales
from eightbit.graph.run import FloatSession
from eightbit.integer.lower.codes import CODE_TYPES
from eightbit.integer.program import Codes

BINS = 64
"""Bins of a histogram: 32 on the grid (eight codes of 8 bits in each), and half as many on either side of it."""


@dataclass(frozen=True)
class TensorError:
    """Signal to quantization noise of one tensor, all error since the input included; `op` computes the tensor.

    `by_sample` holds the same for each sample apart.
    """

    name: str
    op: str
    sqnr_db: float
    by_sample: tuple[float, ...] = ()


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of a tensor's canonical codes, int8 or int16."""

    scale: float
    zero_point: int
    bits: int = 8

    @property
    def smallest(self) -> int:
        """The smallest code."""
        return -(2 ** (self.bits - 1))

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest real value that a code stands for."""
        return self.scale * (self.smallest - self.zero_point), self.scale * (
            -1 - self.smallest - self.zero_point
        )


@dataclass(frozen=True)
class TensorHistogram:
    """How the values of one tensor are spread, before quantization and after.

    `edges` (BINS + 1,) lie between codes of the tensor's grid, `before` and `after` (BINS,) count the float values and
    the dequantized codes between them; `below` and `above` count the float values beyond the edges. `float_range` is
    what the float values really span and `clipped` the share of them that lies more than half a step outside the grid.
    """

    name: str
    op: str
    grid: Grid
    edges: tuple[float, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    below: int
    above: int
    float_range: tuple[float, float]
    clipped: float


class TensorPairs:
    """Runs both graphs on feeds and pairs each tensor of codes with the float tensor of the same name.

    `ops` maps the tensors' names to the operation that computes them, `grids` to their grids. `runtime_graph` is the
    QDQ graph as `deploy.sessions.optimized` gives it, where the caller has it already; it is changed.
    """

    def __init__(
        self,
        model: ir.Model,
        qdq: ir.Model,
        *,
        runtime_graph: onnx.ModelProto | None = None,
        threads: int | None = None,
    ) -> None:
        values = {str(v.name): v for v in chain(model.graph.inputs, *(node.outputs for node in model.graph))}
        found = {
            name: (str(codes.name), grid)
            for name, codes, q in code_tensors(qdq.graph)
            if (grid := _grid(q)) is not None
        }
        self.grids = {name: grid for name, (_, grid) in found.items() if name in values}
        self._codes = {name: codes for name, (codes, _) in found.items()}
        self.ops = {name: _op(values[name]) for name in self.grids}
        self._equalized = recorded_scales(qdq)
        if self.grids:
            self._integers = IntegerTensors(qdq, runtime_graph=runtime_graph, threads=threads)
            self._exact = FloatSession(model, list(self.grids), threads=threads)

    def run(self, feeds: Feeds) -> Iterator[tuple[str, NDArray[np.float32], Codes]]:
        """Yield name, float values and canonical codes, of one shape, of each tensor that ONNX Runtime computes.

        The float values of an equalized channel are scaled as its codes are.
        """
        if not self.grids:
            return
        exact = self._exact.run(feeds)
        codes = self._integers.run(feeds)
        for name in self.grids:
            if self._codes[name] in codes:  # the optimizer may have dropped it
                values = exact[name]
                if name in self._equalized:
                    s = self._equalized[name]
                    values = values * s.reshape(-1, *[1] * (values.ndim - 2))
                yield name, values, codes[self._codes[name]]

    def dequantize(self, name: str, codes: Codes) -> NDArray[np.float32]:
        """The real values that canonical codes of the tensor `name` stand for."""
        grid = self.grids[name]
        return np.float32(grid.scale) * (codes.astype(np.float32) - np.float32(grid.zero_point))


def layer_errors(pairs: TensorPairs, data: Iterable[Feeds]) -> tuple[TensorError, ...]:
    """Noise of each tensor over `data`, and of each sample apart."""
    noise: dict[str, Noise] = {}
    apart: dict[str, list[float]] = {}
    for feeds in data:
        for name, values, codes in pairs.run(feeds):
            one = noise.setdefault(name, Noise()).update(values, pairs.dequantize(name, codes))
            apart.setdefault(name, []).append(one)
    return tuple(
        TensorError(name, pairs.ops[name], noise[name].sqnr_db, tuple(apart[name]))
        for name in pairs.grids
        if name in noise
    )


def layer_histograms(pairs: TensorPairs, data: Iterable[Feeds]) -> tuple[TensorHistogram, ...]:
    """How each tensor's values are spread over `data`, in float and in int8. Memory does not grow with the data."""
    spread: dict[str, _Spread] = {}
    for feeds in data:
        for name, values, codes in pairs.run(feeds):
            spread.setdefault(name, _Spread(pairs.grids[name])).update(values, codes)
    return tuple(spread[name].histogram(name, pairs.ops[name]) for name in pairs.grids if name in spread)


class _Spread:
    """Counts of a tensor's float values in BINS bins of whole codes, from half a grid below to half a grid above."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.width = 2 * 2**grid.bits // BINS
        self.before = np.zeros(BINS + 2, np.int64)
        self.codes = np.zeros(2**grid.bits, np.int64)
        self.lo, self.hi = math.inf, -math.inf
        self.clipped = self.count = 0

    def update(self, values: NDArray[np.float32], codes: Codes) -> None:
        smallest, half = self.grid.smallest, -self.grid.smallest
        steps = values.ravel() / np.float32(self.grid.scale) + np.float32(self.grid.zero_point - smallest)
        self.clipped += int(np.count_nonzero((steps < -0.5) | (steps > 2 * half - 0.5)))
        self.count += steps.size
        place = np.clip((steps + np.float32(half + 0.5)) / self.width, -1, BINS)
        self.before += np.bincount(np.floor(place).astype(np.int64) + 1, minlength=BINS + 2)
        self.codes += np.bincount(codes.ravel().astype(np.int64) - smallest, minlength=2 * half)
        self.lo, self.hi = min(self.lo, float(values.min())), max(self.hi, float(values.max()))

    def histogram(self, name: str, op: str) -> TensorHistogram:
        half = -self.grid.smallest
        first = np.arange(BINS + 1) * self.width - half - 0.5  # an edge lies half a step below a code
        edges = self.grid.scale * (first - half - self.grid.zero_point)
        after = np.pad(self.codes, half).reshape(BINS, self.width).sum(axis=1)
        counts = tuple(int(n) for n in self.before)
        return TensorHistogram(
            name=name,
            op=op,
            grid=self.grid,
            edges=tuple(edges.tolist()),
            before=counts[1:-1],
            after=tuple(int(n) for n in after),
            below=counts[0],
            above=counts[-1],
            float_range=(self.lo, self.hi),
            clipped=self.clipped / self.count,
        )


def _op(value: ir.Value) -> str:
    producer = value.producer()
    return producer.op_type if producer else "input"


def _grid(node: ir.Node) -> Grid | None:
    """Scale and zero point of a Q node for canonical codes, or None if they are not one constant each."""
    scale = constant(node.inputs[1])
    zero_point = constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
    if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
        return None
    if zero_point.dtype not in CODE_TYPES:
        return None
    itype, shift = CODE_TYPES[zero_point.dtype]
    return Grid(float(scale.item()), int(zero_point.item()) - shift, itype.bits)
