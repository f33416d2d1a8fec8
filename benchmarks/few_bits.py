"""Static weights and activations of four bits by rounding alone: no labels, no training, some pictures.

Fashion-MNIST, 128 pictures to calibrate on, 10,000 to test on. Beside each row, what the same recipe gives where every
layer is rounded for itself, on the float network's inputs (`encode.sequential` says what is done instead). The bound of
ResNet-8's accuracy in W4A8 is what was measured of Brevitas, 92.70 %.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import eightbit as eb
from benchmarks.accuracy import differences
from benchmarks.figure import Figure
from benchmarks.training import FEW, Sets
from eightbit.arith.affine import sqnr_db

COMPARED = 20


@dataclass(frozen=True)
class Promise:
    """What a network keeps in W4A8, dB of its outputs and percent of the pictures, and the points W4A4 may lose."""

    decibels: float
    right: float
    points: float


PROMISES = {"resnet8": Promise(26.0, 92.70, 1.5), "mobilenet": Promise(24.8, 91.9, 2.0)}


def figures() -> Iterator[Figure]:
    """What the project promises of static recipes of few bits."""
    for network, promise in PROMISES.items():
        sets = Sets(network)
        exact = sets.answers(sets.model)
        in_float = _right(sets, exact)
        for bits in ((4, 8), (4, 4)):
            name = f"{network} W{bits[0]}A{bits[1]}"
            used = time.process_time()
            q = _rounded(sets, bits)
            seconds = time.process_time() - used
            before = sets.answers(_rounded(sets, bits, eb.GPTQ()))
            found = sets.answers(q)
            noise, right = sqnr_db(exact, found), _right(sets, found)
            detail = (
                f"{noise:.1f} dB, {right:.2f} %; layers each for itself {sqnr_db(exact, before):.1f} dB, "
                f"{_right(sets, before):.2f} %; float {in_float:.2f} %; {FEW} images without labels, {seconds:.0f} s"
            )
            if bits == (4, 8):
                yield Figure(f"{name}: SQNR", noise, promise.decibels, "dB", detail, at_least=True)
                yield Figure(f"{name}: right", right, promise.right, "%", detail, at_least=True)
            else:
                yield Figure(f"{name}: points lost", in_float - right, promise.points, "", detail)
            yield differences(name, q, sets.test[:COMPARED])


def _rounded(sets: Sets, bits: tuple[int, int], rounding: eb.GPTQ | None = None) -> eb.QuantizedModel:
    recipe = eb.Recipe(eb.Weights(bits=bits[0], rounding=rounding), eb.Activations(bits=bits[1]))
    return eb.quantize(sets.model, sets.calibration[:FEW], recipe, check=False)


def _right(sets: Sets, answers: np.ndarray) -> float:
    return 100 * float((answers.argmax(1) == sets.labels).mean())
