"""What `tune` finds by itself: EfficientNet-Lite0 from the plain recipe, and the MobileNet at five bits a weight.

Three sets that share no picture with the calibration samples' use: the search measures on crops of the calibration
photographs that calibration did not see (EfficientNet) or on training pictures beyond them (MobileNet); the figures
are those of the test set, which the search never sees.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

import eightbit as eb
from benchmarks.figure import Figure
from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from eightbit.course.pictures import imagenet_crops
from eightbit.course.zoo import preprocess

CROPS, SEARCHED, TESTED = 72, 128, 200
MINUTES = 5.0


def figures() -> Iterator[Figure]:
    """Agreement, size and time on EfficientNet-Lite0; points of accuracy on the MobileNet, beside uniform five bits."""
    yield from efficientnet()
    yield from mobilenet()


def efficientnet() -> Iterator[Figure]:
    """From plain min-max to 97 % agreement in 0.29 of the float file."""
    crops = imagenet_crops(CROPS + SEARCHED, TESTED)
    seen, test = (preprocess.efficientnet_lite(x) for x in (crops.calibration, crops.test))
    model = eb.load(zoo.load("efficientnet_lite0"), zoo.example("efficientnet_lite0"))
    start = time.perf_counter()
    found = eb.tune(
        model,
        seen[:CROPS],
        target=eb.Target(agreement=0.97, size=0.29),
        recipe=eb.Recipe.plain(),
        data=seen[CROPS:],
        held_out=test,
    )
    minutes = (time.perf_counter() - start) / 60
    assert found.held_out is not None
    steps = f"{len(found.trials)} trials, {len(found.recipe.overrides)} overrides"
    name = "efficientnet_lite0, tuned"
    kept = found.held_out.agreement
    yield Figure(f"{name}: agreement on test", kept, 0.97, "", steps, at_least=True)
    yield Figure(
        f"{name}: size / float", found.held_out.size, 0.29, "x", f"{found.held_out.bits:.2f} bits a weight"
    )
    yield Figure(f"{name}: time", minutes, MINUTES, "min", "knobs, sensitivity, search and front")


def mobilenet(searched: int = 4000, tested: int = 10_000) -> Iterator[Figure]:
    """Five bits a weight in the file, against five bits everywhere, which a file stores as eight."""
    sets, to_input = fashion_mnist(), preprocess.fashion_mnist
    model = eb.load(zoo.load("mobilenet"), zoo.example("mobilenet"))
    name = model.inputs[0].name

    def labelled(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        return {name: to_input(images), "labels": labels.astype(np.int64)}

    calibration = to_input(sets.train.images[:512])
    train, test = sets.train, sets.test
    rest = labelled(train.images[512 : 512 + searched], train.labels[512 : 512 + searched])
    apart = labelled(test.images[:tested], test.labels[:tested])
    found = eb.tune(model, calibration, target=eb.Target(bits=5, drop=0.01), data=rest, held_out=apart)
    uniform = eb.quantize(model, calibration, eb.Recipe(weights=eb.Weights(bits=5)))
    beside = eb.compare(model, uniform, apart)
    assert found.held_out is not None and found.held_out.drop is not None and beside.accuracy is not None
    loss, bits = 100 * found.held_out.drop, found.held_out.bits
    detail = f"uniform 5 bits lose {-100 * beside.accuracy.delta:.2f} in {beside.sizes[1]:,} bytes"
    size = f"{found.held_out.size * beside.sizes[0]:,.0f} bytes"
    yield Figure("mobilenet, tuned: accuracy lost on test", loss, 1.0, "points", detail)
    yield Figure("mobilenet, tuned: mean bits a weight", bits, 5.0, "bits", size)
