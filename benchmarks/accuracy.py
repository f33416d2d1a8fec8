"""Accuracy of the int8 EfficientNet-Lite0 against the float network, beside the other quantizers, in one table.

    python -m benchmarks.run accuracy                      # the table, then the promises
    python -m benchmarks.accuracy --row NAME FOLDER        # what each child process runs: prints its row as JSON

72 calibration crops, 200 test crops of other photographs. SQNR is that of the logits, agreement the share of the test
crops to which both networks give the same first class. Each row is a process of its own, which tells its time (on the
clock and of the processor) and its peak memory: libraries, model, quantization; the test comes later. Peers run with
their defaults on the same crops. The table is stored in peers.json, which the book's front page shows. The same recipes
run in the NumPy engine on 20 of the crops, every integer compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import eightbit as eb
from benchmarks.figure import Figure, machine
from benchmarks.quantizers import Images, Network, Quantizer, Samples, by_nncf, by_onnx_runtime, by_recipe
from benchmarks.usage import peak_bytes, processor_seconds
from eightbit.arith.affine import sqnr_db
from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from eightbit.course.pictures import imagenet_crops
from eightbit.deploy.sessions import integer_tensors, run_island
from eightbit.integer.engine import run
from eightbit.quant.methods.rounding import Nearest

STORED = Path(__file__).with_name("peers.json")
MODEL = "efficientnet_lite0"
CROPS, TESTED, MANY, COMPARED = 72, 200, 512, 20
BATCH = 20
PEER_MISSING = "not installed: pip install 'eightbit[bench]'"

W8A8 = {"plain": eb.Recipe.plain(), "default": eb.Recipe()}
WEIGHTS_ONLY = {
    "weights only, 8 bits": eb.Recipe(activations=eb.FLOAT),
    "weights only, 4 bits, nearest": eb.Recipe(
        eb.Weights(bits=4, rounding=Nearest()), eb.FLOAT, bias_correction=False
    ),
    "weights only, 4 bits": eb.Recipe(eb.Weights(bits=4), eb.FLOAT),
}
PEERS: dict[str, Quantizer] = {
    "ONNX Runtime, per tensor, min-max": by_onnx_runtime("MinMax", per_channel=False),
    "ONNX Runtime, per channel, min-max": by_onnx_runtime("MinMax"),
    "ONNX Runtime, per channel, percentile": by_onnx_runtime("Percentile"),
    "NNCF": by_nncf,
}
LARGE = f"default, {MANY} crops"
ROWS = {
    **PEERS,
    **{name: by_recipe(recipe) for name, recipe in (W8A8 | WEIGHTS_ONLY).items()},
    LARGE: by_recipe(eb.Recipe()),
}


@dataclass(frozen=True)
class Row:
    """What one quantizer made of the network, and what it took. `missing` instead, if it is not installed."""

    name: str
    sqnr_db: float = np.nan
    agreement: float = np.nan
    seconds: float = np.nan
    processor_seconds: float = np.nan
    peak_bytes: int = 0
    missing: str = ""


def figures() -> Iterator[Figure]:
    """What the project promises; the whole table is printed on the way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        rows = table(folder)
        yield from promises(rows)
        model, test = eb.load(folder / "model.onnx"), np.load(folder / "test.npy", mmap_mode="r")[:COMPARED]
        for kind, recipe in W8A8.items():
            q = eb.quantize(model, Samples(folder / "calibration.npy", CROPS), recipe)
            yield differences(f"{MODEL}, {kind}", q, test)
    yield from resnet8_with_four_bits()


def table(folder: Path) -> dict[str, Row]:
    """All rows, measured, printed and stored."""
    rows = {name: in_child(name, folder) for name in ROWS}
    print_table(MODEL, rows.values())
    stored = {"machine": machine(), "tested": TESTED, "rows": [asdict(row) for row in rows.values()]}
    STORED.write_text(json.dumps(stored, indent=1) + "\n")
    return rows


def promises(rows: dict[str, Row]) -> Iterator[Figure]:
    """The figures of EfficientNet-Lite0, each from a row of the table."""
    default = rows["default"]
    best = max((rows[name] for name in PEERS if not rows[name].missing), key=lambda row: row.sqnr_db)
    detail = f"best peer: {best.name}, {best.sqnr_db:.1f} dB, {best.agreement:.1%}"
    yield Figure(f"{MODEL}: SQNR of the logits", default.sqnr_db, 24, "dB", detail, at_least=True)
    share = 100 * default.agreement
    yield Figure(f"{MODEL}: same first class", share, 96, "%", detail, at_least=True)
    detail = f"{CROPS} crops, {default.processor_seconds:.0f} s of the processor"
    yield Figure(f"{MODEL}: time to quantize", default.seconds, 60, "s", detail)
    for row, crops in ((default, CROPS), (rows[LARGE], MANY)):
        detail = f"{crops} crops, whole process"
        yield Figure(f"{MODEL}: peak memory", row.peak_bytes / 1e6, 1500, "MB", detail)
    eight, near, four = (rows[name].sqnr_db for name in WEIGHTS_ONLY)
    yield Figure(f"{MODEL}: weights only, 8 bits", eight, 29, "dB", "GPTQ, bias correction", at_least=True)
    detail = f"{four:.1f} dB against {near:.1f}"
    yield Figure(f"{MODEL}: 4 bits, over nearest", four - near, 10, "dB", detail, at_least=True)


def differences(name: str, q: eb.QuantizedModel, x: Images) -> Figure:
    """How many integers of all tensors differ between the NumPy engine and ONNX Runtime, sample by sample."""
    wrong = counted = 0
    for i in range(len(x)):
        feeds = {q.inputs[0].name: np.array(x[i : i + 1])}
        found = run(q.program, feeds, island=run_island, keep=True)
        for tensor, codes in integer_tensors(q.ir, feeds).items():
            wrong += int((found[tensor] != codes).sum())
            counted += codes.size
    return Figure(f"{name}: integers that differ in NumPy", wrong, 0, "", f"of {counted:,}, {len(x)} samples")


def resnet8_with_four_bits() -> Iterator[Figure]:
    """Points that ResNet-8 loses with weights of four bits and activations of eight, on 10,000 images."""
    data, name = fashion_mnist(), "resnet8"
    model = eb.load(zoo.load(name), zoo.example(name))
    q = eb.quantize(model, zoo.preprocess_for(name, data.train.images[:500]), eb.Recipe(eb.Weights(bits=4)))
    x = zoo.preprocess_for(name, data.test.images)
    exact, found = (
        100
        * float((in_batches(lambda x, m=m: np.asarray(m(x)), x, 500).argmax(1) == data.test.labels).mean())
        for m in (model, q)
    )
    detail = f"{found:.2f} % against {exact:.2f} %, {len(x):,} images"
    yield Figure(f"{name}: points lost, 4-bit weights", exact - found, 1, "", detail)
    yield differences(f"{name}, 4-bit weights", q, x[:COMPARED])


def prepare(folder: Path) -> None:
    """Model, crops and the float network's answers as files, so that torch weighs on no row."""
    model = eb.load(zoo.load(MODEL), zoo.example(MODEL))
    model.save(folder / "model.onnx")
    crops = imagenet_crops(MANY, TESTED)
    np.save(folder / "calibration.npy", zoo.preprocess_for(MODEL, crops.calibration))
    test = zoo.preprocess_for(MODEL, crops.test)
    np.save(folder / "test.npy", test)
    np.save(folder / "exact.npy", in_batches(lambda x: np.asarray(model(x), np.float32), test))


def in_child(name: str, folder: Path) -> Row:
    """A row, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.accuracy", "--row", name, str(folder)]
    child = subprocess.run(command, capture_output=True, text=True)
    if child.returncode:
        raise RuntimeError(f"row {name!r} failed:\n{child.stderr[-2000:]}")
    return Row(**json.loads(child.stdout.splitlines()[-1]))


def measured(name: str, folder: Path) -> Row:
    """A row, measured in this process."""
    calibration = Samples(folder / "calibration.npy", MANY if name == LARGE else CROPS)
    start, used = time.perf_counter(), processor_seconds()
    try:
        network = ROWS[name](folder / "model.onnx", calibration)
    except ImportError as cause:
        return Row(name, missing=f"{cause.name} is {PEER_MISSING}")
    seconds, used, peak = time.perf_counter() - start, processor_seconds() - used, peak_bytes()
    test, exact = np.load(folder / "test.npy", mmap_mode="r"), np.load(folder / "exact.npy")
    found = in_batches(network, test)
    agreement = float((found.argmax(1) == exact.argmax(1)).mean())
    return Row(name, sqnr_db(exact, found), agreement, seconds, used, peak)


def in_batches(network: Network, x: Images, size: int = BATCH) -> Images:
    """All outputs of a network, some images at a time."""
    return np.concatenate([network(np.asarray(x[i : i + size])) for i in range(0, len(x), size)])


def print_table(title: str, rows: Iterable[Row]) -> None:
    """The rows of a network under one another."""
    table = Table("quantizer", "SQNR", "agreement", "time", "processor", "peak memory", title=title)
    table.add_row("float", "", "100.0%")
    for r in rows:
        numbers = (
            f"{r.sqnr_db:.1f} dB",
            f"{r.agreement:.2%}",
            f"{r.seconds:.1f} s",
            f"{r.processor_seconds:.1f} s",
            f"{r.peak_bytes / 1e6:,.0f} MB",
        )
        table.add_row(r.name, *((r.missing,) if r.missing else numbers))
    Console().print(table)


if __name__ == "__main__":
    print(json.dumps(asdict(measured(sys.argv[-2], Path(sys.argv[-1])))))
