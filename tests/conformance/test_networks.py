"""Whole networks: not one integer differs between the NumPy engine and ONNX Runtime, at any quantized tensor."""

from __future__ import annotations

import numpy as np
import pytest

import eightbit as eb
from eightbit.deploy.sessions import IntegerTensors, OnnxRuntime, optimized_ops, run_island
from eightbit.integer.engine import run

pytestmark = pytest.mark.slow
zoo = pytest.importorskip("eightbit.course.zoo")
BATCH = 125


def assert_no_difference(q: eb.QuantizedModel, x: np.ndarray) -> int:
    """Every quantized tensor and every output for inputs `x`; returns how many integers were compared."""
    runtime, whole = IntegerTensors(q.ir), OnnxRuntime(q.ir)
    (name,) = q.program.inputs
    compared = 0
    for begin in range(0, len(x), BATCH):
        feeds = {name: x[begin : begin + BATCH]}
        found = run(q.program, feeds, island=run_island, keep=True)
        expected = runtime.run(feeds)
        assert set(expected) == set(q.program.tensors)
        for tensor, codes in expected.items():
            differing = int(np.count_nonzero(found[tensor] != codes))
            assert differing == 0, f"{tensor}: {differing} of {codes.size} integers differ"
            compared += codes.size
        for tensor, output in whole.run(feeds).items():
            np.testing.assert_array_equal(found[tensor], output)
    return compared


def quantized(name: str, calibration: np.ndarray) -> eb.QuantizedModel:
    q = eb.quantize(eb.load(zoo.load(name), zoo.example(name)), calibration)
    assert not {"Conv", "Gemm", "MatMul", "Add", "Relu", "Clip"} & {op for op, _ in optimized_ops(q.ir)}
    return q


@pytest.mark.parametrize(("name", "at_least"), [("resnet8", 40_000_000), ("mobilenet", 40_000_000)])
def test_a_thousand_pictures_of_clothes(name: str, at_least: int) -> None:
    from eightbit.course.datasets import fashion_mnist

    data = fashion_mnist()
    q = quantized(name, zoo.preprocess_for(name, data.train.images[:256]))
    compared = assert_no_difference(q, zoo.preprocess_for(name, data.test.images[:1000]))
    assert compared >= at_least


def crops() -> np.ndarray:
    """Four corners of five photographs that come with scikit-image and scikit-learn, uint8 (20, 224, 224, 3)."""
    skimage_data = pytest.importorskip("skimage.data")
    sklearn_data = pytest.importorskip("sklearn.datasets")
    pictures = [skimage_data.astronaut(), skimage_data.coffee(), skimage_data.chelsea()]
    pictures += list(sklearn_data.load_sample_images().images)
    return np.stack([p[top:, left:][:224, :224] for p in pictures for top in (0, 70) for left in (0, 150)])


def test_twenty_crops() -> None:
    images = zoo.preprocess_for("efficientnet_lite0", crops())
    q = quantized("efficientnet_lite0", images[::2])
    assert assert_no_difference(q, images) >= 20 * 5_000_000
