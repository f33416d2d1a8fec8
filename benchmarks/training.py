"""Quantization-aware training where rounding alone fails, beside rounding and beside refinement without labels.

Fashion-MNIST: 60,000 pictures to learn from, with their labels and with the float network's answers, 10,000 to test on.
Each row is one run; where two trainings are compared, three seeds of each say how sure it is. Every trained model is
converted, and what it was in training is compared with what runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

import eightbit as eb
from benchmarks.accuracy import Images, in_batches
from benchmarks.brevitas_peer import installed, with_fake_quantization
from benchmarks.distillation import distilled
from benchmarks.figure import Figure
from benchmarks.pruning import figures_of_pruning
from eightbit.arith.affine import sqnr_db
from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from eightbit.deploy.sessions import integer_tensors, run_island
from eightbit.integer.engine import run
from eightbit.report.confidence import mean_of_runs

CALIBRATED, FEW, COMPARED, BATCH = 512, 128, 1000, 250
MINUTES = 10.0


@dataclass(frozen=True)
class Row:
    """A network in few bits, how it is trained, and the points of accuracy that it may lose."""

    network: str
    bits: tuple[int, int]
    training: eb.Training
    points: float

    @property
    def name(self) -> str:
        """As it is called in the table."""
        return f"{self.network} W{self.bits[0]}A{self.bits[1]}"

    @property
    def rounded(self) -> eb.Recipe:
        """The default recipe with so many bits, which rounding and refinement begin with."""
        return eb.Recipe(weights=eb.Weights(bits=self.bits[0]), activations=eb.Activations(bits=self.bits[1]))

    @property
    def start(self) -> eb.Recipe:
        """The recipe that training begins with: `eb.trainable` says why two bits want another range."""
        if self.bits[0] > 2:
            return self.rounded
        return replace(self.rounded, weights=eb.Weights(bits=self.bits[0], range=eb.MSE()))


LESSON = eb.Training(epochs=3, rate=1e-2, scale_rate=1e-2, average=0.995)
TRAINED = (
    Row("resnet8", (2, 8), LESSON, 1.5),
    Row("mobilenet", (4, 4), replace(LESSON, epochs=1, rate=5e-3), 1.5),
    Row("mobilenet", (2, 8), replace(LESSON, epochs=2), 2.0),
)
COMPARED_TRAINING = replace(LESSON, epochs=1, average=0.98)
PEER_RATE = 1e-3
"""Of weights as they are: a hundredth of a step, as in `LESSON`."""
PICTURES, SEEDS = 20_000, range(3)
"""What trainings that are compared see, each with every seed."""
REFINED = {"resnet8": 24.4, "mobilenet": 23.7}
"""SQNR of the outputs in dB that `FEW` pictures without labels must give in W4A8."""


def figures() -> Iterator[Figure]:
    """What the project promises of training, of refinement alone, and of pruning."""
    for row in TRAINED:
        yield from trained(row)
    yield from compared(TRAINED[0])
    for network, bound in REFINED.items():
        yield from refined(network, bound)
    yield from distilled()
    yield from figures_of_pruning()


def trained(row: Row) -> Iterator[Figure]:
    """One training: points lost, time, and whether the converted model is the one that was trained."""
    sets = Sets(row.network)
    rounded = eb.quantize(sets.model, sets.calibration, row.rounded)
    beside = {"rounding": rounded, "refined": eb.refine(sets.model, sets.calibration, rounded)}
    module = eb.trainable(eb.quantize(sets.model, sets.calibration, row.start))
    used = time.process_time()
    told = in_batches(lambda x: np.asarray(sets.model(x), np.float32), sets.train, BATCH)
    eb.fit(module, (sets.train, sets.train_labels), row.training, teacher=told)
    minutes = (time.process_time() - used) / 60
    q = eb.quantize(module)
    exact, found = sets.accuracy(sets.model), sets.accuracy(q)
    shares = ", ".join(f"{name} {sets.accuracy(model):.2f}" for name, model in beside.items())
    detail = f"{found:.2f} % of {exact:.2f}; {shares}; {len(sets.test):,} images"
    yield Figure(f"{row.name}: points lost, trained", exact - found, row.points, "", detail)
    yield Figure(
        f"{row.name}: processor time", minutes, MINUTES, "min", f"{row.training.epochs} epochs of 60,000"
    )
    yield from same(row.name, module, q, sets.test[:COMPARED])


def compared(row: Row) -> Iterator[Figure]:
    """What the start and the normalized sums are worth: short trainings with and without each, by seed."""
    sets = Sets(row.network)
    data = sets.train[:PICTURES], sets.train_labels[:PICTURES]
    told = in_batches(lambda x: np.asarray(sets.model(x), np.float32), data[0], BATCH)
    starts = {
        name: eb.quantize(sets.model, sets.calibration, getattr(row, name)) for name in ("start", "rounded")
    }

    def right(start: str, seed: int, *, normal: bool = True) -> float:
        module = eb.trainable(starts[start])
        if not normal:
            module.freeze()
        eb.fit(module, data, replace(COMPARED_TRAINING, seed=seed), teacher=told)
        return sets.accuracy(eb.quantize(module))

    def peer(seed: int) -> float:
        network = with_fake_quantization(zoo.load(row.network), row.bits)
        eb.fit(network, data, replace(COMPARED_TRAINING, rate=PEER_RATE, seed=seed), teacher=told)
        with torch.no_grad():
            said = in_batches(lambda x: network(torch.from_numpy(x)).numpy(), sets.test, BATCH)
        return 100 * float((said.argmax(1) == sets.labels).mean())

    whole = [right("start", seed) for seed in SEEDS]
    others = {
        "scales of the least error": [right("rounded", seed) for seed in SEEDS],
        "normalized sums": [right("start", seed, normal=False) for seed in SEEDS],
    }
    for what, accuracies in others.items():
        won = mean_of_runs([a - b for a, b in zip(whole, accuracies, strict=True)])
        detail = f"{len(SEEDS)} seeds, mean {won} points; one epoch of {PICTURES:,} images"
        yield Figure(f"{row.name}, {what}: points won, lower end", won.lo, 0.0, "", detail, at_least=True)
    if not installed():
        print(f"{row.name} beside Brevitas: left out, for Brevitas is not installed (pip install brevitas)")
        return
    behind = mean_of_runs([peer(seed) - a for seed, a in zip(SEEDS, whole, strict=True)])
    detail = f"{len(SEEDS)} seeds, {behind}; the same images, its network in float with rounded weights and activations"
    yield Figure(f"{row.name}: points behind Brevitas", behind.mean, 0.5, "", detail)


def same(name: str, module: Any, q: eb.QuantizedModel, x: Images) -> Iterator[Figure]:
    """The module as it was trained against the converted model, in both engines."""
    classes, engines = [], {"ONNX Runtime": 0, "NumPy": 0}
    for i in range(0, len(x), BATCH):
        feeds = {q.inputs[0].name: x[i : i + BATCH]}
        codes = module.codes(x[i : i + BATCH])
        theirs = {
            "ONNX Runtime": integer_tensors(q.ir, feeds),
            "NumPy": run(q.program, feeds, island=run_island, keep=True),
        }
        for engine, tensors in theirs.items():
            apart = [np.abs(codes[n].astype(int) - tensors[n]).max() for n in codes if n in tensors]
            engines[engine] = max(engines[engine], int(max(apart)))
        said = module(x[i : i + BATCH]).detach().numpy()
        classes.append(said.argmax(1) == q(x[i : i + BATCH]).argmax(1))
    share = 100 * float(np.concatenate(classes).mean())
    yield Figure(f"{name}: same class as in training", share, 99.9, "%", f"{len(x):,} images", at_least=True)
    for engine, steps in engines.items():
        yield Figure(f"{name}: steps apart from training", steps, 1, "", f"largest of all layers, {engine}")


def refined(network: str, bound: float) -> Iterator[Figure]:
    """W4A8 from few pictures without labels."""
    sets = Sets(network)
    few = sets.calibration[:FEW]
    q = eb.quantize(sets.model, few, eb.Recipe(weights=eb.Weights(bits=4)))
    used = time.process_time()
    better = eb.refine(sets.model, few, q)
    seconds = time.process_time() - used
    noise = [sqnr_db(sets.answers(sets.model), sets.answers(m)) for m in (q, better)]
    right = [sets.accuracy(m) for m in (sets.model, q, better)]
    detail = f"rounding {noise[0]:.1f} dB; {right[1]:.2f} to {right[2]:.2f} % right, float {right[0]:.2f}"
    yield Figure(f"{network} W4A8, refined: SQNR", noise[1], bound, "dB", detail, at_least=True)
    yield Figure(
        f"{network} W4A8, refined: processor time", seconds, 120, "s", f"{FEW} images without labels"
    )


class Sets:
    """A network with its data, and what models answer on the test images."""

    def __init__(self, network: str) -> None:
        data = fashion_mnist()
        self.model = eb.load(zoo.load(network), zoo.example(network))
        self.train = zoo.preprocess_for(network, data.train.images)
        self.train_labels = data.train.labels.astype(np.int64)
        self.calibration = self.train[:CALIBRATED]
        self.test = zoo.preprocess_for(network, data.test.images)
        self.labels = data.test.labels

    def answers(self, model: eb.Model | eb.QuantizedModel) -> Images:
        """Outputs on the test images."""
        return in_batches(lambda x: np.asarray(model(x), np.float32), self.test, BATCH)

    def accuracy(self, model: eb.Model | eb.QuantizedModel) -> float:
        """Test images that are answered right, in percent."""
        return 100 * float((self.answers(model).argmax(1) == self.labels).mean())
