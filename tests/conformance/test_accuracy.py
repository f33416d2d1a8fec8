"""Trained networks keep their answers: accuracy, agreement, size, and nothing left in float, with plain min-max."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.arith.affine import sqnr_db
from eightbit.course import datasets, pictures, zoo
from eightbit.deploy.sessions import optimized_ops

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow


def in_batches(model, x, size=500):
    return np.concatenate([model(x[i : i + size]) for i in range(0, len(x), size)])


@pytest.mark.parametrize("name", ["resnet8", "mobilenet"])
def test_networks_on_ten_thousand_clothes(name, tmp_path):
    """Float knows 91 % at least; int8 is within 0.3 points of it, in at most 0.30 of the bytes, with no float layer."""
    data = datasets.fashion_mnist()
    model = eb.load(zoo.load(name), zoo.example(name))
    q = eb.quantize(model, zoo.preprocess_for(name, data.train.images[:500]), eb.Recipe.plain())
    x = zoo.preprocess_for(name, data.test.images)
    in_float, in_int8 = ((in_batches(m, x).argmax(1) == data.test.labels).mean() for m in (model, q))
    assert in_float >= 0.91
    assert in_int8 >= in_float - 0.003
    assert not {"Conv", "Gemm", "MatMul", "Add", "Relu", "Clip"} & {op for op, _ in optimized_ops(q.ir)}
    if name == "resnet8":  # MobileNet has more channels than weights to spread scales and biases over
        sizes = [
            m.save(tmp_path / f"{kind}.onnx").stat().st_size for kind, m in (("int8", q), ("float", model))
        ]
        assert sizes[0] <= 0.30 * sizes[1]


def test_efficientnet_lite0_with_plain_min_max():
    """14.5 dB on 200 crops of photographs that calibration has not seen; ONNX Runtime's own quantizer gives 14.9."""
    crops = pictures.imagenet_crops()
    calibration, test = (zoo.preprocess_for("efficientnet_lite0", c) for c in (crops.calibration, crops.test))
    model = eb.load(zoo.load("efficientnet_lite0"), zoo.example("efficientnet_lite0"))
    q = eb.quantize(model, calibration, eb.Recipe.plain())
    in_float, in_int8 = (in_batches(m, test, 25) for m in (model, q))
    assert sqnr_db(in_float, in_int8) >= 14.5
    assert (in_float.argmax(1) == in_int8.argmax(1)).mean() >= 0.85


@pytest.fixture(scope="module")
def efficientnet():
    """The float network, calibration crops, test crops of other photographs, and the float answers to those."""
    crops = pictures.imagenet_crops()
    calibration, test = (zoo.preprocess_for("efficientnet_lite0", c) for c in (crops.calibration, crops.test))
    model = eb.load(zoo.load("efficientnet_lite0"), zoo.example("efficientnet_lite0"))
    return model, calibration, test, in_batches(model, test, 25)


def test_efficientnet_lite0_with_the_default_recipe(efficientnet):
    """Measured: 23.8 dB, and 191 of 200 first classes; a processor's own rounding may turn a crop or three."""
    model, calibration, test, exact = efficientnet
    found = in_batches(eb.quantize(model, calibration), test, 25)
    assert sqnr_db(exact, found) >= 23
    assert (exact.argmax(1) == found.argmax(1)).mean() >= 0.94


def test_efficientnet_lite0_with_weights_of_eight_bits(efficientnet):
    """Measured: 29.4 dB, and 28.9 where rounding looks at moments around zero."""
    model, calibration, test, exact = efficientnet
    q = eb.quantize(model, calibration, eb.Recipe(activations=eb.FLOAT))
    assert sqnr_db(exact, in_batches(q, test, 25)) >= 29
