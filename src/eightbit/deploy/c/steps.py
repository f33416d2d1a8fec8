"""An integer program as steps of C: calls of kernels on buffers, constants laid out as the kernels read them.

In: a `Program` and an arithmetic. Out: a `Plan`: what net.c does, before anything has an address or is text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.c.walks import walk
from eightbit.deploy.layout.ports import Port
from eightbit.deploy.layout.shapes import Shape
from eightbit.deploy.layout.views import Order, View, in_order
from eightbit.errors import ExportError
from eightbit.integer import program as p
from eightbit.integer.program import Codes, TensorInfo


@dataclass(frozen=True, eq=False)
class Biases:
    """Biases with the input's zero point in them, modulo 2^32, and the sums of their weights; int64 (O,)."""

    bias: NDArray[np.int64]
    sums: NDArray[np.int64]


Array = NDArray[np.integer] | Biases
Value = int | tuple[int, ...] | Array | None


@dataclass(frozen=True, eq=False)
class Call:
    """`eb_<kernel>` with a constant struct of `fields`, and pointers to `buffers`."""

    kernel: str
    fields: Mapping[str, Value]
    buffers: tuple[str, ...]


@dataclass(frozen=True)
class Scratch:
    """Where a kernel lays out inputs: `size` bytes of the arena, or `lines` bytes beside it if it takes whole rows."""

    name: str
    size: int
    lines: int


@dataclass(frozen=True, eq=False)
class Step:
    """What one operation does: reads `reads`, writes all of `writes`.

    `gaps` says of inputs how many bytes before them the output may begin, if both share bytes. `scratch` is needed
    meanwhile.
    """

    name: str
    reads: tuple[str, ...]
    writes: str
    calls: tuple[Call, ...]
    gaps: Mapping[str, int] = field(default_factory=dict)
    scratch: Scratch | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps in an order that works, the bytes of each buffer they write, constants by the name of their buffer."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    steps: tuple[Step, ...]
    sizes: Mapping[str, int]
    constants: Mapping[str, Codes]
    arithmetic: Arithmetic


class Builder:
    """A plan in the making: where each tensor lies, and the steps so far."""

    def __init__(self, program: p.Program, shapes: Mapping[str, Shape], arithmetic: Arithmetic) -> None:
        self.program, self.shapes, self.arithmetic = program, shapes, arithmetic
        self.views: dict[str, View] = {
            name: View(name, codes.shape, in_order(codes.ndim)) for name, codes in program.constants.items()
        }
        self.steps: list[Step] = []
        self.sizes: dict[str, int] = {}
        self.inputs: list[Port] = []
        self._moved: dict[tuple[str, Shape, Order, Order], View] = {}

    def info(self, name: str) -> TensorInfo:
        """Scale and zero point of a tensor of codes."""
        return self.program.tensors[name]

    def read(self, name: str, order: Order | None = None) -> View:
        """Where a tensor lies; with an `order`, a copy that lies so if the tensor itself does not."""
        view = self.views[name]
        if order is None or view.lies(order):
            return view if order is None else replace(view, order=order)
        key = (view.buffer, view.shape, view.order, order)
        if key not in self._moved:
            copy = View(self._fresh(f"{name}.moved"), view.shape, order)
            self.sizes[copy.buffer] = copy.size
            self.add(copy.buffer, (view,), copy, (self.move(name, view, copy),))
            self._moved[key] = copy
        return self._moved[key]

    def make(self, name: str, order: Order) -> View:
        """A new buffer for a tensor."""
        view = View(name, self.shapes[name], order)
        self.views[name] = view
        self.sizes[name] = view.size
        return view

    def add(
        self,
        name: str,
        reads: Sequence[View],
        y: View,
        calls: Sequence[Call],
        *,
        gaps: Mapping[str, int] | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        """One step more."""
        read = tuple(dict.fromkeys(view.buffer for view in reads))
        self.steps.append(Step(name, read, y.buffer, tuple(calls), gaps or {}, scratch))

    def move(self, name: str, x: View, y: View, *, begin: int = 0, table: Codes | None = None) -> Call:
        """All codes of `x` to places in `y`'s buffer from `begin` on; `y` gives the steps of the axes there."""
        return self.stride(name, (x, y), x.shape, (0, begin), (x.steps, y.steps), y.order, table=table)

    def stride(
        self,
        name: str,
        views: tuple[View, View],
        shape: Shape,
        begins: tuple[int, int],
        steps: tuple[Sequence[int], Sequence[int]],
        order: Order,
        *,
        table: Codes | None = None,
    ) -> Call:
        """A box of `shape` from `begins[0]` in the first view's buffer to `begins[1]` in the second's."""
        dims, (x_step, y_step) = walk(name, shape, order, *steps)
        fields: dict[str, Value] = {"table": table, "dims": dims, "x_step": x_step, "y_step": y_step}
        fields |= {"x_begin": begins[0], "y_begin": begins[1]}
        return Call("move", fields, (views[0].buffer, views[1].buffer))

    def plan(self) -> Plan:
        """The plan, with every output in a buffer of its own and without steps that nobody reads."""
        outputs: list[Port] = []
        taken = {port.buffer for port in self.inputs} | set(self.program.constants)
        made_by = {name: op for op in self.program.ops for name in op.outputs}
        for tensor in self.program.outputs:
            op = made_by.get(tensor)
            if not isinstance(op, p.Dequantize):
                raise ExportError(f"output {tensor!r} is not made of codes; C gives out codes: quantize it")
            name = op.inputs[0]
            view = self.read(name, in_order(len(self.views[name].shape)))
            if view.buffer in taken:
                copy = View(self._fresh(f"{tensor}.copy"), view.shape, view.order)
                self.sizes[copy.buffer] = copy.size
                self.add(copy.buffer, (view,), copy, (self.move(name, view, copy),))
                view = copy
            taken.add(view.buffer)
            outputs.append(Port(tensor, name, view.buffer, view.shape, self.info(name)))
        steps: list[Step] = []
        wanted = {port.buffer for port in outputs}
        for step in reversed(self.steps):
            if step.writes in wanted:
                steps.append(step)
                wanted.update(step.reads)
        constants = {name: codes for name, codes in self.program.constants.items() if name in wanted}
        return Plan(
            tuple(self.inputs), tuple(outputs), tuple(reversed(steps)), self.sizes, constants, self.arithmetic
        )

    def _fresh(self, name: str) -> str:
        found, number = name, 1
        while found in self.sizes or found in self.program.tensors:
            number += 1
            found = f"{name}{number}"
        return found
