"""Sensitivity from one set of probes against the truth, one source at a time: the order, and the cost.

EfficientNet-Lite0 on photographs and the MobileNet on Fashion-MNIST: activations at 8 bits, weights at 2 to 8. The
truth quantizes one source to one number of bits, runs the calibration samples and takes the error of the logits, again
and again. Both answer the same question, and each rounds the weights for itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from scipy.stats import spearmanr

import eightbit as eb
from benchmarks.figure import Figure
from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from eightbit.course.pictures import imagenet_crops
from eightbit.course.zoo import preprocess
from eightbit.quant.stage import Stage
from eightbit.safety.probes import Kind, Source
from eightbit.tuning.sensitivity import chosen_samples, measured, stage_for_tuning
from tests.tuning.truth import one_at_a_time

ORDER, COST = 0.8, 0.1
WIDTHS = (2, 3, 4, 5, 6, 7, 8)
SAMPLES = {"efficientnet_lite0": 4, "mobilenet": 8}


def calibration(name: str) -> np.ndarray:
    """72 crops, or 512 pictures of clothes."""
    if name == "mobilenet":
        return preprocess.fashion_mnist(fashion_mnist().train.images[:512])
    return preprocess.efficientnet_lite(imagenet_crops(test=1).calibration)


def figures() -> Iterator[Figure]:
    """Rank correlations, and time of the probes over time of the truth; the stage that both need is left out."""
    for name, probed in SAMPLES.items():
        x = calibration(name)
        model = eb.load(zoo.load(name), zoo.example(name))
        staged = stage_for_tuning(model.ir, x, eb.Recipe())
        start = time.perf_counter()
        found = measured(staged, chosen_samples(model.ir, x, probed))
        told = time.perf_counter()
        truth = every_width(replace(staged, made={}), x)
        end = time.perf_counter()
        told_by = {(Source(s.kind, s.node), bits): s.noise[bits] for s in found.weights for bits in WIDTHS}
        told_by |= {(Source(s.kind, s.tensor), 8): s.noise[8] for s in found.activations}
        agreements = [agreement(told_by, truth, bits) for bits in WIDTHS]
        least = min(agreements)
        detail = (
            f"{len(found.sources)} sources, {probed} samples against {len(x)}; activations at 8 bits, weights at "
            f"{WIDTHS[agreements.index(least)]}, at 8 {agreements[-1]:.2f}"
        )
        yield Figure(f"{name}: order of sensitivity, least Spearman", least, ORDER, "", detail, at_least=True)
        seconds = f"{told - start:.1f} / {end - told:.1f} s, {len(truth)} pairs of source and bits"
        yield Figure(f"{name}: cost, probes / truth", (told - start) / (end - told), COST, "x", seconds)


def every_width(staged: Stage, x: np.ndarray) -> dict[tuple[Source, int], float]:
    """The truth: noise of the weights at each of `WIDTHS`, of the activations at 8 bits."""
    found = {}
    for bits in WIDTHS:
        recipe = replace(staged.recipe, weights=replace(staged.recipe.weights, bits=bits))
        kinds = (Kind.WEIGHTS, Kind.ACTIVATIONS) if bits == 8 else (Kind.WEIGHTS,)
        found |= {(source, bits): noise for source, noise in one_at_a_time(staged, recipe, x, kinds).items()}
    return found


def agreement(
    told: Mapping[tuple[Source, int], float], truth: Mapping[tuple[Source, int], float], bits: int
) -> float:
    """Spearman's rank correlation over all sources, weights at `bits` and activations at 8."""
    pairs = [(s, b) for s, b in truth if b == (bits if s.kind is Kind.WEIGHTS else 8)]
    return float(spearmanr([told[p] for p in pairs], [truth[p] for p in pairs]).statistic)
