"""The engine `native`: the network's C, compiled for this machine and loaded; floats in, floats out."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import dequantize, quantize
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.c.compiler import library
from eightbit.deploy.c.folder import kernel_header, network
from eightbit.deploy.c.prepare import shapes_of
from eightbit.deploy.c.text import Network, header, source
from eightbit.errors import EngineError, ExportError
from eightbit.integer.program import Codes, Program


class Native:
    """A program as compiled C. A free batch axis is walked along, one sample a call.

    Raises EngineError for what C cannot do, and without a C compiler.
    """

    def __init__(self, program: Program, arithmetic: Arithmetic) -> None:
        try:
            self.net = network(program, arithmetic)
        except ExportError as cause:
            raise EngineError(f"the engine 'native' cannot run this: {cause}") from cause
        self._run = compiled(self.net)
        self._one_at_a_time = threading.Lock()  # the arena is static
        plan, pairs = self.net.plan, shapes_of(program, batch=2)
        self._cut = [pairs[port.codes] != port.shape for port in plan.inputs]
        self._fixed = [
            port.tensor for port in plan.outputs if pairs[port.codes] != (2 * port.shape[0], *port.shape[1:])
        ]

    def run(self, feeds: Mapping[str, NDArray]) -> dict[str, NDArray[np.float32]]:
        """`{output name: float array}` of float `feeds` by input name."""
        plan = self.net.plan
        codes = [quantize(feeds[port.tensor], port.info.params) for port in plan.inputs]
        found = self.codes(codes)
        return {
            port.tensor: dequantize(q, port.info.params) for port, q in zip(plan.outputs, found, strict=True)
        }

    def codes(self, inputs: list[Codes]) -> list[Codes]:
        """The output codes of input codes, in the order of the plan's inputs and outputs."""
        plan = self.net.plan
        for port, q, cut in zip(plan.inputs, inputs, self._cut, strict=True):
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
        given = [np.ascontiguousarray(q) for q in inputs]
        made = [np.empty((count, *port.shape), np.int8) for port in plan.outputs]
        with self._one_at_a_time:
            for i in range(count):
                arrays = [q[i] if cut else q for q, cut in zip(given, self._cut, strict=True)]
                self._run(*(ctypes.c_void_p(a.ctypes.data) for a in (*arrays, *(q[i] for q in made))))
        return [q[0] if count == 1 else q.reshape(-1, *q.shape[2:]) for q in made]


def compiled(net: Network) -> Callable[..., None]:
    """`net_run` of a network, which takes pointers to codes: inputs, then outputs. Raises EngineError."""
    files = {f"{net.name}.c": source(net), f"{net.name}.h": header(net)}
    run: Callable[..., None] = getattr(
        library(files | {"eb_kernels.h": kernel_header("eb_kernels.h")}), f"{net.name}_run"
    )
    run.restype = None  # type: ignore[attr-defined]
    return run
