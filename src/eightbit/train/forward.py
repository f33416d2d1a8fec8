"""An integer program that can be differentiated: the arithmetic of the engines, with a gradient.

In: a `Plan`, its numbers as tensors of a framework, float feeds. Out: float outputs, or every tensor on the way. A
tensor of codes is held as steps, that is float32 integers `code - zero_point`; sums of products of steps are what the
int32 accumulators hold, and requantization is the engines' own (family A),

    y = clip(RNE(acc · (s_x s_w) / s_y)),                                                                          (1)

so that the model that is trained is the model that runs. Rounding has no useful gradient and gets the identity's,
straight through (Bengio et al. 2013, arXiv 1308.3432). The scales in (1) and in x / s are ordinary numbers, whose
gradient is that of LSQ (Esser et al. 2020, arXiv 1902.08153, equation 3): round(v) - v inside the range, or the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.arith.windows import by_axis, reached_pads
from eightbit.integer import engine
from eightbit.integer import program as p
from eightbit.train.islands import run_island
from eightbit.train.moves import MOVES
from eightbit.train.ops import Ops, Taps, Tensor
from eightbit.train.plan import Grid, Plan, beside_sums, beside_weight

EXACT = 2**24
"""Sums below it are exact in float32, whatever their order."""
OWN_ORDER = (p.Add, p.Mul, p.AveragePool, p.Softmax)
"""Operations whose float32 formula in the engine rounds more than once, or in another order than a framework would."""
SMOOTH = 4
"""Codes to either side over which the slope of a table is taken: single steps say little of it."""


class Forward:
    """One run of a plan: `numbers` are what it has learned, by key.

    With `exact`, every tensor of codes is the engine's: sums that float32 might round are taken in float64, as the
    int32 accumulators have them, and what the engine rounds in an order of its own (`OWN_ORDER`) is rounded there.

    `normal` has mean and variance (2, C) of the sums of each layer that is normalized (`normal`, equation 1), or None
    for one whose sums are only looked at; after the run `moments` have mean and variance (C,) of this batch.
    """

    def __init__(
        self,
        plan: Plan,
        ops: Ops,
        numbers: Mapping[str, Tensor],
        *,
        exact: bool = False,
        normal: Mapping[str, Tensor | None] = MappingProxyType({}),
    ) -> None:
        self.plan, self.ops, self.exact, self.normal = plan, ops, exact, normal
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._numbers = numbers
        self._scales: dict[str, Tensor] = {}

    def scale(self, key: str) -> Tensor:
        """The scale of a key of the plan."""
        if key not in self._scales:
            start = self.ops.constant(self.plan.start[key])
            self._scales[key] = start * self.ops.exp(self._numbers[key])
        return self._scales[key]

    def value(self, key: str) -> Tensor:
        """The weight or bias of a key of the plan."""
        start, unit = (self.ops.constant(part[key]) for part in (self.plan.start, self.plan.units))
        return start + self._numbers[key] * unit

    def grid(self, name: str) -> Grid:
        """The grid of a tensor of codes."""
        return self.plan.grids[name]

    def values(self) -> dict[str, Tensor]:
        """Every number of the plan as `plan.write` takes it."""
        return {
            key: self.scale(key) if key.startswith("scale:") else self.value(key) for key in self._numbers
        }

    def weight(self, op: p.Conv | p.Gemm | p.GemmToFloat) -> tuple[Tensor, Tensor, Tensor | None]:
        """The codes of a layer's weight, the step of its accumulators (it broadcasts with them), its bias in steps."""
        keys = self.plan.layers[op.name]
        rows, channels = beside_weight(op.weight.ndim), beside_sums(op.weight.ndim)
        s_w = self.scale(keys.scale)
        steps = s_w if not self.ops.shape(s_w) else self.ops.reshaped(s_w, rows)
        lo, hi = keys.itype.qmin, keys.itype.qmax
        codes = self.ops.snapped(self.value(keys.weight) / steps, lo, hi)
        unit = self.scale(self.grid(op.inputs[0]).scale) * s_w
        unit = unit if not self.ops.shape(unit) else self.ops.reshaped(unit, channels)
        if keys.bias is None:
            return codes, unit, None
        bias = self.ops.reshaped(self.value(keys.bias), channels)
        return codes, unit, self.round(bias / unit)

    def round(self, x: Tensor) -> Tensor:
        """Rounded to integers, with the gradient of the identity."""
        return self.ops.passed(x, self.ops.rounded(x))

    def on_grid(self, value: Tensor, name: str) -> Tensor:
        """A value in steps of tensor `name`, rounded and saturated."""
        grid = self.grid(name)
        return self.ops.snapped(value, grid.lo, grid.hi)

    def requantized(self, acc: Tensor, unit: Tensor, name: str) -> Tensor:
        """Sums in steps of `unit` as steps of tensor `name`: equation (1)."""
        grid = self.grid(name)
        return self.ops.requantized(acc, unit / self.scale(grid.scale), grid.lo, grid.hi)

    def normalized(self, op: p.Conv, acc: Tensor, unit: Tensor, bias: Tensor) -> Tensor:
        """Sums of a layer in `normal`, before the bias, as steps of its output: equation (1) of `normal`."""
        first, (target,) = self.normal[op.name], op.outputs
        if first is None:
            self.moments[op.name] = self.ops.moments(acc)
            return self.requantized(acc + bias, unit, target)
        steps, shift = (
            self.ops.reshaped(x, (-1,)) for x in (unit / self.scale(self.grid(target).scale), bias)
        )
        gain, offset = self.ops.unary("Sqrt", first[1]) * steps, (first[0] + shift) * steps
        y, *moments = self.ops.normalized(acc, gain, offset)
        self.moments[op.name] = moments[0], moments[1]
        return self.on_grid(y, target)

    def wide(self, op: p.Conv | p.Gemm | p.GemmToFloat) -> bool:
        """Whether the sums of a layer, with any weights that it may learn, can leave what float32 holds exactly."""
        grid, channels = self.grid(op.inputs[0]), op.weight.shape[0 if isinstance(op, p.Conv) else 1]
        terms = op.weight.size // channels
        return self.exact and terms * self.plan.layers[op.name].itype.qmax * (grid.hi - grid.lo) >= EXACT

    def _as_run(self, op: p.Op, value: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """`value` as the engine computes it, with the gradient that it has."""
        if not (self.exact and isinstance(op, OWN_ORDER)):
            return value
        names = (*op.inputs, *op.outputs)
        tensors = self.plan.program.tensors

        def steps(*arrays: np.ndarray) -> np.ndarray:
            given, scales = arrays[: len(inputs)], arrays[len(inputs) :]
            infos = {n: replace(tensors[n], scale=np.float32(s)) for n, s in zip(names, scales, strict=True)}
            kernel = engine.KERNELS[type(op)](op, replace(self.plan.program, tensors=infos), Arithmetic.ONNX)
            codes = [
                (x + infos[n].zero_point).astype(infos[n].itype.dtype)
                for n, x in zip(names, given, strict=False)
            ]
            return np.asarray(kernel(*codes), np.float32) - np.float32(infos[names[-1]].zero_point)

        scales = [self.scale(self.grid(name).scale) for name in names]
        return self.ops.passed(value, self.ops.computed(steps, *inputs, *scales))

    def run(self, feeds: Mapping[str, Tensor], *, keep: bool = False) -> dict[str, Tensor]:
        """The outputs by name; with `keep` also every tensor of codes, in steps."""
        program = self.plan.program
        values: dict[str, Tensor] = dict(feeds)
        for name, codes in program.constants.items():
            steps = codes.astype(np.float32) - self.grid(name).zero_point
            values[name] = self.ops.constant(steps.astype(np.float32))
        last = {name: i for i, op in enumerate(program.ops) for name in op.inputs}
        for i, op in enumerate(program.ops):
            inputs = [values[name] for name in op.inputs]
            if isinstance(op, p.FloatIsland):
                values.update(run_island(op, dict(zip(op.inputs, inputs, strict=True)), self.ops))
            else:
                made = KERNELS[type(op)](self, op, *inputs)
                values[op.outputs[0]] = self._as_run(op, made, inputs)
            for name in op.inputs:
                if last[name] == i and not keep and name not in program.outputs:
                    values.pop(name, None)
        wanted = (*program.outputs, *(program.tensors if keep else ()))
        found = {name: values[name] for name in wanted if name in values}
        return {n: self.ops.constant(v) if isinstance(v, np.ndarray) else v for n, v in found.items()}


def _quantize(run: Forward, op: p.Quantize, x: Tensor) -> Tensor:
    return run.on_grid(x / run.scale(run.grid(op.outputs[0]).scale), op.outputs[0])


def _dequantize(run: Forward, op: p.Dequantize, q: Tensor) -> Tensor:
    return q * run.scale(run.grid(op.inputs[0]).scale)


def _conv(run: Forward, op: p.Conv, x: Tensor) -> Tensor:
    codes, unit, bias = run.weight(op)
    taps = Taps(op.strides, op.pads, op.dilations, op.group)
    if op.name in run.normal:
        return run.normalized(op, run.ops.convolved(x, codes, None, taps, False), unit, bias)
    if bias is None or run.exact:  # a float32 sum that begins with a large bias would round on its way
        acc = run.ops.convolved(x, codes, None, taps, run.wide(op))
        acc = acc if bias is None else acc + bias
    else:
        acc = run.ops.convolved(x, codes, run.ops.reshaped(bias, (-1,)), taps, False)
    return run.requantized(acc, unit, op.outputs[0])


def _gemm(run: Forward, op: p.Gemm | p.GemmToFloat, x: Tensor) -> Tensor:
    codes, unit, bias = run.weight(op)
    acc = run.ops.product(x, codes, run.wide(op))
    acc = acc if bias is None else acc + bias
    if isinstance(op, p.GemmToFloat):
        return acc * unit
    return run.requantized(acc, unit, op.outputs[0])


def _matmul(run: Forward, op: p.MatMul | p.MatMulToFloat, a: Tensor, b: Tensor) -> Tensor:
    s_a, s_b = (run.scale(run.grid(name).scale) for name in op.inputs)
    acc = run.ops.product(a, b, run.exact)
    if isinstance(op, p.MatMulToFloat):
        return acc * (s_a * s_b)
    return run.requantized(acc, s_a * s_b, op.outputs[0])


def _add(run: Forward, op: p.Add, a: Tensor, b: Tensor) -> Tensor:
    s_a, s_b, s_y = (run.scale(run.grid(name).scale) for name in (*op.inputs, *op.outputs))
    return run.on_grid(a * (s_a / s_y) + b * (s_b / s_y), op.outputs[0])


def _mul(run: Forward, op: p.Mul, a: Tensor, b: Tensor) -> Tensor:
    s_a, s_b = (run.scale(run.grid(name).scale) for name in op.inputs)
    return run.requantized(a * b, s_a * s_b, op.outputs[0])


def _moved_to(run: Forward, x: Tensor, source: str, target: str) -> Tensor:
    """Steps of one scale as steps of another."""
    before, after = run.grid(source), run.grid(target)
    if before == after:
        return x
    return run.on_grid(x * run.scale(before.scale) / run.scale(after.scale), target)


def _lookup(run: Forward, op: p.Lookup, x: Tensor) -> Tensor:
    before, after = run.grid(op.inputs[0]), run.grid(op.outputs[0])
    if op.kind == p.REQUANTIZE:
        return _moved_to(run, x, op.inputs[0], op.outputs[0])
    table = op.table.astype(np.float32) - after.zero_point
    if op.kind == p.CLIP_CODES:
        return run.ops.clipped(x, float(table.min()), float(table.max()))
    slopes = np.gradient(np.convolve(np.pad(table, SMOOTH, mode="edge"), _window(), mode="valid")).astype(
        np.float32
    )
    index = run.ops.still(x) - float(before.lo)
    value = run.ops.picked(run.ops.constant(table.astype(np.float32)), index)
    slope = run.ops.picked(run.ops.constant(slopes), index)
    return value + slope * (x - run.ops.still(x))


def _window() -> np.ndarray:
    return np.full(2 * SMOOTH + 1, 1 / (2 * SMOOTH + 1))


def _softmax(run: Forward, op: p.Softmax, x: Tensor) -> Tensor:
    """In whole units of 1 / s_y, as the engines have it: the scale of the result is not learned."""
    units = np.floor(np.float32(1) / run.plan.start[run.grid(op.outputs[0]).scale])
    s_x = run.scale(run.grid(op.inputs[0]).scale)
    return run.on_grid(run.ops.softmax(x * s_x, op.axis) * float(units), op.outputs[0])


def _embedding(run: Forward, op: p.Embedding, ids: Tensor) -> Tensor:
    """Rows of a table that is not learned; ids below zero count from the end."""
    table = run.ops.constant(op.table.astype(np.float32) * op.scale[:, None])
    return run.ops.picked(table, run.ops.chosen(ids < 0, ids + len(op.table), ids))


def _concat(run: Forward, op: p.Concat, *parts: Tensor) -> Tensor:
    target = op.outputs[0]
    same = [_moved_to(run, x, source, target) for x, source in zip(parts, op.inputs, strict=True)]
    return run.ops.joined(same, op.axis)


def _max_pool(run: Forward, op: p.MaxPool, x: Tensor) -> Tensor:
    widths = _window_pads(op, run.ops.shape(x), op.dilations)
    low = float(run.grid(op.inputs[0]).lo)
    return run.ops.largest(run.ops.padded(x, widths, "constant", low), op.kernel, op.strides, op.dilations)


def _average_pool(run: Forward, op: p.AveragePool, x: Tensor) -> Tensor:
    shape = run.ops.shape(x)
    widths = _window_pads(op, shape, (1,) * len(op.kernel))
    total = run.ops.totals(run.ops.padded(x, widths, "constant", 0.0), op.kernel, op.strides)
    count: Any = float(np.prod(op.kernel))
    if not op.count_include_pad:
        ones = np.pad(np.ones((1, 1, *shape[2:]), np.float32), widths)
        count = run.ops.totals(run.ops.constant(ones), op.kernel, op.strides)
    s_x, s_y = (run.scale(run.grid(name).scale) for name in (*op.inputs, *op.outputs))
    return run.on_grid(total / count * s_x / s_y, op.outputs[0])


def _global_average_pool(run: Forward, op: p.GlobalAveragePool, x: Tensor) -> Tensor:
    shape = run.ops.shape(x)
    acc = run.ops.total(x, range(2, len(shape)))
    s_x, s_y = (run.scale(run.grid(name).scale) for name in (*op.inputs, *op.outputs))
    return run.on_grid(acc * (s_x / (s_y * float(np.prod(shape[2:])))), op.outputs[0])


def _window_pads(
    op: p.MaxPool | p.AveragePool, shape: tuple[int, ...], dilations: tuple[int, ...]
) -> list[tuple[int, int]]:
    """The padding of every axis, with what ceil mode's last window needs."""
    axes = by_axis(shape[2:], op.kernel, op.strides, op.pads, dilations)
    return [(0, 0), (0, 0), *(reached_pads(*axis, ceil=op.ceil_mode) for axis in axes)]


KERNELS: dict[type[p.Op], Callable[..., Tensor]] = {
    p.Quantize: _quantize,
    p.Dequantize: _dequantize,
    p.Conv: _conv,
    p.Gemm: _gemm,
    p.GemmToFloat: _gemm,
    p.MatMul: _matmul,
    p.MatMulToFloat: _matmul,
    p.Add: _add,
    p.Mul: _mul,
    p.MaxPool: _max_pool,
    p.AveragePool: _average_pool,
    p.GlobalAveragePool: _global_average_pool,
    p.Softmax: _softmax,
    p.Lookup: _lookup,
    p.Embedding: _embedding,
    p.Concat: _concat,
    **MOVES,
}
"""What each operation does; a `FloatIsland` is run by `islands`, and dynamic layers are not trained."""
