"""The server of `examples/serving` under load on loopback: answers, refusals, memory, and int8 beside float.

    python -m benchmarks.run serving           # ten minutes of load
    python -m benchmarks.serving SECONDS       # as many

A ResNet-50 for Fashion-MNIST, one replica of each kind. What Ray passes on costs processor time, too, so the ratio of
int8 to float is that of a service and not of a network. Every answer of int8 is compared with the NumPy engine's
logits, each bit of them; a float sum depends on how many samples run together. Past capacity the front is busy with
refusals, which cost it as much as requests. Beside twenty other processes on two cores: 60,080 answers in 660 s,
none wrong; by 400 clients that came again after a second, 8,934 refusals and a quarter of the answers a second; the
replica ended with 372 of 447 MB.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import eightbit as eb
from benchmarks.figure import Figure
from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from tests.deploy.served import Served, serving

MODEL = "resnet50_fashion"
SECONDS = 600
PICTURES = 200
CLIENTS, CROWD = 16, 400
BATCH, WAITING = 8, 64
MOST_OFF = 1e-4
MOST_GROWTH = 1.05
MOST_TIME = 0.85
MOST_REFUSAL = 2000


def figures(seconds: float = SECONDS) -> Iterator[Figure]:
    """Load by `CLIENTS` for `seconds`, and by a `CROWD` past capacity and of the float model a tenth of that."""
    data = fashion_mnist()
    model = eb.load(zoo.load(MODEL), zoo.example(MODEL))
    q = eb.quantize(model, zoo.preprocess_for(MODEL, data.train.images[:128]), eb.Recipe.plain())
    x = zoo.preprocess_for(MODEL, data.test.images[:PICTURES])
    name = q.outputs[0].name
    in_float, in_codes = model(x), q.run(x, engine="numpy")
    with tempfile.TemporaryDirectory() as folder:
        files = [model.save(Path(folder, "float.onnx")), q.save(Path(folder, "int8.onnx"))]
        with serving(files, "--batch", BATCH, "--waiting", WAITING) as server:
            part = seconds / 10
            of_float = load(server, "float", {"x": x, name: in_float}, CLIENTS, part)
            load(
                server, "int8", {"x": x, name: in_codes}, CROWD, part / 2
            )  # what memory a queue takes, it takes now
            before = megabytes(server)
            of_int8 = load(server, "int8", {"x": x, name: in_codes}, CLIENTS, seconds)
            crowded = load(server, "int8", {"x": x, name: in_codes}, CROWD, part)
            after = megabytes(server)
    both = (of_int8, crowded)
    answered = sum(found["statuses"].get("200", 0) for found in both)
    wrong = sum(found["wrong"] for found in both)
    yield Figure(
        "serving: wrong answers", wrong, 0, "", f"of {answered:,} in {seconds + part:.0f} s; {said(of_int8)}"
    )
    lost = sum(n for found in both for status, n in found["statuses"].items() if not status.isdecimal())
    statuses = ", ".join(f"{n:,} with {status}" for status, n in crowded["statuses"].items())
    yield Figure(
        "serving: requests without a status", lost, 0, "", f"{CROWD} clients: {statuses}; {said(crowded)}"
    )
    ms = crowded["refused_ms"]
    detail = f"median {ms['p50']:.0f}, longest {ms['longest']:.0f} ms"
    yield Figure("serving: 99 % of the refusals come within", ms["p99"], MOST_REFUSAL, "ms", detail)
    yield Figure(
        "serving: memory at the end / before",
        after / before,
        MOST_GROWTH,
        "x",
        f"{after:.0f} / {before:.0f} MB",
    )
    off = of_float["most_off"] / float(np.abs(in_float).max())
    yield Figure("serving: float, largest difference / largest logit", off, MOST_OFF, "", said(of_float))
    ratio = of_float["per_second"] / of_int8["per_second"]
    detail = f"{of_float['per_second']:.0f} / {of_int8['per_second']:.0f} answers a second"
    yield Figure("serving: float / int8, answers a second", ratio, MOST_TIME, "x", detail)


def load(
    server: Served, name: str, arrays: dict[str, np.ndarray], clients: int, seconds: float
) -> dict[str, Any]:
    return server.load(name, arrays, "--clients", clients, "--seconds", seconds)


def megabytes(server: Served) -> float:
    """What the replica of int8 holds in memory."""
    return sum(p.memory_info().rss for p in server.replicas("int8")) / 1e6


def said(found: dict[str, Any]) -> str:
    """A load in a few words."""
    ms = found["answered_ms"]
    times = f"p50 {ms['p50']:.0f}, p95 {ms['p95']:.0f}, p99 {ms['p99']:.0f} ms"
    return f"{found['per_second']:.0f} answers a second, {times}"


if __name__ == "__main__":
    for figure in figures(float(sys.argv[1])):
        print(f"{figure.name}: {figure.value:.4g} {figure.unit} ({figure.bound:g}); {figure.detail}")
