"""The engine `native`: the network's C, compiled for this machine and loaded; floats in, floats out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.c.compiler import library
from eightbit.deploy.c.folder import kernels, network
from eightbit.deploy.c.text import Network, header, source
from eightbit.deploy.layout.ports import Ported
from eightbit.deploy.layout.shapes import Array
from eightbit.errors import EngineError, ExportError
from eightbit.integer.program import Program


class Native(Ported):
    """A program as compiled C. Raises EngineError for what C cannot do, and without a C compiler."""

    def __init__(self, program: Program, arithmetic: Arithmetic) -> None:
        try:
            self.net = network(program, arithmetic)
        except ExportError as cause:
            raise EngineError(f"the engine 'native' cannot run this: {cause}") from cause
        self._run = compiled(self.net)
        super().__init__(program, self.net.plan.inputs, self.net.plan.outputs, self._sample)

    def _sample(self, inputs: Sequence[Array]) -> list[Array]:
        made: list[Array] = [np.empty(port.shape, np.int8) for port in self.outputs]
        self._run(*(ctypes.c_void_p(a.ctypes.data) for a in (*inputs, *made)))
        return made


def compiled(net: Network, flags: Sequence[str] | None = None) -> Callable[..., None]:
    """`net_run` of a network, which takes pointers to codes: inputs, then outputs. Raises EngineError.

    `flags` are the compiler's, by default those for this very machine.
    """
    files = {f"{net.name}.c": source(net), f"{net.name}.h": header(net)}
    run: Callable[..., None] = getattr(library(files | kernels(), flags), f"{net.name}_run")
    run.restype = None  # type: ignore[attr-defined]
    return run
