"""The networks of MLPerf Tiny's kinds, quantized: two of the course's, and two that learn nothing here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest

import eightbit as eb


@dataclass(frozen=True)
class Case:
    """A quantized network, and `count` inputs for it."""

    q: eb.QuantizedModel
    inputs: Callable[[int], np.ndarray]


def _pictures(name: str) -> Case:
    zoo = pytest.importorskip("eightbit.course.zoo")
    from eightbit.course.datasets import fashion_mnist

    data = fashion_mnist()
    model = eb.load(zoo.load(name), zoo.example(name))
    q = eb.quantize(model, zoo.preprocess_for(name, data.train.images[:128]), eb.Recipe.plain())
    return Case(q, lambda count: zoo.preprocess_for(name, data.test.images[:count]))


def _lite0() -> Case:
    zoo = pytest.importorskip("eightbit.course.zoo")
    from tests.conformance.test_networks import crops

    x = zoo.preprocess_for("efficientnet_lite0", crops())
    model = eb.load(zoo.load("efficientnet_lite0"), zoo.example("efficientnet_lite0"))
    return Case(eb.quantize(model, x[::2], eb.Recipe.plain()), lambda count: x[:count])


def _random_weights(net: object, shape: tuple[int, ...]) -> Case:
    import torch

    def inputs(count: int, seed: int = 1) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)

    model = eb.load(net, torch.zeros(1, *shape))
    return Case(eb.quantize(model, inputs(64, seed=0), eb.Recipe.plain()), inputs)


def _autoencoder() -> Case:
    """MLPerf Tiny's for ToyADMOS: 640 numbers through layers of 128 and a bottleneck of 8."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
    layers: list[object] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        layers += [
            torch.nn.Linear(before, after),
            *([] if last else [torch.nn.BatchNorm1d(after), torch.nn.ReLU()]),
        ]
    return _random_weights(torch.nn.Sequential(*layers).eval(), (640,))


def _ds_cnn() -> Case:
    """MLPerf Tiny's for key words: 49 x 10 coefficients, a convolution of 10 x 4, four depthwise separable blocks."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn

    def block() -> list[object]:
        depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)
        return [
            depthwise,
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 64, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        ]

    stem = [nn.Conv2d(1, 64, (10, 4), (2, 2), (5, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    body = [layer for _ in range(4) for layer in block()]
    net = nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12))
    return _random_weights(net.eval(), (1, 49, 10))


NETWORKS: dict[str, Callable[[], Case]] = {
    "resnet8": lambda: _pictures("resnet8"),
    "mobilenet": lambda: _pictures("mobilenet"),
    "autoencoder": _autoencoder,
    "ds_cnn": _ds_cnn,
}


LARGE: dict[str, Callable[[], Case]] = {"lite0": _lite0}
"""Networks that TFLite Micro takes seconds for."""


@lru_cache(maxsize=len(NETWORKS) + len(LARGE))
def case(name: str) -> Case:
    """One of `NETWORKS` or `LARGE`, quantized once."""
    return (NETWORKS | LARGE)[name]()
