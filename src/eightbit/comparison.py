"""What quantization changed: the float model and the int8 model side by side on the same data.

In: a `Model`, a `QuantizedModel` and data, with labels where there are any. Out: a frozen `Comparison` that prints,
plots, shows itself in a notebook and turns into JSON. Data are streamed one sample at a time: only counts and sums
of squares are kept.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from eightbit.confidence import LEVEL, PairedAccuracy, Share, paired, share
from eightbit.errors import EngineError
from eightbit.graph.equalize import recorded_scales
from eightbit.graph.feeds import LABELS, Feeds, TensorSpec, samples
from eightbit.graph.model import constant
from eightbit.graph.run import FloatSession
from eightbit.graph.save import file_bytes
from eightbit.inspection import BORDERS, FloatNode, float_nodes
from eightbit.model import Model, QuantizedModel, load
from eightbit.model import open as open_quantized
from eightbit.quant.calibrate import Progress
from eightbit.tables import Table, decibels
from eightbit.target.sessions import CODE_TYPES, IntegerTensors, OnnxRuntime, optimized
from eightbit.timing import Latency, interleaved

LAYER_SAMPLES = 64
"""Samples from which the SQNR of single tensors is taken: enough for a tenth of a dB, and soon done."""
SHOWN = 10
INTEGER_KERNELS = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "QAttention", "DynamicQuantize")


@dataclass(frozen=True)
class TensorError:
    """Signal to quantization noise of one tensor, all error since the input included; `op` computes the tensor."""

    name: str
    op: str
    sqnr_db: float


@dataclass(frozen=True)
class NodeShare:
    """Of the nodes of ONNX Runtime's optimized graph, without Q and DQ: those on integers, and the others' names."""

    integer: int
    total: int
    in_float: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Comparison:
    """Everything `compare` found; None where the data or the outputs do not allow a figure.

    `agreement` counts the samples to which both models give the same first class; `sizes` are the bytes of the
    float and the int8 file as `save` writes them.
    """

    samples: int
    outputs: tuple[TensorError, ...]
    layers: tuple[TensorError, ...]
    layer_samples: int
    agreement: Share | None
    accuracy: PairedAccuracy | None
    sizes: tuple[int, int]
    nodes: NodeShare
    islands: tuple[FloatNode, ...]
    latency: Latency | None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists, dicts and numbers, for JSON; an SQNR without any error is None."""
        found = asdict(self)
        for row in (*found["outputs"], *found["layers"]):
            row["sqnr_db"] = row["sqnr_db"] if math.isfinite(row["sqnr_db"]) else None
        if self.agreement is not None:
            found["agreement"]["value"] = self.agreement.value
        if self.accuracy is not None:
            names = ("float_accuracy", "int8_accuracy", "delta", "p_value")
            found["accuracy"] |= {name: getattr(self.accuracy, name) for name in names}
        if self.latency is not None:
            found["latency"]["ratio"] = self.latency.ratio
        return found

    def tables(self) -> tuple[Table, ...]:
        """The report as tables: the summary, the tensors that lost most, the nodes in float."""
        rows = tuple(self._summary())
        title = f"float and int8 on {self.samples:,} sample{'s' if self.samples != 1 else ''}"
        methods = "intervals: Wilson for the share, Agresti and Min for the paired accuracies"
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
        from eightbit.plot import layer_sqnr

        return layer_sqnr(self, ax=ax)


def compare(
    model: Any,
    q: QuantizedModel | str | os.PathLike[str],
    data: Any,
    *,
    labels: Any = None,
    latency: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Run both models on `data` and say what changed.

    `data` is what `quantize` takes; labels come along as the key "labels" of a dict, as the last entry of a tuple
    (inputs..., labels), or in `labels`, one integer a sample. Agreement and accuracy are those of the first output if
    it has shape (N, classes). `latency` also measures the time of one sample, in turns. Accuracies are compared on
    the same images (`confidence.paired`). Raises EngineError for data that do not fit, LoadError for files.
    """
    float_model = model if isinstance(model, Model) else load(model)
    int8_model = q if isinstance(q, QuantizedModel) else open_quantized(q)
    wanted = _common_inputs(float_model, int8_model)
    stream = _Labelled(data, labels, wanted)
    head: list[Feeds] = []
    whole = _Outputs(
        FloatSession(float_model.ir, threads=threads), OnnxRuntime(int8_model.ir, threads=threads)
    )
    for sample in samples(stream, wanted, EngineError):
        whole.update(sample)
        if len(head) < LAYER_SAMPLES:
            head.append(sample)
        if progress is not None:
            progress("compare", whole.count)
    agreement, accuracy = whole.counts(stream.labels())
    layers, used = _layers(float_model.ir, int8_model.ir, head, progress)
    speed = measure(float_model, int8_model, head[0], threads=threads) if latency else None
    return Comparison(
        samples=whole.count,
        outputs=tuple(whole.errors(float_model.ir)),
        layers=layers,
        layer_samples=used,
        agreement=agreement,
        accuracy=accuracy,
        sizes=(len(file_bytes(float_model.ir)), len(file_bytes(int8_model.ir))),
        nodes=node_share(int8_model.ir),
        islands=float_nodes(int8_model),
        latency=speed,
    )


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
    batch = next((a.shape[0] for a in feeds.values() if a.ndim), 1)
    return Latency(medians[0], medians[1], done, batch, threads)


def node_share(qdq: ir.Model) -> NodeShare:
    """How much of a QDQ graph ONNX Runtime runs on integers, counted in the graph it makes of it."""
    proto = optimized(qdq)
    infos = (*onnx.shape_inference.infer_shapes(proto).graph.value_info, *proto.graph.value_info)
    codes = {info.name for info in infos if info.type.tensor_type.elem_type in CODE_TYPES}
    nodes = [node for node in proto.graph.node if node.op_type not in BORDERS]
    in_float = [n for n in nodes if not n.op_type.startswith(INTEGER_KERNELS) and n.output[0] not in codes]
    return NodeShare(len(nodes) - len(in_float), len(nodes), tuple((n.name, n.op_type) for n in in_float))


class _Noise:
    """Sums of squares of a signal and of its error, over any number of arrays."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def update(self, reference: np.ndarray, actual: np.ndarray) -> None:
        exact = reference.astype(np.float64).ravel()
        error = exact - actual.ravel()
        self.signal += float(exact @ exact)
        self.noise += float(error @ error)

    @property
    def sqnr_db(self) -> float:
        """10 log10(signal / noise): inf without noise, -inf for noise on a silent tensor."""
        if self.noise == 0.0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


class _Outputs:
    """Both models' outputs sample by sample: noise, and the classes they name first."""

    def __init__(self, float_session: FloatSession, int8_session: OnnxRuntime) -> None:
        self.sessions = float_session, int8_session
        self.noise: list[_Noise] = []
        self.classes: list[tuple[np.ndarray, np.ndarray]] = []
        self.count = 0

    def update(self, sample: Feeds) -> None:
        # By place and not by name: a file may have been renamed on its way, its outputs' order is its interface.
        pairs = list(zip(*(tuple(s.run(sample).values()) for s in self.sessions), strict=True))
        self.noise = self.noise or [_Noise() for _ in pairs]
        for noise, (reference, actual) in zip(self.noise, pairs, strict=True):
            if reference.shape != actual.shape:
                raise EngineError(
                    f"the models' outputs have shapes {reference.shape} and {actual.shape}; compare a model with "
                    "its own quantized form"
                )
            noise.update(reference, actual)
        reference, actual = pairs[0]
        if reference.ndim == 2 and reference.shape[1] > 1:
            self.classes.append((reference.argmax(axis=1), actual.argmax(axis=1)))
        self.count += len(reference) if reference.ndim else 1

    def errors(self, model: ir.Model) -> Iterator[TensorError]:
        for value, noise in zip(model.graph.outputs, self.noise, strict=True):
            producer = value.producer()
            yield TensorError(str(value.name), producer.op_type if producer else "input", noise.sqnr_db)

    def counts(self, labels: np.ndarray | None) -> tuple[Share | None, PairedAccuracy | None]:
        if not self.classes:
            if labels is not None:
                raise EngineError(
                    "labels were given, but the first output has no shape (N, classes) to name one by"
                )
            return None, None
        first, second = (np.concatenate([pair[i] for pair in self.classes]) for i in (0, 1))
        agreement = share(int((first == second).sum()), len(first))
        if labels is None:
            return agreement, None
        if labels.shape != first.shape:
            raise EngineError(f"{len(labels)} labels were given for {len(first)} samples; give one a sample")
        a, b = first == labels, second == labels
        return agreement, paired(
            total=len(a), float_right=int(a.sum()), lost=int((a & ~b).sum()), won=int((b & ~a).sum())
        )


class _Labelled:
    """Iterates over data as they were given, and keeps the labels that pass by."""

    def __init__(self, data: Any, labels: Any, specs: tuple[TensorSpec, ...]) -> None:
        self.data = [data] if _is_one_batch(data, specs) else data
        self.given, self.specs = labels, specs
        self.seen: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        if not isinstance(self.data, Iterable) or isinstance(self.data, str | bytes):
            raise EngineError(
                f"data of type {type(self.data).__name__} cannot be used; give an array, a dict of arrays, or an "
                "iterable of batches"
            )
        for batch in self.data:
            self.seen.append(_labels_of(batch, self.specs))
            yield batch

    def labels(self) -> np.ndarray | None:
        """All labels (N,), or None if there are none. Raises EngineError for labels that are no integers."""
        found = [self.given] if self.given is not None else [x for x in self.seen if x is not None]
        if not found:
            return None
        if self.given is None and len(found) != len(self.seen):
            raise EngineError(
                f"{len(found)} of {len(self.seen)} batches carry labels; give them with all or with none"
            )
        arrays = [np.asarray(x.detach().cpu() if hasattr(x, "detach") else x) for x in found]
        labels = np.concatenate([a.reshape(1) if a.ndim == 0 else a for a in arrays])
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels  # Keras keeps a column
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise EngineError(
                f"labels have shape {labels.shape} and dtype {labels.dtype}; give one integer class a sample"
            )
        return labels


def _is_one_batch(data: Any, specs: tuple[TensorSpec, ...]) -> bool:
    if isinstance(data, Mapping) or (hasattr(data, "shape") and hasattr(data, "dtype")):
        return True
    # (x, labels): the second is no input of the model, so this is one batch and not two.
    return (
        isinstance(data, tuple)
        and len(data) == len(specs) + 1
        and all(hasattr(x, "shape") for x in data)
        and len(data[-1].shape) == 1
        and len(specs[0].shape) != 1
    )


def _labels_of(batch: Any, specs: tuple[TensorSpec, ...]) -> Any:
    if isinstance(batch, Mapping):
        return None if any(s.name == LABELS for s in specs) else batch.get(LABELS)
    if isinstance(batch, tuple | list) and batch:
        nested = isinstance(batch[0], Mapping | tuple | list)  # ((a, b), labels)
        inputs = 1 if nested else len(specs)
        return batch[inputs] if len(batch) > inputs else None
    return None


def _common_inputs(model: Model, q: QuantizedModel) -> tuple[TensorSpec, ...]:
    if model.inputs != q.inputs:
        mine, other = ("; ".join(map(str, m.inputs)) for m in (model, q))
        raise EngineError(
            f"the models take different inputs, float ({mine}) and int8 ({other}); compare a model with its own "
            "quantized form"
        )
    return model.inputs


def _layers(
    model: ir.Model, qdq: ir.Model, head: list[Feeds], progress: Progress | None
) -> tuple[tuple[TensorError, ...], int]:
    """Noise of each tensor of codes that ONNX Runtime computes, against the float tensor of the same name."""
    values = {str(v.name): v for v in chain(model.graph.inputs, *(node.outputs for node in model.graph))}
    grids = {
        str(node.outputs[0].name): grid
        for node in qdq.graph
        if node.op_type == "QuantizeLinear" and (grid := _grid(node)) is not None
    }
    names = {code: code.removesuffix("_q") for code in grids if code.removesuffix("_q") in values}
    if not names:
        return (), 0
    reference, integers = FloatSession(model, list(names.values())), IntegerTensors(qdq)
    noise = {code: _Noise() for code in names}
    equalized = recorded_scales(qdq)
    for count, sample in enumerate(head, start=1):
        exact = reference.run(sample)
        for code, array in integers.run(sample).items():
            if code in names:
                scale, zero_point = grids[code]
                reference_array = exact[names[code]]
                if names[code] in equalized:
                    s = equalized[names[code]]
                    reference_array = reference_array * s.reshape(-1, *[1] * (reference_array.ndim - 2))
                noise[code].update(reference_array, scale * (array.astype(np.float32) - zero_point))
        if progress is not None:
            progress("layers", count)
    found = []
    for code, name in names.items():
        producer = values[name].producer()
        if noise[code].signal or noise[code].noise:  # a tensor that the optimizer dropped stays silent
            found.append(TensorError(name, producer.op_type if producer else "input", noise[code].sqnr_db))
    return tuple(found), len(head)


def _grid(node: ir.Node) -> tuple[np.float32, np.float32] | None:
    """Scale and zero point of a Q node for canonical int8 codes, or None if they are not one constant each."""
    scale = constant(node.inputs[1])
    zero_point = constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
    if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
        return None
    shift = 128 if zero_point.dtype == np.uint8 else 0
    return np.float32(scale.item()), np.float32(int(zero_point.item()) - shift)
