"""Sensitivity from one set of probes against the truth, one source at a time: the order, and the cost.

EfficientNet-Lite0 on photographs and the MobileNet on Fashion-MNIST, weights and activations at eight bits. The truth
quantizes one source, runs the calibration samples and takes the error of the logits, again and again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from scipy.stats import spearmanr

import eightbit as eb
from benchmarks.figure import Figure
from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from eightbit.course.pictures import imagenet_crops
from eightbit.course.zoo import preprocess
from eightbit.tuning.probes import Kind, Source
from eightbit.tuning.sensitivity import chosen_samples, measured, stage_for_tuning
from tests.tuning.truth import one_at_a_time

ORDER, COST = 0.8, 0.1
SAMPLES = {"efficientnet_lite0": 4, "mobilenet": 8}


def calibration(name: str) -> np.ndarray:
    """72 crops, or 512 pictures of clothes."""
    if name == "mobilenet":
        return preprocess.fashion_mnist(fashion_mnist().train.images[:512])
    return preprocess.efficientnet_lite(imagenet_crops(test=1).calibration)


def figures() -> Iterator[Figure]:
    """Rank correlation, and time of the probes over time of the truth; the stage that both need is left out."""
    for name, probed in SAMPLES.items():
        x = calibration(name)
        model = eb.load(zoo.load(name), zoo.example(name))
        staged = stage_for_tuning(model.ir, x, eb.Recipe())
        start = time.perf_counter()
        found = measured(staged, chosen_samples(model.ir, x, probed))
        told = time.perf_counter()
        truth = one_at_a_time(staged, staged.recipe, x)
        end = time.perf_counter()
        true = [truth[Source(s.kind, s.node if s.kind is Kind.WEIGHTS else s.tensor)] for s in found.sources]
        agreement = spearmanr([s.noise[8] for s in found.sources], true).statistic
        detail = f"{len(true)} sources, {probed} samples against {len(x)}"
        yield Figure(
            f"{name}: order of sensitivity, Spearman", float(agreement), ORDER, "", detail, at_least=True
        )
        seconds = f"{told - start:.1f} / {end - told:.1f} s; every width against one"
        yield Figure(f"{name}: cost, probes / truth", (told - start) / (end - told), COST, "x", seconds)
