"""What will go wrong on a target, before anybody deploys to it: what saturates, falls back to float, or is refused.

In: a quantized model and a target. Out: a frozen `Lint` that prints, shows itself in a notebook and turns into JSON.
Nothing is run: saturation is read off the weights, float off the integer program, and what C refuses, and the memory
that it takes, off the plan that it would be written from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.c.flash import flash_bytes
from eightbit.deploy.c.folder import network
from eightbit.deploy.c.text import Network
from eightbit.deploy.layout.refusals import IN_FLOAT as CANNOT_FLOAT
from eightbit.deploy.saturation import saturating
from eightbit.deploy.tflite.net import Net
from eightbit.deploy.tflite.prepare import micro_net_of, net_of
from eightbit.errors import EngineError, ExportError
from eightbit.graph.model import attribute, constant, input_at, is_op, sole_consumer
from eightbit.integer import program as p
from eightbit.model import QuantizedModel
from eightbit.model import open as open_quantized
from eightbit.report.inspection import float_nodes
from eightbit.report.remedies import remedy_for
from eightbit.report.table import Table
from eightbit.values.fields import check

SATURATES, IN_FLOAT, REFUSED, MEMORY = "saturates", "float", "refused", "memory"


@dataclass(frozen=True)
class Finding:
    """One thing that will happen to a node: `kind` is "saturates", "float", "refused" or "memory", where it is the
    node that takes most.
    """

    kind: str
    node: str
    op: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Lint:
    """The findings for a target in the order of the graph; bytes of `arena` and `flash` where the target has them."""

    target: str
    findings: tuple[Finding, ...]
    arena: int | None = None
    flash: int | None = None

    def __post_init__(self) -> None:
        check(self, EngineError)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def table(self) -> Table:
        """A row for each finding; memory in the note."""
        rows = tuple((f.kind, f.node, f.op, f.reason, f.remedy) for f in self.findings)
        memory = ((self.arena, "arena"), (self.flash, "flash, at most"))
        note = "; ".join(f"{what}: {size:,} bytes" for size, what in memory if size is not None)
        title = f"{TARGETS[self.target].title}: {len(rows) or 'no'} finding{'s' * (len(rows) != 1)}"
        return Table(title, ("what", "node", "op", "why", "remedy") if rows else (), rows, note)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return asdict(self) | {"clean": self.clean}


@dataclass(frozen=True)
class Target:
    """What a model is to run in, what can happen to it there, and whether it has an arena and flash of its own."""

    title: str
    rules: tuple[Callable[[QuantizedModel], Iterator[Finding]], ...]
    bare: bool = False


def lint(
    q: QuantizedModel | str | os.PathLike[str],
    target: str,
    *,
    arena: int | None = None,
    flash: int | None = None,
) -> Lint:
    """Say what of an int8 model, or of its file, will saturate, fall back to float or be refused on `target`.

    Targets: "x86-vnni", "x86-avx2" (no VNNI) and "arm" are ONNX Runtime; "tflite" and "tflm"
    are LiteRT and TFLite Micro on the .tflite that `export` writes; "cortex-m" is the C that `export` writes, for
    which `arena` and `flash` are the bytes that there are. Each finding names the node and what to do. Raises
    EngineError for an unknown target and for a budget that the target does not have, LoadError for files.
    """
    if target not in TARGETS:
        raise EngineError(f"unknown target {target!r}; choose {', '.join(map(repr, TARGETS))}")
    chosen = TARGETS[target]
    if not chosen.bare and (arena, flash) != (None, None):
        raise EngineError(f"the target {target!r} has no budget of arena and flash; 'cortex-m' has")
    model = q if isinstance(q, QuantizedModel) else open_quantized(q)
    found = [finding for rule in chosen.rules for finding in rule(model)]
    place = {str(node.name): i for i, node in enumerate(model.ir.graph)}
    found.sort(key=lambda finding: place.get(finding.node, len(place)))
    if not chosen.bare or any(f.kind == REFUSED for f in found):
        return Lint(target, tuple(found))
    net = network(model.program, Arithmetic.TFLITE)
    sizes = {"arena": net.arena.size, "flash": flash_bytes(net)}
    types = {str(node.name): node.op_type for node in model.ir.graph}
    for what, most in (("arena", arena), ("flash", flash)):
        if most is not None and sizes[what] > most:
            node = _tallest(net) if what == "arena" else _heaviest(model.program)
            found.append(
                Finding(
                    MEMORY,
                    node,
                    types.get(node, ""),
                    f"{what}: {sizes[what]:,} bytes of {most:,}",
                    SMALLER[what],
                )
            )
    return Lint(target, tuple(found), sizes["arena"], sizes["flash"])


def _tallest(net: Network) -> str:
    """The step whose codes, or whose scratch, lie at the top of the arena."""
    top = max(net.arena.buffers, key=lambda b: net.arena.offsets[b.name] + b.size, default=None)
    steps = {step.writes: step.name for step in net.plan.steps}
    steps |= {step.scratch.name: step.name for step in net.plan.steps if step.scratch}
    return "" if top is None else steps[top.name]


def _heaviest(program: p.Program) -> str:
    """The layer with the most weights."""
    layers = [op for op in program.ops if isinstance(op, p.Conv | p.Gemm)]
    return max(layers, key=lambda op: op.weight.size).name if layers else ""


SMALLER = {
    "arena": "smaller inputs, or fewer channels here, where the arena is highest (eightbit.plot.arena draws it)",
    "flash": "fewer channels, here first: eightbit.prune",
}


def _saturating(q: QuantizedModel) -> Iterator[Finding]:
    ops = {str(node.name): node.op_type for node in q.ir.graph}
    for name, pairs, total in saturating(q.program):
        yield Finding(
            SATURATES,
            name,
            ops.get(name, ""),
            f"{pairs:,} of {total:,} pairs of weights can exceed int16, unless exact kernels are asked for",
            "Recipe(processor='x86-avx2'); until then this package's own sessions ask for exact kernels, "
            "which are slower",
        )


def _in_float(q: QuantizedModel) -> Iterator[Finding]:
    known = {node.name: node.reason for node in float_nodes(q)}
    wide = {op.name for op in q.program.ops if _wide(op, q.program)}
    for node in q.ir.graph:
        name = str(node.name)
        reason = known.get(name)
        if reason is not None and is_op(node, "Resize") and _same_codes(node):
            continue
        if reason is None and name in wide and node.op_type in WIDE_IN_FLOAT:
            reason = WIDE
        if reason is None and is_op(node, "Pad") and attribute(node, "mode", "constant") != "constant":
            reason = MIRROR
        if reason is not None:
            yield Finding(IN_FLOAT, name, node.op_type, reason, remedy_for(reason))


WIDE = "codes of 16 bits: ONNX Runtime has no integer kernels for them"
WIDE_IN_FLOAT = frozenset(
    {"Conv", "Gemm", "MatMul", "Add", "Mul", "AveragePool", "GlobalAveragePool", "Softmax"}
)
MIRROR = "it pads with the tensor's own values, which ONNX Runtime does in float"


def _wide(op: p.Op, program: p.Program) -> bool:
    """Whether an operation reads or writes codes of 16 bits, weights included."""
    weight = getattr(op, "weight", None)
    bits = [program.tensors[n].itype.bits for n in (*op.inputs, *op.outputs) if n in program.tensors]
    return max(bits, default=8) > 8 or (weight is not None and bool(weight.dtype.itemsize > 1))


def _same_codes(node: ir.Node) -> bool:
    """Whether a node between codes has one grid on both sides: ONNX Runtime then lets it carry the codes themselves."""
    before = None if node.inputs[0] is None else node.inputs[0].producer()
    after = sole_consumer(node.outputs[0])
    if (
        before is None
        or after is None
        or not is_op(before, "DequantizeLinear")
        or not is_op(after, "QuantizeLinear")
    ):
        return False
    pairs = [(constant(input_at(before, i)), constant(input_at(after, i))) for i in (1, 2)]
    return all(one is not None and other is not None and np.array_equal(one, other) for one, other in pairs)


def _refused_by_c(q: QuantizedModel) -> Iterator[Finding]:
    yield from refusals(q, lambda: network(q.program, Arithmetic.TFLITE))


def _by_tflite(q: QuantizedModel) -> Iterator[Finding]:
    """What the writer refuses; where it refuses nothing, what the file computes in float."""
    made: list[Net] = []
    refused = list(refusals(q, lambda: made.append(net_of(q.program))))
    yield from refused or _islands_of(q, made[0])


def _islands_of(q: QuantizedModel, net: Net) -> Iterator[Finding]:
    known = {node.name: node.reason for node in float_nodes(q)}
    known |= {op.name: SUMS for op in q.program.ops if isinstance(op, p.GemmToFloat | p.MatMulToFloat)}
    for node in q.ir.graph:
        name = str(node.name)
        if name in known and name in net.in_float:
            yield Finding(IN_FLOAT, name, node.op_type, known[name], remedy_for(known[name]))


SUMS = "its sums leave as float: TensorFlow Lite has no such kernel, and multiplies in float"


def _refused_by_tflm(q: QuantizedModel) -> Iterator[Finding]:
    yield from refusals(q, lambda: micro_net_of(q.program))


def refusals(q: QuantizedModel, write: Callable[[], object]) -> Iterator[Finding]:
    """What a writer refuses: each line of its error begins with the name of an operation or a tensor."""
    try:
        write()
    except ExportError as cause:
        lines = str(cause).splitlines()
    else:
        return
    named = {op.name: op for op in q.program.ops}
    named |= {name: op for op in q.program.ops for name in op.outputs if name not in named}
    inner = {name for op in q.program.ops if isinstance(op, p.FloatIsland) for name in op.nodes}
    types = {str(node.name): node.op_type for node in q.ir.graph}
    ends = (*q.program.inputs, *q.program.outputs)
    inside = {node.name: node for node in float_nodes(q)}
    for line in lines[1:] or lines:
        text = re.sub(r"^the network cannot be written [^:]*: ", "", line.strip())
        name = max((n for n in {*named, *inner} if text.startswith(f"{n}: ")), key=len, default="")
        reason, _, remedy = text.removeprefix(f"{name}: ").rpartition(": ")
        op = named.get(name)
        whole = text == f"{name}: {CANNOT_FLOAT}"
        islands = (
            [inside[n] for n in op.nodes if n in inside] if whole and isinstance(op, p.FloatIsland) else []
        )
        for node in islands:
            said = f"it computes in float: {node.reason}"
            yield Finding(REFUSED, node.name, node.op, said, remedy_for(node.reason))
        if not islands:
            where = next((v for v in ends if f" {v!r} " in text), "")
            where = name if name in inner else where if op is None else op.name
            yield Finding(
                REFUSED, where, types.get(where, ""), reason or remedy, remedy if reason else OUTSIDE
            )


OUTSIDE = "keep that part outside the network"

TARGETS: Mapping[str, Target] = {
    "x86-vnni": Target("ONNX Runtime on x86 with VNNI", (_in_float,)),
    "x86-avx2": Target("ONNX Runtime on x86 with AVX2 and no VNNI", (_saturating, _in_float)),
    "arm": Target("ONNX Runtime on 64-bit ARM", (_in_float,)),
    "tflite": Target("LiteRT", (_by_tflite,)),
    "tflm": Target("TFLite Micro", (_refused_by_tflm,)),
    "cortex-m": Target("C on a Cortex-M", (_refused_by_c,), bare=True),
}
"""What `lint` knows, by name."""
