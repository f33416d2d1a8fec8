"""One model in every engine: where the integers are the same, where they differ, by how much, and whether answers do.

In: a quantized model and data. Out: a frozen `Certificate` that prints, turns into JSON and writes one HTML page.
Every engine is held against the NumPy engine twice: in the engine's own arithmetic, where it has one with a name and no
integer may differ, and in ONNX arithmetic, so that the families can be compared. Differences are in codes, and include
all that was made on the way to a tensor. Chapter 15.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from eightbit.arith.affine import quantize
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.data.feeds import Feeds
from eightbit.deploy.engines import ENGINES, Engine, Runner, Startable, installed
from eightbit.errors import EightbitError, EngineError
from eightbit.graph.samples import samples
from eightbit.integer.program import Codes, Dequantize, Program
from eightbit.model import QuantizedModel
from eightbit.model import open as open_quantized
from eightbit.quant.observe.calibrate import Progress
from eightbit.report.page import write_page
from eightbit.report.section import Section, parity_section
from eightbit.report.table import Table
from eightbit.values.fields import check

WIDEST = 3
"""Differences of as many codes and more are counted together."""
ROUNDING = {
    Arithmetic.ONNX: "once, in float32, ties to even (A, B)",
    Arithmetic.TFLITE: "twice, in integers (C)",
    Arithmetic.SINGLE: "once, in integers (D)",
}
"""How accumulators become codes, with the letters of the families of chapter 3."""
SAMPLES = 64
"""Samples that a certificate looks at unless it is told otherwise."""


@dataclass(frozen=True)
class TensorParity:
    """Differences of one tensor's codes, `counts` by their size: 0, 1, 2, and `WIDEST` or more; `op` made them."""

    tensor: str
    op: str
    counts: tuple[int, ...]
    most: int

    @property
    def integers(self) -> int:
        """How many codes were compared."""
        return sum(self.counts)

    @property
    def differing(self) -> int:
        """How many of them differ."""
        return self.integers - self.counts[0]


@dataclass(frozen=True)
class EngineParity:
    """One engine in one arithmetic, None where what it does has no name here.

    `own` are the differences to the NumPy engine in the same arithmetic (none for an engine without one), `onnx` those
    to it in ONNX arithmetic; every tensor in the order of the program where the engine shows them, else the outputs.
    `same_answers` of `answers` samples have the first class of the NumPy engine in ONNX arithmetic.
    """

    engine: str
    arithmetic: str | None
    rounding: str
    every_tensor: bool
    own: tuple[TensorParity, ...]
    onnx: tuple[TensorParity, ...]
    same_answers: int
    answers: int

    @property
    def title(self) -> str:
        """The engine, and its arithmetic in brackets."""
        return self.engine if self.arithmetic is None else f"{self.engine} ({self.arithmetic})"

    @property
    def exact(self) -> bool | None:
        """Whether no integer differs from the engine's own arithmetic; None where it has none with a name."""
        return None if self.arithmetic is None else not any(row.differing for row in self.own)

    def shares(self) -> tuple[float, ...]:
        """The share of all integers by the size of their difference to ONNX arithmetic."""
        counts = np.sum([row.counts for row in self.onnx] or [(1, *(0,) * WIDEST)], axis=0)
        return tuple(float(share) for share in counts / counts.sum())


@dataclass(frozen=True)
class Certificate:
    """What `certify` found over `samples` samples; `left_out` says why other engines are not there."""

    samples: int
    engines: tuple[EngineParity, ...]
    left_out: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        check(self, EngineError)

    @property
    def holds(self) -> bool:
        """Whether every engine whose arithmetic has a name gives exactly its integers."""
        return all(row.exact is not False for row in self.engines)

    def tables(self) -> tuple[Table, ...]:
        """The engines, what differs from their own arithmetic if anything does, and the tensors that differ most."""
        rows = tuple(
            (
                *(row.title, row.rounding, "all" if row.every_tensor else "outputs"),
                {None: "", True: "0", False: f"{sum(r.differing for r in row.own):,}"}[row.exact],
                *(f"{share:.3%}" for share in row.shares()),
                f"{row.same_answers} of {row.answers}" if row.answers else "",
            )
            for row in self.engines
        )
        columns = ("engine", "rounds", "tensors", "differ>", "0>", "1>", "2>", f"{WIDEST}+>", "same answers>")
        note = (
            f"{self.samples} samples. 'differ': integers that are not the NumPy engine's in the same arithmetic. 0, 1, "
            "2, ...: share of the integers by their distance to ONNX arithmetic, in codes; 'same answers': as there."
        )
        missing = [f"{name} is left out: {reason}" for name, reason in self.left_out]
        found = [Table("Parity certificate", columns, rows, " ".join([note, *missing]))]
        wrong = [(row, tensor) for row in self.engines for tensor in row.own if tensor.differing]
        if wrong:
            cells = tuple(
                (r.title, t.tensor, t.op, f"{t.differing:,} of {t.integers:,}", str(t.most)) for r, t in wrong
            )
            found.append(
                Table(
                    "Not the integers of their own arithmetic",
                    ("engine", "tensor", "op", "differ>", "most>"),
                    cells,
                )
            )
        return tuple(found)

    def layers(self) -> Table:
        """Each tensor that differs from ONNX arithmetic in some engine: the share of its integers, by engine."""
        shown = [row for row in self.engines if row.every_tensor and any(t.differing for t in row.onnx)]
        shares = [{t.tensor: (t.op, t.differing / max(1, t.integers)) for t in row.onnx} for row in shown]
        names = dict.fromkeys(t.tensor for row in shown for t in row.onnx if t.differing)
        rows = tuple(
            (
                name,
                next(found[name][0] for found in shares if name in found),
                *(f"{found[name][1]:.3%}" if name in found else "" for found in shares),
            )
            for name in names
        )
        return Table(
            "Integers that differ from ONNX arithmetic, by tensor",
            ("tensor", "op", *(f"{row.title}>" for row in shown)),
            rows,
        )

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables()))

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self.tables())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        found = asdict(self) | {"left_out": dict(self.left_out), "holds": self.holds}
        for fields, row in zip(found["engines"], self.engines, strict=True):
            fields["exact"] = row.exact
        return found

    def html(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML page with every table and figure in it. Raises ExportError, MissingExtra (`plot`)."""
        sections = [Section("", self.tables())]
        if any(t.differing for row in self.engines for t in row.onnx):
            sections.append(parity_section(self.engines))
            sections.append(Section("Tensor by tensor", (self.layers(),)))
        return write_page(f"Parity certificate on {self.samples} samples", sections, path)


def certify(
    q: QuantizedModel | str | os.PathLike[str],
    data: Any,
    *,
    most: int = SAMPLES,
    progress: Progress | None = None,
) -> Certificate:
    """Run an int8 model, or its file, in every engine that is installed, and compare the integers tensor by tensor.

    `data` is what `quantize` takes; the first `most` samples of it are used, one at a time. An engine that cannot run
    the model is left out with its reason. Raises EngineError for data that do not fit or hold no sample, LoadError for
    files.
    """
    if most < 1:
        raise EngineError(f"most={most}: give at least one sample")
    model = q if isinstance(q, QuantizedModel) else open_quantized(q)
    given = list(islice(samples(model.ir, data, EngineError), most))
    if not given:
        raise EngineError("there is no sample to certify with; give at least one")
    left_out = [(e.name, str(e.missing)) for e in ENGINES.values() if e.missing is not None]
    numpy = ENGINES["numpy"]
    references = {
        a: found for a in numpy.arithmetics if (found := _reference(model, a, given[0])) is not None
    }
    if Arithmetic.ONNX not in references:
        raise EngineError("the NumPy engine cannot run this model, and there is nothing to compare with")
    runs: list[_Run] = []
    for engine in installed():
        for arithmetic in engine.arithmetics or (None,):
            try:
                run = _Run(engine, arithmetic, model)
                run.codes(given[0])
            except EightbitError as cause:
                name = engine.name if arithmetic is None else f"{engine.name} ({arithmetic.value})"
                left_out.append((name, " ".join(str(cause).split())))
            else:
                runs.append(run)
    for done, sample in enumerate(given, start=1):
        right = {arithmetic: runner.run(sample) for arithmetic, runner in references.items()}
        answer = run_outputs(model, sample)
        for run in runs:
            run.update(sample, right, answer)
        if progress is not None:
            progress("certify", done)
    return Certificate(len(given), tuple(run.parity() for run in runs), tuple(left_out))


def _reference(model: Startable, arithmetic: Arithmetic, sample: Feeds) -> Runner | None:
    """The NumPy engine with every tensor shown; None for a program that has no rule in the arithmetic."""
    start = ENGINES["numpy"].start_layers
    assert start is not None
    try:
        runner = start(model, arithmetic)
        runner.run(sample)
    except EightbitError:
        return None
    return runner


def run_outputs(model: Startable, sample: Feeds) -> Mapping[str, np.ndarray]:
    """The outputs by the NumPy engine in ONNX arithmetic."""
    return ENGINES["numpy"].start(model, Arithmetic.ONNX, None).run(sample)


@dataclass
class _Run:
    """One engine in one arithmetic, and the differences seen so far."""

    engine: Engine
    arithmetic: Arithmetic | None
    model: Startable
    own: dict[str, Counter[int]] = field(default_factory=dict)
    onnx: dict[str, Counter[int]] = field(default_factory=dict)
    same: int = 0
    answers: int = 0

    def __post_init__(self) -> None:
        start = self.engine.start_layers
        self._outputs = self.engine.start(self.model, self.arithmetic, None)
        self._layers = None if start is None else start(self.model, self.arithmetic)

    def codes(self, sample: Feeds) -> Mapping[str, Codes]:
        """The codes of every tensor, or of the outputs that are made of codes."""
        if self._layers is not None:
            return self._layers.run(sample)  # type: ignore[return-value]  # what `start_layers` promises
        found, program = self._outputs.run(sample), self.model.program
        return {
            name: quantize(found[out], program.tensors[name].params)
            for out, name in coded_outputs(program).items()
        }

    def update(
        self, sample: Feeds, right: Mapping[Arithmetic, Mapping[str, Any]], answer: Mapping[str, np.ndarray]
    ) -> None:
        """Count the differences of one sample."""
        found = self.codes(sample)
        for name, codes in found.items():
            if self.arithmetic is not None and name in right.get(self.arithmetic, {}):
                _count(self.own.setdefault(name, Counter()), codes, right[self.arithmetic][name])
            if name in right[Arithmetic.ONNX]:
                _count(self.onnx.setdefault(name, Counter()), codes, right[Arithmetic.ONNX][name])
        first = next(iter(answer))
        expected, outputs = answer[first], self._outputs.run(sample)
        if expected.ndim == 2 and expected.shape[1] > 1:
            self.answers += len(expected)
            self.same += int((outputs[first].argmax(axis=1) == expected.argmax(axis=1)).sum())

    def parity(self) -> EngineParity:
        """What was seen."""
        made_by = {name: type(op).__name__ for op in self.model.program.ops for name in op.outputs}
        order = {name: i for i, name in enumerate(made_by)}

        def rows(seen: Mapping[str, Counter[int]]) -> tuple[TensorParity, ...]:
            names = sorted(seen, key=lambda name: order.get(name, len(order)))
            return tuple(_parity(name, made_by.get(name, "constant"), seen[name]) for name in names)

        return EngineParity(
            self.engine.name,
            None if self.arithmetic is None else self.arithmetic.value,
            self.engine.rounding if self.arithmetic is None else ROUNDING[self.arithmetic],
            self._layers is not None,
            rows(self.own),
            rows(self.onnx),
            self.same,
            self.answers,
        )


def _count(seen: Counter[int], codes: Codes, right: Codes) -> None:
    """Add the sizes of the differences of one tensor."""
    if codes.shape != right.shape:
        raise EngineError(f"an engine gave codes of shape {codes.shape} for a tensor of shape {right.shape}")
    sizes, counts = np.unique(np.abs(codes.astype(np.int32) - right.astype(np.int32)), return_counts=True)
    seen.update(dict(zip(sizes.tolist(), counts.tolist(), strict=True)))


def _parity(name: str, op: str, seen: Counter[int]) -> TensorParity:
    wide = sum(count for size, count in seen.items() if size >= WIDEST)
    return TensorParity(name, op, (*(seen[size] for size in range(WIDEST)), wide), max(seen, default=0))


def coded_outputs(program: Program) -> dict[str, str]:
    """`{output: tensor of codes}` of the outputs that are dequantized codes."""
    borders = {op.outputs[0]: op.inputs[0] for op in program.ops if isinstance(op, Dequantize)}
    return {name: borders[name] for name in program.outputs if name in borders}
