"""MiniLM in int8 over the docstrings of Python's standard library, beside ONNX Runtime's own dynamic quantization.

    python -m benchmarks.run transformer

64 docstrings calibrate, 400 others are embedded by each network. The cosine is that of a docstring's two embeddings,
float and int8; the overlap is the share of its ten nearest neighbours among the 400 that both networks name. Times are
of 16 sequences of 64 tokens on two threads, all networks taking turns; only ratios are promised.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import eightbit as eb
from benchmarks.figure import Figure
from eightbit.course import zoo
from eightbit.course.datasets import docstring_split
from eightbit.deploy.sessions import integer_tensors, run_island
from eightbit.graph.run import session
from eightbit.integer.engine import run
from eightbit.report.timing import interleaved

MODEL = "minilm"
CALIBRATION, TESTED, COMPARED, BATCH = 64, 400, 8, 16
NEIGHBOURS = 10
THREADS, BURST = 2, 5
PER_TOKEN = "dynamic, per token"
OURS = {
    "static": eb.Recipe(),
    "dynamic": eb.Recipe(activations=eb.Activations(dynamic=True)),
    PER_TOKEN: eb.Recipe(activations=eb.Activations(granularity=eb.PerToken(), dynamic=True)),
}
PEER = "ONNX Runtime's own, dynamic"
MIN_COSINE = {"static": 0.995, "dynamic": 0.995, PER_TOKEN: 0.998}
MIN_OVERLAP, MAX_SIZE, MAX_TIME = 95, 0.27, 0.42

Tokens = dict[str, NDArray[np.int64]]
Embeddings = NDArray[np.float32]
Network = Callable[[Tokens], Embeddings]


@dataclass(frozen=True)
class Row:
    """What one quantizer kept of the network; ratios are to the float network."""

    name: str
    cosine: float
    overlap: float
    size: float
    time: float
    detail: str


def figures() -> Iterator[Figure]:
    """What the project promises; the table of all rows is printed on the way."""
    passages = docstring_split(CALIBRATION, TESTED)
    calibration = [tokens([entry.passage]) for entry in passages.calibration]
    texts = [entry.passage for entry in passages.test]
    model = eb.load(zoo.load(MODEL), zoo.example(MODEL))
    quantized = {kind: eb.quantize(model, calibration, recipe) for kind, recipe in OURS.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"float": model.save(folder / "float.onnx")}
        files |= {kind: q.save(folder / f"{kind}.onnx") for kind, q in quantized.items()}
        files[PEER] = by_onnx_runtime(files["float"])
        sizes = {kind: file.stat().st_size for kind, file in files.items()}
        networks = {kind: in_onnx_runtime(file) for kind, file in files.items()}
    exact = embeddings(networks["float"], texts)
    seconds, rounds = times(networks)
    rows = {kind: row(kind, exact, embeddings(networks[kind], texts), (sizes, seconds)) for kind in networks}
    print_table(rows)
    yield from promises(rows, rounds)
    for kind, q in quantized.items():
        yield differences(kind, q, texts[:COMPARED])


def promises(rows: dict[str, Row], rounds: int) -> Iterator[Figure]:
    """The figures of the static network, and the cosines of the dynamic ones, each from a row of the table."""
    static, dynamic, token, peer = (rows[kind] for kind in (*OURS, PEER))
    for r in (static, dynamic, token):
        detail = f"{TESTED} docstrings; {peer.name}: {peer.cosine:.4f}"
        name = f"{MODEL}, {r.name}: mean cosine to float"
        yield Figure(name, r.cosine, MIN_COSINE[r.name], "", detail, at_least=True)
    detail = f"{TESTED} docstrings; dynamic {dynamic.overlap:.1f}, {peer.name}: {peer.overlap:.1f}"
    name = f"{MODEL}, static: same among {NEIGHBOURS} nearest"
    yield Figure(name, static.overlap, MIN_OVERLAP, "%", detail, at_least=True)
    yield Figure(
        f"{MODEL}, static: size, int8 / float", static.size, MAX_SIZE, "x", f"{peer.name}: {peer.size:.3f}"
    )
    others = ", ".join(f"{r.name} {r.time:.2f}" for r in (dynamic, token, peer))
    detail = f"{static.detail}, {rounds} rounds; {others}"
    yield Figure(f"{MODEL}, static: ONNX Runtime, int8 / float", static.time, MAX_TIME, "x", detail)


def tokens(texts: list[str]) -> Tokens:
    """One batch, padded to its longest text."""
    batch: Tokens = zoo.preprocess_for(MODEL, texts)
    return batch


def by_onnx_runtime(model: Path) -> Path:
    """quantize_dynamic with int8 weights and a scale for each output channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = model.with_name("onnxruntime.onnx")
    quantize_dynamic(model, target, per_channel=True, weight_type=QuantType.QInt8)
    return target


def in_onnx_runtime(model: Path) -> Network:
    """The network in a file, on two threads that rest between runs."""
    runner = session(model.read_bytes(), threads=THREADS)
    return lambda batch: np.asarray(runner.run(None, dict(batch))[0])


def embeddings(network: Network, texts: list[str]) -> Embeddings:
    """The embeddings (N, 384) of all texts, in batches."""
    batches = (tokens(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH))
    return np.concatenate([network(batch) for batch in batches])


def times(networks: dict[str, Network]) -> tuple[dict[str, float], int]:
    """Median seconds of each network for 16 sequences of 64 tokens, and the number of rounds."""
    batch = {name: np.asarray(tensor) for name, tensor in zoo.example(MODEL, BATCH).items()}
    calls = [partial(network, batch) for network in networks.values()]
    seconds, rounds = interleaved(calls, rounds=30, seconds=40, burst=BURST)
    return dict(zip(networks, seconds, strict=True)), rounds


def row(
    kind: str, exact: Embeddings, found: Embeddings, measured: tuple[dict[str, int], dict[str, float]]
) -> Row:
    """A network's line of the table."""
    sizes, seconds = measured
    same = [len(set(a) & set(b)) / NEIGHBOURS for a, b in zip(nearest(exact), nearest(found), strict=True)]
    detail = f"{1e3 * seconds[kind]:.1f} / {1e3 * seconds['float']:.1f} ms"
    return Row(
        kind,
        float((exact * found).sum(1).mean()),
        100 * float(np.mean(same)),
        sizes[kind] / sizes["float"],
        seconds[kind] / seconds["float"],
        detail,
    )


def nearest(e: Embeddings) -> NDArray[np.intp]:
    """The ten nearest neighbours (N, 10) of each embedding, itself left out."""
    likeness = e @ e.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=1)[:, :NEIGHBOURS]


def differences(kind: str, q: eb.QuantizedModel, texts: list[str]) -> Figure:
    """How many numbers differ between the NumPy engine and ONNX Runtime: codes, or the floats of a dynamic network."""
    wrong = counted = 0
    for text in texts:
        feeds = tokens([text])
        found = run(q.program, feeds, island=run_island, keep=True)
        codes = {} if kind == "dynamic" else integer_tensors(q.ir, feeds)
        outputs = dict(zip(q.program.outputs, [np.asarray(q(feeds))], strict=True))
        for name, expected in {**codes, **outputs}.items():
            wrong += int((found[name] != expected).sum())
            counted += expected.size
    detail = f"of {counted:,}, {len(texts)} docstrings"
    return Figure(f"{MODEL}, {kind}: numbers that differ in NumPy", wrong, 0, "", detail)


def print_table(rows: dict[str, Row]) -> None:
    """The rows under one another."""
    table = Table("network", "mean cosine", f"same of {NEIGHBOURS} nearest", "size", "time", "", title=MODEL)
    for r in rows.values():
        table.add_row(
            r.name, f"{r.cosine:.4f}", f"{r.overlap:.1f}%", f"{r.size:.3f}", f"{r.time:.2f}", r.detail
        )
    Console().print(table)
