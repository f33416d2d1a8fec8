"""Int8 for x86 without VNNI: pairs of weights held inside int16, beside weights of seven bits and unheld ones of eight.

    python -m benchmarks.run processor

Answers are measured on any machine, for codes are the same on all. Times are measured only where the processor adds
pairs in int16: no setting makes ONNX Runtime take its AVX2 kernels elsewhere, and an emulator's clock says nothing.
Integers are those of all tensors in a session, which on such a processor asks for nothing, because the weights prove
that none is lost; `tests/conformance/test_without_vnni.py` has an emulator compare them as a Haswell.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import process_time

import numpy as np

import eightbit as eb
from benchmarks.accuracy import CROPS, TESTED, differences, in_batches
from benchmarks.figure import Figure
from benchmarks.transformer import tokens
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
    """For each network the quality with held pairs, that none can saturate, and the time where it can be measured."""
    for make in (lite0, resnet50, minilm):
        network = make()
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
        if pairs_saturate():
            yield time(network, made[HELD])
        gc.collect()


def time(network: Network, q: eb.QuantizedModel) -> Figure:
    """Processor seconds of int8 relative to float."""
    runners = [OnnxRuntime(model.ir, threads=THREADS) for model in (network.model, q)]
    calls = [partial(runner.run, network.feeds) for runner in runners]
    (in_float, in_int8), rounds = interleaved(calls, rounds=30, seconds=40, burst=5, clock=process_time)
    detail = f"{1e3 * in_int8:.1f} / {1e3 * in_float:.1f} ms, {rounds} rounds"
    return Figure(
        f"{network.name}, pairs held: int8 / float", in_int8 / in_float, network.slowest, "x", detail
    )


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
