"""The engines that a quantized model runs in: what each is called, what it needs, how it rounds. One list of them all.

In: a quantized model and the name of an engine. Out: something that runs feeds. To add an engine, add a row to
`ENGINES`; the runs, the command line, the timing and the certificate read it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.arith.fixedpoint import FIXED_POINT, Arithmetic
from eightbit.deploy.c.compiler import compiler
from eightbit.deploy.c.native import Native
from eightbit.deploy.exposed import Exposed
from eightbit.deploy.openvino_session import OpenVino
from eightbit.deploy.sessions import IntegerTensors, OnnxRuntime, run_island
from eightbit.deploy.tflite.engines import LiteRT, Micro
from eightbit.errors import EightbitError, EngineError, MissingExtra
from eightbit.graph.run import FloatSession
from eightbit.integer.engine import run
from eightbit.integer.program import Program

Array = NDArray[np.generic]


class Runner(Protocol):
    """A model ready to run in an engine."""

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run once; `{output name: array}` of `{input name: array}`. Raises EngineError."""


class Startable(Protocol):
    """What an engine is given: a quantized model, as the graph of its file and as integers."""

    @property
    def ir(self) -> ir.Model:
        """The QDQ graph."""

    @property
    def program(self) -> Program:
        """The integer program."""


Start = Callable[[Startable, Arithmetic | None, int | None], Runner]


@dataclass(frozen=True)
class Engine:
    """One engine. `start(model, arithmetic, threads)` makes a model ready in it; `threads=None` is its own choice.

    `arithmetics` are those that it can be asked for, its own first; none where it rounds in no way that has a name
    here. `rounding` says in a line how accumulators become codes. `need` raises what is missing on this machine.
    `threaded` says whether the number of threads can be chosen, and `start_float`, where there is one, makes a float
    graph ready in the same runtime, so that int8 can be timed against it. `start_layers`, where there is one, makes a
    model ready whose runs give the canonical codes of every tensor by its name.
    """

    name: str
    title: str
    rounding: str
    arithmetics: tuple[Arithmetic, ...]
    start: Start
    need: Callable[[], None] = lambda: None
    threaded: bool = False
    start_float: Callable[[ir.Model, int | None], Runner] | None = None
    start_layers: Callable[[Startable, Arithmetic | None], Runner] | None = None

    @property
    def missing(self) -> EightbitError | None:
        """Why this engine cannot run on this machine; None if it can."""
        try:
            self.need()
        except EightbitError as cause:
            return cause
        return None

    def chosen(self, arithmetic: Arithmetic | None) -> Arithmetic | None:
        """The arithmetic to run in where `arithmetic` is asked for. Raises EngineError for one that it lacks."""
        if arithmetic is None:
            return self.arithmetics[0] if self.arithmetics else None
        if arithmetic not in self.arithmetics:
            has = ", ".join(repr(a.value) for a in self.arithmetics)
            instead = f"choose {has}" if has else "it rounds in its own way: leave arithmetic= out"
            raise EngineError(f"the engine {self.name!r} has no {arithmetic.value!r} arithmetic; {instead}")
        return arithmetic


@dataclass(frozen=True)
class _NumPy:
    program: Program
    arithmetic: Arithmetic

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        return run(self.program, feeds, arithmetic=self.arithmetic, island=run_island)


@dataclass(frozen=True)
class _NumPyLayers(_NumPy):
    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        program = self.program
        found = run(program, feeds, arithmetic=self.arithmetic, island=run_island, keep=True)
        return {name: found[name] for op in program.ops for name in op.outputs if name in program.tensors}


def package(name: str, extra: str) -> Callable[[], None]:
    """What a package needs that an extra brings: raises MissingExtra where it is not installed."""

    def need() -> None:
        if find_spec(name) is None:
            raise MissingExtra(name, extra)

    return need


def _compiler() -> None:
    compiler()


def _numpy(model: Startable, arithmetic: Arithmetic | None, threads: int | None) -> Runner:
    return _NumPy(model.program, arithmetic or Arithmetic.ONNX)


def _native(model: Startable, arithmetic: Arithmetic | None, threads: int | None) -> Runner:
    return Native(model.program, arithmetic or Arithmetic.TFLITE)


def _litert(name: str, title: str, rounding: str, *, xnnpack: bool) -> Engine:
    return Engine(
        name,
        title,
        rounding,
        (),
        lambda model, arithmetic, threads: LiteRT(model.program, xnnpack=xnnpack, threads=threads),
        package("ai_edge_litert", "litert"),
        threaded=True,
        start_layers=lambda model, arithmetic: Exposed(
            model.program, lambda program: LiteRT(program, xnnpack=xnnpack)
        ),
    )


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            "onnxruntime",
            "ONNX Runtime",
            "once, in float32, ties to even",
            (Arithmetic.ONNX,),
            lambda model, arithmetic, threads: OnnxRuntime(model.ir, threads=threads),
            threaded=True,
            start_float=lambda graph, threads: FloatSession(graph, threads=threads),
            start_layers=lambda model, arithmetic: IntegerTensors(model.ir),
        ),
        Engine(
            "numpy",
            "NumPy engine",
            "as the arithmetic says: this engine has them all",
            (Arithmetic.ONNX, *FIXED_POINT),
            _numpy,
            start_layers=lambda model, arithmetic: _NumPyLayers(model.program, arithmetic or Arithmetic.ONNX),
        ),
        Engine(
            "native",
            "C on this machine",
            "in integers: twice (tflite) or once (single)",
            tuple(FIXED_POINT),
            _native,
            _compiler,
            start_layers=lambda model, arithmetic: Exposed(
                model.program, lambda program: Native(program, arithmetic or Arithmetic.TFLITE)
            ),
        ),
        Engine(
            "openvino",
            "OpenVINO",
            "once, in float32, ties to even; the bias is added in float",
            (),
            lambda model, arithmetic, threads: OpenVino(model.ir, threads=threads),
            package("openvino", "openvino"),
            threaded=True,
            start_float=lambda graph, threads: OpenVino(graph, threads=threads),
        ),
        _litert("litert", "LiteRT with XNNPACK", "once, in float32, ties to even", xnnpack=True),
        _litert(
            "litert-builtin",
            "LiteRT without XNNPACK",
            "each kernel in its own way: once, twice, or in float",
            xnnpack=False,
        ),
        Engine(
            "tflm",
            "TFLite Micro",
            "in integers, twice",
            (Arithmetic.TFLITE,),
            lambda model, arithmetic, threads: Micro(model.program),
            package("tflite_micro", "tflm"),
            start_layers=lambda model, arithmetic: Exposed(model.program, Micro),
        ),
    )
}
"""Every engine by its name; see `installed` for those that can run here."""


def installed() -> tuple[Engine, ...]:
    """The engines that can run on this machine, in the order of `ENGINES`."""
    return tuple(engine for engine in ENGINES.values() if engine.missing is None)


def engine_of(name: str) -> Engine:
    """The engine called `name`. Raises EngineError for an unknown name, and what it needs where that is not there."""
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}; choose {', '.join(map(repr, ENGINES))}")
    engine = ENGINES[name]
    engine.need()
    return engine
