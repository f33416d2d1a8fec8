"""The borders of a network written for one sample a call: floats in, floats out, one sample after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import dequantize, quantize
from eightbit.deploy.layout.shapes import Shape, shapes_of
from eightbit.deploy.layout.views import Order
from eightbit.errors import EngineError
from eightbit.integer.program import Codes, Program, TensorInfo

Call = Callable[[Sequence[Codes]], Sequence[Codes]]
"""The codes of every input of one sample, as they lie in memory, to those of every output."""


@dataclass(frozen=True)
class Port:
    """An input or output of the network: the codes, and the float tensor of the graph that they stand for.

    `shape` is the graph's; `order` names its axes from the slowest in memory to the fastest, where they lie otherwise.
    """

    tensor: str
    codes: str
    buffer: str
    shape: Shape
    info: TensorInfo
    order: Order | None = None

    def laid(self, codes: Codes) -> Codes:
        """Codes in the graph's shape as they lie in memory."""
        return np.ascontiguousarray(codes if self.order is None else codes.transpose(self.order))

    def read(self, laid: Codes) -> Codes:
        """Codes as they lie in memory in the graph's shape."""
        return laid if self.order is None else laid.transpose(np.argsort(self.order))


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
            port.tensor for port in outputs if pairs[port.codes] != (2 * port.shape[0], *port.shape[1:])
        ]

    def run(self, feeds: Mapping[str, NDArray]) -> dict[str, NDArray[np.float32]]:
        """`{output name: float array}` of float `feeds` by input name."""
        codes = [quantize(feeds[port.tensor], port.info.params) for port in self.inputs]
        found = self.codes(codes)
        return {
            port.tensor: dequantize(q, port.info.params) for port, q in zip(self.outputs, found, strict=True)
        }

    def codes(self, inputs: Sequence[Codes]) -> list[Codes]:
        """The output codes of input codes, in the order of the ports."""
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
        made = [np.empty((count, *port.shape), np.int8) for port in self.outputs]
        with self._one_at_a_time:
            for i in range(count):
                arrays = [
                    port.laid((q[i] if cut else q).reshape(port.shape))
                    for q, cut, port in zip(inputs, self._cut, self.inputs, strict=True)
                ]
                for whole, port, q in zip(made, self.outputs, self._call(arrays), strict=True):
                    whole[i] = port.read(q)
        return [q[0] if count == 1 else q.reshape(-1, *q.shape[2:]) for q in made]
