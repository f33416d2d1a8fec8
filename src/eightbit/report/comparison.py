"""What quantization changed: the float model and the int8 model side by side on the same data.

In: a `Model`, a `QuantizedModel` and data, with labels where there are any. Out: a frozen `Comparison` that prints,
plots, shows itself in a notebook and turns into JSON. Data are streamed, a few samples at a time: only counts and
sums of squares are kept.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from eightbit import plot
from eightbit.arith.noise import Noise, as_numbers, decibels
from eightbit.data.batch_axis import batch_of
from eightbit.data.feeds import Feeds
from eightbit.data.labelled import Labelled
from eightbit.deploy.sessions import CODE_TYPES, OnnxRuntime, optimized
from eightbit.errors import EngineError
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples
from eightbit.graph.save import file_bytes
from eightbit.model import Model, QuantizedModel, with_data
from eightbit.model import open as open_quantized
from eightbit.quant.observe.calibrate import Progress
from eightbit.report.answers import AnswerLog, Answers
from eightbit.report.confidence import (
    LEVEL,
    MARGIN,
    NonInferiority,
    PairedAccuracy,
    Share,
    no_worse,
    paired,
    share,
)
from eightbit.report.inspection import BORDERS, FloatNode, float_nodes
from eightbit.report.page import write_page
from eightbit.report.section import Section, answers_section, noise_section
from eightbit.report.table import Table
from eightbit.report.tensors import TensorError, TensorPairs, layer_errors
from eightbit.report.timing import Latency, interleaved
from eightbit.values.fields import check

LAYER_SAMPLES = 64
"""Samples from which the SQNR of single tensors is taken: enough for a tenth of a dB, and soon done."""
TOGETHER = 16
"""Samples that run side by side where no result can depend on it: ResNet-50 at 32x32 takes a third of the time."""
SHOWN = 10
INTEGER_KERNELS = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "QAttention", "DynamicQuantize")


@dataclass(frozen=True)
class NodeShare:
    """Of the nodes of ONNX Runtime's optimized graph, without Q and DQ: those on integers, and the others' names."""

    integer: int
    total: int
    in_float: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Comparison:
    """Everything `compare` found; None where the data or the outputs do not allow a figure.

    `answers` are the classes that both models name, and why they differ; `agreement` counts the samples to which both
    give the same. `no_worse` is the test of the two accuracies against a margin. `sizes` are the bytes of the float
    and the int8 file as `save` writes them.
    """

    samples: int
    outputs: tuple[TensorError, ...]
    layers: tuple[TensorError, ...]
    layer_samples: int
    answers: Answers | None
    agreement: Share | None
    accuracy: PairedAccuracy | None
    no_worse: NonInferiority | None
    sizes: tuple[int, int]
    nodes: NodeShare
    islands: tuple[FloatNode, ...]
    latency: Latency | None

    def __post_init__(self) -> None:
        check(self, EngineError)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists, dicts and numbers, for JSON; an SQNR without any error is None."""
        found = asdict(replace(self, answers=None))
        for row in (*found["outputs"], *found["layers"]):
            row["sqnr_db"] = row["sqnr_db"] if math.isfinite(row["sqnr_db"]) else None
            del row["by_sample"]
        if self.answers is not None:
            found["answers"] = {
                "flips": [asdict(flip) for flip in self.answers.flips()],
                "noise_rms": self.answers.noise_rms,
                "expected_flips": self.answers.expected_flips,
            }
        if self.agreement is not None:
            found["agreement"]["value"] = self.agreement.value
        if self.accuracy is not None:
            names = ("float_accuracy", "int8_accuracy", "delta", "p_value")
            found["accuracy"] |= {name: getattr(self.accuracy, name) for name in names}
        if self.no_worse is not None:
            found["no_worse"] |= {
                "verdict": self.no_worse.verdict.value,
                "images_needed": self.no_worse.images_needed,
            }
        if self.latency is not None:
            found["latency"]["ratio"] = self.latency.ratio
        return found

    def tables(self) -> tuple[Table, ...]:
        """The report as tables: the summary, the tensors that lost most, the nodes in float."""
        rows = tuple(self._summary())
        title = f"float and int8 on {self.samples:,} sample{'s' if self.samples != 1 else ''}"
        methods = "intervals: Wilson for the share, Agresti and Min for the paired accuracies"
        if self.no_worse is not None:
            methods += f"; test of the loss: Tango, one-sided at {(1 - LEVEL) / 2:.1%}"
        note = methods if self.agreement is not None else ""
        found = [Table(title, ("", "float>", "int8>", "change"), rows, note)]
        worst = sorted(self.layers, key=lambda t: t.sqnr_db)[:SHOWN]
        if worst:
            noisy = tuple((t.name, t.op, decibels(t.sqnr_db)) for t in worst)
            note = f"{len(worst)} of {len(self.layers)} tensors, on {self.layer_samples} samples; all are in .layers"
            found.append(Table("Tensors with the most noise", ("tensor", "from", "SQNR dB>"), noisy, note))
        if self.islands:
            islands = tuple((i.name, i.op, i.reason) for i in self.islands)
            found.append(Table("Left in float", ("node", "op", "reason"), islands))
        return tuple(found)

    def _summary(self) -> Iterator[tuple[str, str, str, str]]:
        small, large = self.sizes[1], self.sizes[0]
        for row in self.outputs:
            yield f"SQNR of {row.name}", "", f"{decibels(row.sqnr_db)} dB", ""
        if self.agreement is not None:
            a = self.agreement
            yield "same top-1 class", "", f"{a.value:.2%}", f"{LEVEL:.0%} interval [{a.lo:.2%}, {a.hi:.2%}]"
        if self.accuracy is not None:
            p = self.accuracy
            change = (
                f"{100 * p.delta:+.2f} points, {LEVEL:.0%} interval [{100 * p.lo:+.2f}, {100 * p.hi:+.2f}]"
            )
            yield "accuracy", f"{p.float_accuracy:.2%}", f"{p.int8_accuracy:.2%}", change
        if self.no_worse is not None:
            asked, said = str(self.no_worse).split(": ")
            yield asked, "", "", said
        yield "file, bytes", f"{large:,}", f"{small:,}", f"{small / large:.3f} of float"
        if self.latency is not None:
            t = self.latency
            change = f"{t.ratio:.2f} of float; medians of {t.rounds} rounds, batch {t.batch}"
            yield "latency, ms", f"{1e3 * t.float_seconds:.3f}", f"{1e3 * t.int8_seconds:.3f}", change
        n = self.nodes
        yield "nodes on integers", "", f"{n.integer} of {n.total}", "in ONNX Runtime's optimized graph"

    def __str__(self) -> str:
        return "\n\n".join(str(t) for t in self.tables())

    def _repr_html_(self) -> str:
        return "".join(t.html() for t in self.tables())

    def plot(self, ax: Any = None) -> Any:
        """Draw the SQNR of every tensor in the order of the graph; returns the Axes. Raises MissingExtra."""
        return plot.layer_sqnr(self, ax=ax)

    def html(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML page with every table and figure in it; `eightbit.explain` finds more to show.

        Raises ExportError, MissingExtra (`plot`).
        """
        return write_page(self.title, self.sections(), path)

    @property
    def title(self) -> str:
        """The title of the report's page."""
        return f"What int8 changed on {self.samples:,} samples"

    def sections(self) -> tuple[Section, ...]:
        """Everything that the page shows: the summary, noise, answers, details."""
        summary, *tables = self.tables()
        found = [Section("", (summary,))]
        if self.layers:
            found.append(noise_section(self, self.layers, self.layer_samples))
        if self.answers is not None:
            found.append(answers_section(self.answers, None))
        return (*found, self.details(tables))

    def details(self, tables: Iterable[Table]) -> Section:
        """The last section: `tables`, and one of every tensor."""
        rows = tuple((row.name, row.op, decibels(row.sqnr_db)) for row in self.layers)
        every = (Table("Every tensor", ("tensor", "from", "SQNR dB>"), rows),) if rows else ()
        return Section("Details", (*tables, *every))


def compare(
    model: Any,
    q: QuantizedModel | str | os.PathLike[str],
    data: Any,
    *,
    labels: Any = None,
    margin: float = MARGIN,
    latency: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Run both models on `data` and say what changed.

    `model` and `data` are what `quantize` takes, `q` an int8 model or its file. Labels come along as the key "labels"
    of a dict, as the last entry of a tuple (inputs..., labels), or in `labels`, one integer a sample. Agreement and
    accuracy are those of the first output if it has shape (N, classes). Accuracies are compared on the same images
    (`confidence.paired`), and it is tested whether int8 loses less than `margin`, a share (`confidence.no_worse`).
    `latency` also measures the time of one sample, in turns. Raises EngineError for data, labels or a margin that do
    not fit, LoadError for files.

    >>> import torch, eightbit as eb
    >>> net, data = torch.nn.Linear(8, 4), torch.randn(64, 8)
    >>> found = compare(net, eb.quantize(net, data), data)
    >>> found.samples, found.outputs[0].sqnr_db > 30, found.islands
    (64, True, ())
    """
    if not 0 < margin < 1:
        raise EngineError(
            f"margin={margin} is no loss of accuracy; give a share, such as 0.005 for half a point"
        )
    float_model, data = with_data(model, data)
    int8_model = int8_form(float_model, q)
    stream = Labelled(data, labels, float_model.inputs)
    whole = _Outputs(
        FloatSession(float_model.ir, threads=threads), OnnxRuntime(int8_model.ir, threads=threads)
    )
    found = samples(float_model.ir, stream, EngineError)
    head: list[Feeds] = []
    for batch in found.side_by_side(TOGETHER if _rowwise(float_model, int8_model) else 1):
        head.extend(islice(found.singly(batch), LAYER_SAMPLES - len(head)))
        whole.update(batch, found.count(batch))
        if progress is not None:
            progress("compare", whole.count)
    answers = whole.answers(stream)
    accuracy = _accuracy(answers)
    runtime_graph = optimized(int8_model.ir)
    nodes = node_share(int8_model.ir, runtime_graph)
    pairs = TensorPairs(float_model.ir, int8_model.ir, runtime_graph=runtime_graph, threads=threads)
    layers = layer_errors(pairs, ticking(head, "layers", progress))
    return Comparison(
        samples=whole.count,
        outputs=tuple(whole.errors(float_model.ir)),
        layers=layers,
        layer_samples=len(head) if layers else 0,
        answers=answers,
        agreement=None if answers is None else share(int((~answers.flipped).sum()), len(answers)),
        accuracy=accuracy,
        no_worse=None if accuracy is None else no_worse(accuracy, margin),
        sizes=(len(file_bytes(float_model.ir)), len(file_bytes(int8_model.ir))),
        nodes=nodes,
        islands=float_nodes(int8_model),
        latency=measure(float_model, int8_model, head[0], threads=threads) if latency else None,
    )


def _rowwise(*models: Model | QuantizedModel) -> bool:
    """Whether samples may run side by side: each output has a free first axis, and no range is taken from the batch."""
    for model in models:
        if any(node.op_type == "DynamicQuantizeLinear" for node in model.ir.graph):
            return False
        shapes = [value.shape for value in model.ir.graph.outputs]
        if any(shape is None or not len(shape) or isinstance(shape[0], int) for shape in shapes):
            return False
    return True


def int8_form(model: Model, q: QuantizedModel | str | os.PathLike[str]) -> QuantizedModel:
    """`q`, opened if it is a file. Raises EngineError if it takes other inputs than `model`."""
    int8_model = q if isinstance(q, QuantizedModel) else open_quantized(q)
    if model.inputs != int8_model.inputs:
        mine, other = ("; ".join(map(str, m.inputs)) for m in (model, int8_model))
        raise EngineError(
            f"the models take different inputs, float ({mine}) and int8 ({other}); compare a model with its own "
            "quantized form"
        )
    return int8_model


def ticking(data: Iterable[Feeds], stage: str, progress: Progress | None) -> Iterator[Feeds]:
    """Yields `data` and tells `progress` after each that it is done."""
    for count, sample in enumerate(data, start=1):
        yield sample
        if progress is not None:
            progress(stage, count)


def measure(
    model: Model,
    q: QuantizedModel,
    feeds: Feeds,
    *,
    threads: int | None = None,
    rounds: int = 200,
    seconds: float = 5.0,
    progress: Progress | None = None,
) -> Latency:
    """Median time of one inference of each model on `feeds`, in ONNX Runtime, taking turns."""
    first = FloatSession(model.ir, threads=threads)
    second = OnnxRuntime(q.ir, threads=threads)
    medians, done = interleaved(
        [lambda: first.run(feeds), lambda: second.run(feeds)],
        rounds=rounds,
        seconds=seconds,
        tick=None if progress is None else lambda n: progress("bench", n),
    )
    return Latency(medians[0], medians[1], done, batch_of(model.inputs, feeds), threads)


def node_share(qdq: ir.Model, runtime_graph: onnx.ModelProto | None = None) -> NodeShare:
    """How much of a QDQ graph ONNX Runtime runs on integers, counted in `runtime_graph` (default: `optimized(qdq)`)."""
    proto = optimized(qdq) if runtime_graph is None else runtime_graph
    infos = (*onnx.shape_inference.infer_shapes(proto).graph.value_info, *proto.graph.value_info)
    codes = {info.name for info in infos if info.type.tensor_type.elem_type in CODE_TYPES}
    nodes = [node for node in proto.graph.node if node.op_type not in BORDERS]
    in_float = [n for n in nodes if not n.op_type.startswith(INTEGER_KERNELS) and n.output[0] not in codes]
    return NodeShare(len(nodes) - len(in_float), len(nodes), tuple((n.name, n.op_type) for n in in_float))


class _Outputs:
    """Both models' outputs as they come: noise, and the classes they name first."""

    def __init__(self, float_session: FloatSession, int8_session: OnnxRuntime) -> None:
        self.sessions = float_session, int8_session
        self.noise: list[Noise] = []
        self.log = AnswerLog()
        self.count = 0

    def update(self, batch: Feeds, samples: int) -> None:
        # By place and not by name: a file may have been renamed on its way, its outputs' order is its interface.
        results = zip(*(s.run(batch).values() for s in self.sessions), strict=True)
        pairs = [as_numbers(*pair) for pair in results]
        self.noise = self.noise or [Noise() for _ in pairs]
        for number, (noise, (reference, actual)) in enumerate(zip(self.noise, pairs, strict=True)):
            if reference.shape != actual.shape:
                raise EngineError(
                    f"the models' outputs have shapes {reference.shape} and {actual.shape}; compare a model with "
                    "its own quantized form"
                )
            try:
                noise.update(reference, actual)
            except EngineError as cause:
                raise EngineError(f"output {number}, sample {self.count}: {cause}") from cause
        reference, actual = pairs[0]
        if reference.ndim == 2 and reference.shape[1] > 1:
            self.log.update(reference, actual)
        self.count += samples

    def errors(self, model: ir.Model) -> Iterator[TensorError]:
        for value, noise in zip(model.graph.outputs, self.noise, strict=True):
            producer = value.producer()
            yield TensorError(str(value.name), producer.op_type if producer else "input", noise.sqnr_db)

    def answers(self, data: Labelled) -> Answers | None:
        """The classes that both named, beside the labels of `data`; None for outputs that name none."""
        if not self.log:
            if data.apart is not None:
                raise EngineError(
                    "labels were given, but the first output has no shape (N, classes) to name one by"
                )
            return None
        return self.log.answers(data.labels(self.count, self.log.classes))


def _accuracy(answers: Answers | None) -> PairedAccuracy | None:
    if answers is None or answers.labels is None:
        return None
    a, b = answers.float_class == answers.labels, answers.int8_class == answers.labels
    return paired(total=len(a), float_right=int(a.sum()), lost=int((a & ~b).sum()), won=int((b & ~a).sum()))
