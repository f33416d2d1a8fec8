"""Time of one inference, batch 1, two threads: int8 against float in ONNX Runtime, and the NumPy engine against float.

All calls of a comparison take turns in one process, in short bursts, so that a busy neighbour or a clock change falls
on each of them; the median is taken. Only ratios are promised: times depend on the machine. On x86 the processor needs
VNNI.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import eightbit as eb
from benchmarks.figure import Figure
from eightbit.course import zoo
from eightbit.deploy.sessions import OnnxRuntime
from eightbit.graph.run import FloatSession
from eightbit.report.timing import interleaved

THREADS = 2
BURST = (
    10  # runs in a row, so that a model finds its own weights in the caches, as it does where it runs alone
)
# Largest int8 time / float time.
KERAS = "resnet50 of keras.applications"
INT8_BOUNDS = {"resnet50": 0.34, KERAS: 0.36, "efficientnet_lite0": 0.48}
NUMPY_BOUND = 8.0


def keras_resnet50() -> Any:
    """keras.applications' network for 224 x 224 with seeded random weights."""
    import keras

    keras.utils.set_random_seed(0)
    return keras.applications.ResNet50(weights=None, classifier_activation=None)


def figures() -> Iterator[Figure]:
    """Ratios for ResNet-50 (of torch and of Keras) and EfficientNet-Lite0 at 224 x 224."""
    for name, bound in INT8_BOUNDS.items():
        # Time does not depend on the numbers, so seeded inputs calibrate and feed both models, by the quickest recipe.
        if name == KERAS:
            x = np.asarray(zoo.example("resnet50")).transpose(0, 2, 3, 1)
            model = eb.load(keras_resnet50())
        else:
            x = np.asarray(zoo.example(name))
            model = eb.load(zoo.load(name), zoo.example(name))
        quantized = eb.quantize(model, x, eb.Recipe.plain())
        feeds = {model.inputs[0].name: x}
        in_float = partial(FloatSession(model.ir, threads=THREADS).run, feeds)
        in_int8 = partial(OnnxRuntime(quantized.ir, threads=THREADS).run, feeds)

        (float_s, int8_s), rounds = interleaved([in_float, in_int8], rounds=30, seconds=20, burst=BURST)
        yield Figure(
            f"{name}: ONNX Runtime, int8 / float",
            int8_s / float_s,
            bound,
            "x",
            f"{1e3 * int8_s:.2f} / {1e3 * float_s:.2f} ms, {rounds} rounds",
        )
        if name == "resnet50":
            in_numpy = partial(quantized.run, x, engine="numpy")
            (float_s, numpy_s), rounds = interleaved([in_float, in_numpy], rounds=20, seconds=20)
            yield Figure(
                f"{name}: NumPy engine, int8 / ONNX Runtime, float",
                numpy_s / float_s,
                NUMPY_BOUND,
                "x",
                f"{1e3 * numpy_s:.0f} / {1e3 * float_s:.2f} ms, {rounds} rounds",
            )
