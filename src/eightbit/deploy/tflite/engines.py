"""The engines that run a .tflite: LiteRT, with XNNPACK and without, and the interpreter of TFLite Micro.

Each runs the very file that `eightbit.export` writes, one sample a call.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eightbit.deploy.layout.ports import Ported
from eightbit.deploy.layout.shapes import Array
from eightbit.deploy.tflite.file import to_bytes
from eightbit.deploy.tflite.net import Net
from eightbit.deploy.tflite.prepare import micro_net_of, net_of
from eightbit.errors import EngineError, ExportError, MissingExtra
from eightbit.graph.run import check_threads
from eightbit.graph.source.quiet import silence
from eightbit.integer.program import Program


class LiteRT(Ported):
    """A program as a .tflite in LiteRT, with the kernels of XNNPACK or with LiteRT's own.

    Raises MissingExtra without LiteRT, EngineError for what the file cannot say or LiteRT refuses.
    """

    def __init__(self, program: Program, *, xnnpack: bool, threads: int | None = None) -> None:
        net = _tried(net_of, program)
        check_threads(threads)
        self._interpreter = litert(to_bytes(net), xnnpack=xnnpack, threads=threads)
        self._indices = [
            [detail["index"] for detail in details]
            for details in (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        ]
        super().__init__(program, net.inputs, net.outputs, self._sample)

    def _sample(self, inputs: Sequence[Array]) -> list[Array]:
        given, made = self._indices
        for index, q in zip(given, inputs, strict=True):
            self._interpreter.set_tensor(index, q)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in made]


class Micro(Ported):
    """A program as a .tflite in TFLite Micro's interpreter.

    Raises MissingExtra without it, EngineError for what the file cannot say or the interpreter refuses.
    """

    def __init__(self, program: Program) -> None:
        net = _tried(micro_net_of, program)
        self._interpreter = micro(to_bytes(net), arena_for(net))
        super().__init__(program, net.inputs, net.outputs, self._sample)

    def _sample(self, inputs: Sequence[Array]) -> list[Array]:
        for index, q in enumerate(inputs):
            self._interpreter.set_input(q, index)
        self._interpreter.invoke()
        return [self._interpreter.get_output(index) for index in range(len(self.outputs))]


def _tried(write: Callable[[Program], Net], program: Program) -> Net:
    try:
        return write(program)
    except ExportError as cause:
        raise EngineError(f"engines of .tflite files cannot run this: {cause}") from cause


def litert(data: bytes, *, xnnpack: bool, threads: int | None = 1) -> Any:
    """LiteRT's interpreter of a file. Raises MissingExtra, and EngineError for a file that LiteRT refuses."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as cause:
        raise MissingExtra("ai-edge-litert", "litert") from cause
    own = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    kernels = OpResolverType.BUILTIN if xnnpack else own
    try:
        with silence():  # XNNPACK announces itself
            made = Interpreter(model_content=data, num_threads=threads, experimental_op_resolver_type=kernels)
            made.allocate_tensors()
    except (RuntimeError, ValueError) as cause:
        raise EngineError(f"LiteRT refuses the network: {str(cause).splitlines()[0]}") from cause
    return made


def micro(data: bytes, arena: int) -> Any:
    """TFLite Micro's interpreter of a file, in `arena` bytes. Raises MissingExtra, EngineError for one it refuses."""
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as cause:
        raise MissingExtra("tflite-micro", "tflm") from cause
    try:
        return runtime.Interpreter.from_bytes(data, arena_size=arena)
    except RuntimeError as cause:
        raise EngineError(f"TFLite Micro refuses the network: {str(cause).splitlines()[0]}") from cause


def arena_for(net: Net) -> int:
    """Bytes that surely suffice TFLite Micro: every tensor at its own place, and what it keeps beside them."""
    made = [t for t in net.tensors.values() if t.data is None]
    channels = sum(
        t.data.size for t in net.tensors.values() if t.data is not None and t.data.dtype == np.int32
    )
    return 2**20 + sum(2**12 + 2 * int(np.prod(t.shape)) * t.dtype.itemsize for t in made) + 2**6 * channels


def arena_used(net: Net) -> dict[str, int]:
    """Bytes of the arena that TFLite Micro uses, as it says itself: total, head (tensors), tail (its own objects).

    Its pointers are this machine's. Raises MissingExtra without the interpreter, EngineError for a file it refuses.
    """
    interpreter = micro(to_bytes(net), arena_for(net))
    with tempfile.TemporaryFile() as printed:
        kept = os.dup(2)
        os.dup2(printed.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        printed.seek(0)
        text = printed.read().decode()
    return {what: int(count) for what, count in re.findall(r"Arena allocation (\w+) (\d+) bytes", text)}
