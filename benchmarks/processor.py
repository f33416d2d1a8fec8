"""Int8 for x86 without VNNI: pairs of weights held inside int16, beside weights of seven bits and unheld ones of eight.

    python -m benchmarks.run processor
    python -m benchmarks.processor FOLDER       # what each child process runs: prints its times as JSON

Answers are measured on any machine, for codes are the same on all. Times are those of ONNX Runtime's kernels for AVX2,
in a process of its own: `benchmarks.without_vnni` has them run on a newer processor, too, at that processor's clock.
Integers are those of all tensors in a session, which on such a processor asks for nothing, because the weights prove
that none is lost; `tests/conformance/test_without_vnni.py` has an emulator compare them as a Haswell.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np

import eightbit as eb
from benchmarks.accuracy import CROPS, TESTED, differences, in_batches
from benchmarks.figure import Figure
from benchmarks.transformer import tokens
from benchmarks.without_vnni import environment, missing_tools
from eightbit.arith.affine import sqnr_db
from eightbit.course import zoo
from eightbit.course.datasets import docstring_split
from eightbit.course.pictures import imagenet_crops
from eightbit.data.feeds import Feeds
from eightbit.deploy.saturation import proven
from eightbit.deploy.sessions import OnnxRuntime
from eightbit.graph.processor import pairs_saturate
from eightbit.report.timing import interleaved

Array = np.ndarray
Answers = Callable[[eb.Model | eb.QuantizedModel], Array]
HELD = "x86-avx2"
RECIPES = {
    HELD: eb.Recipe(processor=HELD),
    "7 bits": eb.Recipe(eb.Weights(bits=7), processor="x86-vnni"),
    "x86-vnni": eb.Recipe(processor="x86-vnni"),
}
COMPARED, THREADS = 4, 2


@dataclass(frozen=True)
class Network:
    """A float network, its calibration, its answers to other inputs, and the promises: quality, time to float."""

    name: str
    model: eb.Model
    calibration: object
    answers: Answers
    quality: Callable[[Array, Array], float]
    unit: str
    least: float
    slowest: float
    feeds: Feeds


def figures() -> Iterator[Figure]:
    """For each network the quality with held pairs, that none can saturate, and its time."""
    missing = missing_tools()
    if missing:
        print(f"times are left out: they need {missing} (the tools: apt install gcc)")
    with TemporaryDirectory() as name:
        variables = None if missing else environment(Path(name))
        for make in (lite0, resnet50, minilm):
            yield from measured(make(), variables)
            gc.collect()


def measured(network: Network, variables: Mapping[str, str] | None) -> Iterator[Figure]:
    """The figures of a network; `variables` are those with which a Python runs the kernels for AVX2, if any can."""
    exact = network.answers(network.model)
    made = {name: eb.quantize(network.model, network.calibration, r) for name, r in RECIPES.items()}
    found = {name: network.quality(exact, network.answers(q)) for name, q in made.items()}
    others = ", ".join(f"{name}: {value:.4g}" for name, value in found.items() if name != HELD)
    what = f"{network.name}, pairs held"
    yield Figure(
        f"{what}: nearness to float", found[HELD], network.least, network.unit, others, at_least=True
    )
    unsafe = float(not proven(made[HELD].ir))
    yield Figure(f"{what}: models whose sums can saturate", unsafe, 0, "", "read from the weights")
    if network.name == "efficientnet_lite0":
        yield differences(what, made[HELD], next(iter(network.feeds.values())))
    if variables is not None:
        taken = _in_child(network, made, variables)
        in_float = taken.pop("float")
        ratios = ", ".join(f"{name}: {t / in_float:.3g}" for name, t in taken.items() if name != HELD)
        detail = f"{1e3 * taken[HELD]:.1f} / {1e3 * in_float:.1f} ms; {ratios}"
        yield Figure(f"{what}: int8 / float", taken[HELD] / in_float, network.slowest, "x", detail)


def _in_child(
    network: Network, made: Mapping[str, eb.QuantizedModel], variables: Mapping[str, str]
) -> dict[str, float]:
    """Median processor seconds of the float network and of each int8 one, in a process of its own."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "feeds.npz", **network.feeds)
        network.model.save(folder / "float.onnx")
        for recipe, q in made.items():
            q.save(folder / f"{recipe}.onnx")
        command = [sys.executable, "-m", "benchmarks.processor", folder]
        child = subprocess.run(command, capture_output=True, text=True, env=dict(variables))
        if child.returncode:
            raise RuntimeError(f"{network.name}: the times failed:\n{child.stderr[-2000:]}")
        return dict(json.loads(child.stdout.splitlines()[-1]))


def times(folder: Path) -> dict[str, float]:
    """Median processor seconds of the networks in a folder, on its feeds, in turns."""
    assert pairs_saturate(), "this process has other kernels than those for AVX2"
    feeds = dict(np.load(folder / "feeds.npz"))
    graphs = {
        file.stem: eb.load(file).ir if file.stem == "float" else eb.open(file).ir
        for file in sorted(folder.glob("*.onnx"))
    }
    runners = [OnnxRuntime(graph, threads=THREADS) for graph in graphs.values()]
    calls = [partial(runner.run, feeds) for runner in runners]
    medians, _ = interleaved(calls, rounds=30, seconds=60, burst=5, clock=process_time)
    return dict(zip(graphs, medians, strict=True))


def lite0() -> Network:
    """EfficientNet-Lite0 on photographs."""
    name = "efficientnet_lite0"
    crops = imagenet_crops(CROPS, TESTED)
    test = zoo.preprocess_for(name, crops.test)
    return _images(name, zoo.preprocess_for(name, crops.calibration), test, 23, 0.66)


def resnet50() -> Network:
    """The untrained ResNet-50 of the zoo on photographs: what decides its time is the same."""
    name, crops = "resnet50", imagenet_crops(32, 48)
    calibration, test = (zoo.preprocess_for(name, part) for part in (crops.calibration, crops.test))
    return _images(name, calibration, test, 35, 0.58)


def _images(name: str, calibration: Array, test: Array, least: float, slowest: float) -> Network:
    model = eb.load(zoo.load(name), zoo.example(name))
    return Network(
        name,
        model,
        calibration,
        lambda m: in_batches(lambda x: np.asarray(m(x), np.float32), test),
        sqnr_db,
        "dB",
        least,
        slowest,
        {model.inputs[0].name: test[:COMPARED]},
    )


def minilm() -> Network:
    """MiniLM on docstrings, static."""
    passages = docstring_split(64, TESTED)
    model = eb.load(zoo.load("minilm"), zoo.example("minilm"))
    batches = [tokens([entry.passage]) for entry in passages.test]
    return Network(
        "minilm",
        model,
        [tokens([entry.passage]) for entry in passages.calibration],
        lambda m: np.concatenate([np.asarray(m(batch)) for batch in batches]),
        lambda exact, found: float((exact * found).sum(axis=1).mean()),
        "",
        0.997,
        0.64,
        {name: np.asarray(tensor) for name, tensor in zoo.example("minilm", 16).items()},
    )


if __name__ == "__main__":
    print(json.dumps(times(Path(sys.argv[1]))))
