"""ResNet-50 trained on Fashion-MNIST, by the road of Keras and by that of torch: what int8 loses on 10,000 pictures.

    python -m benchmarks.run resnet

Both load one file of weights; 256 training pictures calibrate, the default recipe quantizes everything.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import eightbit as eb
from benchmarks.accuracy import COMPARED, Images, differences, in_batches
from benchmarks.figure import Figure
from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from eightbit.graph.source.quiet import silence
from eightbit.report.confidence import paired

NAME = "resnet50_fashion"
CALIBRATED, BATCH = 256, 500
MAX_POINTS, MAX_DISTANCE = 0.5, 1e-3


def figures() -> Iterator[Figure]:
    """Points lost and integers that differ, by framework; and how far the two float networks lie apart."""
    data = fashion_mnist()
    x, labels = zoo.preprocess_for(NAME, data.test.images), data.test.labels
    calibration = zoo.preprocess_for(NAME, data.train.images[:CALIBRATED])
    exact = {}
    for framework, model, layout in roads():
        q = eb.quantize(model, layout(calibration))
        pictures = layout(x)
        exact[framework], found = (logits(m, pictures) for m in (model, q))
        yield points_lost(framework, exact[framework], found, labels)
        yield differences(f"{NAME}, {framework}", q, pictures[:COMPARED])
    apart = float(np.abs(exact["Keras"] - exact["torch"]).max())
    detail = f"largest difference of {exact['torch'].size:,} logits, which reach {np.abs(exact['torch']).max():.0f}"
    yield Figure(f"{NAME}: Keras against torch, in float", apart, MAX_DISTANCE, "", detail)


def roads():
    """(framework, float model, what turns pictures (N, C, H, W) into its layout)."""
    with silence():  # TensorFlow reports on this machine's hardware
        keras = zoo.load_keras(NAME)
    yield "Keras", eb.load(keras), lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    yield "torch", eb.load(zoo.load(NAME), zoo.example(NAME)), lambda x: x


def logits(model: eb.Model | eb.QuantizedModel, x: Images) -> Images:
    """(N, classes) float32."""
    return in_batches(lambda part: np.asarray(model(part)), x, BATCH)


def points_lost(framework: str, exact: Images, found: Images, labels: np.ndarray) -> Figure:
    """The loss of accuracy in percentage points, with its paired interval."""
    in_float, in_int8 = exact.argmax(1) == labels, found.argmax(1) == labels
    result = paired(
        total=len(labels),
        float_right=int(in_float.sum()),
        lost=int((in_float & ~in_int8).sum()),
        won=int((in_int8 & ~in_float).sum()),
    )
    detail = (
        f"{result.int8_accuracy:.2%} against {result.float_accuracy:.2%}, {len(labels):,} images; "
        f"95 % interval of the change {100 * result.lo:+.2f} to {100 * result.hi:+.2f}"
    )
    return Figure(f"{NAME}, {framework}: points lost", -100 * result.delta, MAX_POINTS, "", detail)
