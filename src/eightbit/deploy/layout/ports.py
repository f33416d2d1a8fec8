"""The borders of a network written for one sample a call: arrays in, arrays out, one sample after the other.

Floats become codes on the way in where the network takes codes, and come of codes on the way out; an input that it
takes as it is, an output that it computes in float, are handed through.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eightbit.arith.affine import dequantize, quantize
from eightbit.deploy.layout.shapes import Array, Shape, shapes_of
from eightbit.deploy.layout.views import Order
from eightbit.errors import EngineError
from eightbit.integer.program import Program, TensorInfo

Call = Callable[[Sequence[Array]], Sequence[Array]]
"""What lies in memory for every input of one sample, to what does for every output."""


@dataclass(frozen=True)
class Port:
    """An input or output of the network: the codes, and the float tensor of the graph that they stand for.

    `shape` is the graph's; `order` names its axes from the slowest in memory to the fastest, where they lie otherwise.
    Without `info` it is the tensor itself, of type `dtype`, and `codes` its name.
    """

    tensor: str
    codes: str
    buffer: str
    shape: Shape
    info: TensorInfo | None
    order: Order | None = None
    dtype: str = "int8"

    def laid(self, array: Array) -> Array:
        """Codes, or the tensor, in the graph's shape as they lie in memory."""
        return np.ascontiguousarray(array if self.order is None else array.transpose(self.order))

    def read(self, laid: Array) -> Array:
        """Codes, or the tensor, as they lie in memory in the graph's shape."""
        return laid if self.order is None else laid.transpose(np.argsort(self.order))

    def given(self, array: Array) -> Array:
        """What the network takes for an input of the graph."""
        return array if self.info is None else quantize(array, self.info.params)

    def handed_out(self, array: Array) -> Array:
        """The output of the graph that the network's stands for."""
        return array if self.info is None else dequantize(array, self.info.params)


class Ported:
    """A network for one sample a call, run on floats; a free batch axis is walked along.

    Calls come one at a time, whatever the number of threads: the network has one arena.
    """

    def __init__(self, program: Program, inputs: Sequence[Port], outputs: Sequence[Port], call: Call) -> None:
        self.inputs, self.outputs, self._call = inputs, outputs, call
        self._one_at_a_time = threading.Lock()
        pairs = shapes_of(program, batch=2)
        self._cut = [pairs[port.codes] != port.shape for port in inputs]
        self._fixed = [
            port.tensor
            for port in outputs
            if not port.shape or pairs[port.codes] != (2 * port.shape[0], *port.shape[1:])
        ]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """`{output name: array}` of `feeds` by input name."""
        found = self.codes([port.given(feeds[port.tensor]) for port in self.inputs])
        return {port.tensor: port.handed_out(q) for port, q in zip(self.outputs, found, strict=True)}

    def codes(self, inputs: Sequence[Array]) -> list[Array]:
        """The output codes of input codes, in the order of the ports; as they are where a port has none."""
        for port, q, cut in zip(self.inputs, inputs, self._cut, strict=True):
            if q.shape[cut:] != port.shape[cut:]:
                raise EngineError(
                    f"input {port.tensor!r} has shape {q.shape}; the network is for {port.shape}"
                )
        counts = {len(q) for q, cut in zip(inputs, self._cut, strict=True) if cut} or {1}
        count = max(counts)
        if len(counts) > 1:
            raise EngineError(f"the inputs hold {sorted(counts)} samples; make them equal")
        if count != 1 and self._fixed:
            raise EngineError(
                f"output {self._fixed[0]!r} does not grow with the batch; give one sample at a time"
            )
        made = [np.empty((count, *port.shape), port.dtype) for port in self.outputs]
        with self._one_at_a_time:
            for i in range(count):
                arrays = [
                    port.laid((q[i] if cut else q).reshape(port.shape))
                    for q, cut, port in zip(inputs, self._cut, self.inputs, strict=True)
                ]
                for whole, port, q in zip(made, self.outputs, self._call(arrays), strict=True):
                    whole[i] = port.read(q)
        return [q[0] if count == 1 else q.reshape(-1, *q.shape[2:]) for q in made]
