"""A .tflite network in the making: where each tensor of the program lies, and the operators so far.

A tensor of the file has the shape that its codes have in memory: an image of the graph, (N, C, H, W), is (N, H, W, C)
there. A `View` keeps both; a Transpose of the graph writes no operator, and one is written only where somebody needs
another order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eightbit.deploy.layout.ports import Port
from eightbit.deploy.layout.shapes import Array, Shape
from eightbit.deploy.layout.views import Order, View, channels_last, in_order
from eightbit.deploy.tflite.net import Net, Operator, Quantization, Tensor
from eightbit.integer import program as p
from eightbit.integer.program import TensorInfo

FLOAT = np.dtype(np.float32)
WINDOWED = (p.Conv, p.MaxPool, p.AveragePool, p.GlobalAveragePool)
LAYOUT_FREE = (p.Lookup, p.Add, p.Mul, p.Concat, p.Slice, p.Pad, p.Take)


class Builder:
    """A network in the making."""

    def __init__(self, program: p.Program, values: Mapping[str, Array]) -> None:
        self.program = program
        self.shapes = {name: array.shape for name, array in values.items()}
        self._values = values
        self.views: dict[str, View] = {}
        self.tensors: dict[str, Tensor] = {}
        self.operators: list[Operator] = []
        self.inputs: list[Port] = []
        self.columns: dict[str, NDArray[np.intp]] = {}
        """Of a matrix that was an image: which of its columns each place in memory holds."""
        self._moved: dict[tuple[str, Shape, Order], str] = {}
        self._plain: dict[tuple[Shape, np.dtype, bytes], str] = {}
        self._reads: dict[str, list[p.Op]] = {}
        for op in program.ops:
            for name in op.inputs:
                self._reads.setdefault(name, []).append(op)
        for name, codes in program.constants.items():
            self.views[name] = View(
                self._tensor(name, codes.shape, self.info(name), codes), codes.shape, in_order(codes.ndim)
            )
        for name in program.inputs:
            if not all(isinstance(op, p.Quantize) for op in self.readers(name)):
                self._input(name, name)

    def info(self, name: str) -> TensorInfo | None:
        """Scale and zero point of a tensor of codes; None of one in float."""
        return self.program.tensors.get(name)

    def coded(self, name: str) -> TensorInfo:
        """The same of a tensor that is surely codes."""
        return self.program.tensors[name]

    def dtype(self, name: str) -> np.dtype:
        """The type of a tensor of the program, or of one between two operators in float."""
        if name in self.program.tensors:
            return np.dtype(np.int8)
        return self._values[name].dtype if name in self._values else FLOAT

    def readers(self, name: str) -> Sequence[p.Op]:
        """The operations that read a tensor."""
        return self._reads.get(name, [])

    def quantize(self, op: p.Quantize) -> None:
        """Codes of an input of the network, which are handed in; or of a float tensor."""
        (x,), (y,) = op.inputs, op.outputs
        if x not in self.views:
            self._input(x, y)
            return
        found = self.views[x]
        self.add("QUANTIZE", (self.laid(found),), self.make(y, found.order).buffer)

    def _input(self, tensor: str, name: str) -> None:
        """An input of the network. An image has its channels last if layers with windows read it."""
        rank = len(self.shapes[name])
        view = self.make(name, channels_last(rank) if self._meets_windows(name) else in_order(rank))
        self.inputs.append(self._port(tensor, name, view))

    def _meets_windows(self, name: str) -> bool:
        seen, left = set[str](), [name]
        while left:
            at = left.pop()
            for op in self.readers(at):
                if isinstance(op, WINDOWED):
                    return True
                if isinstance(op, LAYOUT_FREE) and op.outputs[0] not in seen:
                    seen.add(op.outputs[0])
                    left.append(op.outputs[0])
        return False

    def read(self, name: str, order: Order | None = None) -> View:
        """Where a tensor lies; with an `order`, a copy in that order if the tensor itself lies otherwise."""
        return self.views[name] if order is None else self.reordered(self.views[name], order)

    def reordered(self, view: View, order: Order) -> View:
        """The codes of a view in another order in memory: the same ones where only axes of length 1 change places."""
        wanted = replace(view, order=order)
        if wanted.lies(view.order):
            return wanted
        perm = tuple(view.order.index(axis) for axis in order)
        key = (view.buffer, view.laid, perm)
        if key not in self._moved:
            self._moved[key] = self._transposed(view, perm, wanted.laid)
        return replace(wanted, buffer=self._moved[key])

    def _transposed(self, view: View, perm: tuple[int, ...], shape: Shape) -> str:
        name, source = f"{view.buffer}.moved", self.tensors[view.buffer]
        if source.data is not None:
            return self._tensor(
                name, shape, source.quantization, source.data.reshape(view.laid).transpose(perm)
            )
        made = self.like(name, shape, view.buffer)
        groups = merged(perm, lambda before, after: after == before + 1)
        places = sorted(range(len(groups)), key=lambda i: groups[i][0])  # of the groups in the input
        lengths = [int(np.prod([view.laid[axis] for axis in group])) for group in groups]
        x = self.of_shape(view, tuple(lengths[i] for i in places))
        new = np.array([places.index(i) for i in range(len(groups))], np.int32)
        self.add_as("TRANSPOSE", (x, self.constant(new)), made, tuple(lengths))
        return made

    def of_shape(self, view: View, shape: Shape) -> str:
        """The tensor of a view's codes as they lie, with another shape."""
        return self.laid(View(view.buffer, shape, in_order(len(shape))))

    def laid(self, view: View) -> str:
        """The tensor that holds a view, in the view's own shape: reshaped if the tensor has another one."""
        source = self.tensors[view.buffer]
        if source.shape == view.laid:
            return view.buffer
        key = (view.buffer, view.laid, ())
        if key not in self._moved:
            data = None if source.data is None else source.data.reshape(view.laid)
            made = self._tensor(f"{view.buffer}.reshaped", view.laid, source.quantization, data, source.dtype)
            if data is None:
                self.reshape(view.buffer, made)
            self._moved[key] = made
        return self._moved[key]

    def reshape(self, x: str, y: str) -> None:
        """An operator that gives a tensor the shape of another."""
        shape = np.array(self.tensors[y].shape, np.int32)
        self.add("RESHAPE", (x, self.constant(shape)), y, newShape=shape)

    def make(self, name: str, order: Order) -> View:
        """A new tensor for one of the program."""
        view = View(name, self.shapes[name], order)
        buffer = self._tensor(name, view.laid, self.info(name), dtype=self.dtype(name))
        self.views[name] = replace(view, buffer=buffer)
        return self.views[name]

    def like(self, name: str, shape: Shape, other: str) -> str:
        """A tensor that the program knows nothing of, with the type and quantization of another."""
        return self._tensor(name, shape, self.tensors[other].quantization, dtype=self.tensors[other].dtype)

    def dequantized(self, view: View) -> View:
        """The numbers that a view's codes stand for."""
        key = (view.buffer, view.laid, (-1,))
        if key not in self._moved:
            self._moved[key] = self.of_type(f"{view.buffer}.real", view.laid, FLOAT)
            self.add("DEQUANTIZE", (self.laid(view),), self._moved[key])
        return replace(view, buffer=self._moved[key])

    def of_type(self, name: str, shape: Shape, dtype: np.dtype) -> str:
        """A tensor that the program knows nothing of, without a scale."""
        return self._tensor(name, shape, None, dtype=dtype)

    def of(self, name: str, shape: Shape, info: TensorInfo) -> str:
        """A tensor that the program knows nothing of, of codes that it would describe so."""
        return self._tensor(name, shape, info)

    def pad(self, x: str, pads: NDArray[np.int32], value: float | None, target: str) -> None:
        """An operator that puts `value` around a tensor, `pads` (rank, 2) many along each axis; None mirrors."""
        source = self.tensors[x]
        shape = tuple(n + int(sum(pair)) for n, pair in zip(source.shape, pads, strict=True))
        operands = [x, self.constant(pads)]
        if value is None:
            self.add_as("MIRROR_PAD", operands, target, shape, mode=0)  # REFLECT
        elif value == (0 if source.quantization is None else source.quantization.zero_point):
            self.add_as("PAD", operands, target, shape)
        else:
            filled = self._tensor(
                f"{target}.value", (1,), source.quantization, np.array([value], source.dtype)
            )
            self.add_as("PADV2", [*operands, filled], target, shape)

    def constant(
        self,
        data: Array,
        quantization: Quantization | TensorInfo | None = None,
        name: str = "constant",
    ) -> str:
        """A constant; lengths, axes and the like, which have no quantization, are kept once."""
        if quantization is not None:
            return self._tensor(name, data.shape, quantization, data)
        key = (data.shape, data.dtype, data.tobytes())
        if key not in self._plain:
            self._plain[key] = self._tensor(name, data.shape, None, data)
        return self._plain[key]

    def add(self, kind: str, inputs: Sequence[str], output: str, **options: object) -> None:
        """One operator more."""
        self.operators.append(Operator(kind, tuple(inputs), (output,), options))

    def add_as(self, kind: str, inputs: Sequence[str], output: str, shape: Shape, **options: object) -> None:
        """One operator more, whose output has a `shape`; where that is not `output`'s, it is reshaped."""
        if self.tensors[output].shape == shape:
            self.add(kind, inputs, output, **options)
            return
        made = self.like(f"{output}.{kind.lower()}", shape, output)
        self.add(kind, inputs, made, **options)
        self.reshape(made, output)

    def net(self) -> Net:
        """The network, with every output in a tensor of its own and without operators that nobody reads."""
        outputs: list[Port] = []
        taken = {port.buffer for port in self.inputs} | {
            n for n, t in self.tensors.items() if t.data is not None
        }
        codes = {op.outputs[0]: op.inputs[0] for op in self.program.ops if isinstance(op, p.Dequantize)}
        for tensor in self.program.outputs:
            name = codes.get(tensor, tensor)
            found = self.views[name]
            last = channels_last(len(found.shape))
            view = self.reordered(found, last if found.lies(last) else in_order(len(found.shape)))
            buffer = self.laid(view)
            if buffer in taken:
                copy = self.like(f"{name}.copy", view.laid, buffer)
                self.reshape(buffer, copy)
                buffer = copy
            taken.add(buffer)
            outputs.append(self._port(tensor, name, replace(view, buffer=buffer)))
        wanted = {port.buffer for port in outputs}
        operators: list[Operator] = []
        for operator in reversed(self.operators):
            if wanted & set(operator.outputs):
                operators.append(operator)
                wanted.update(operator.inputs)
        wanted |= {port.buffer for port in self.inputs}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in wanted}
        return Net(tensors, tuple(reversed(operators)), tuple(self.inputs), tuple(outputs))

    def _port(self, tensor: str, name: str, view: View) -> Port:
        order = None if view.order == in_order(len(view.shape)) else view.order
        return Port(tensor, name, view.buffer, view.shape, self.info(name), order, self.dtype(name).name)

    def _tensor(
        self,
        name: str,
        shape: Shape,
        quantization: Quantization | TensorInfo | None,
        data: Array | None = None,
        dtype: np.dtype | None = None,
    ) -> str:
        found, number = name, 1
        while found in self.tensors:
            number += 1
            found = f"{name}.{number}"
        if isinstance(quantization, TensorInfo):
            quantization = Quantization(
                np.array([quantization.scale], np.float32), int(quantization.zero_point)
            )
        kept = None if data is None else np.ascontiguousarray(data)
        chosen = dtype or (np.dtype(np.int8) if kept is None else kept.dtype)
        self.tensors[found] = Tensor(found, tuple(shape), chosen, quantization, kept)
        return found


def merged(axes: Sequence[int], together: Callable[[int, int], bool]) -> list[list[int]]:
    """Neighbours of `axes` in groups: an axis joins the one before it where `together` says so of the two.

    Operators take four or five axes at the most.

    >>> merged([2, 3, 0, 1], lambda before, after: after == before + 1)
    [[2, 3], [0, 1]]
    """
    groups: list[list[int]] = []
    for axis in axes:
        if groups and together(groups[-1][-1], axis):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return groups
