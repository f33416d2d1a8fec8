"""Photographs for models trained on ImageNet, with no download: scikit-image, scikit-learn and matplotlib ship them.

`imagenet_crops` cuts them into 224 x 224 crops, the calibration crops and the test crops from different photographs,
the same ones on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.errors import LoadError, MissingExtra

Picture = NDArray[np.uint8]
SIZE = 224
SMALLEST, LARGEST = 0.35, 1.0
"""A crop's side, as a fraction of the picture's shorter side."""

CALIBRATION = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "camera": ("skimage", "data/camera.png"),
    "clock_motion": ("skimage", "data/clock_motion.png"),
    "coins": ("skimage", "data/coins.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grass": ("skimage", "data/grass.png"),
    "hubble_deep_field": ("skimage", "data/hubble_deep_field.jpg"),
    "ihc": ("skimage", "data/ihc.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "page": ("skimage", "data/page.png"),
}
"""Where the photographs lie that calibration sees: package, and path in it."""

TEST = {
    "brick": ("skimage", "data/brick.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "gravel": ("skimage", "data/gravel.png"),
    "moon": ("skimage", "data/moon.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
"""Where the photographs lie that tests see."""


@dataclass(frozen=True)
class Crops:
    """Crops (N, 224, 224, 3) uint8 for calibration and for test; no photograph gives both."""

    calibration: Picture
    test: Picture


@cache
def pictures() -> dict[str, Picture]:
    """All photographs by name, in alphabetical order, uint8 (H, W, 3); grey ones have three equal channels.

    The arrays are shared and read-only. Raises MissingExtra if a package is not installed, LoadError if it no longer
    ships a file.
    """
    places = dict(sorted((CALIBRATION | TEST).items()))
    return {name: _read(*place) for name, place in places.items()}


def imagenet_crops(calibration: int = 72, test: int = 200, *, seed: int = 0) -> Crops:
    """So many crops for calibration and for test, at random places and scales that `seed` fixes.

    The photographs take turns. The first n of a larger set are the smaller set. Raises as `pictures` does.
    """
    photographs = pictures()

    def crops(names: dict[str, Any], count: int, stream: int) -> Picture:
        rng = np.random.default_rng([seed, stream])
        turns = [sorted(names)[i % len(names)] for i in range(count)]
        return np.stack([_crop(photographs[name], rng.random(3)) for name in turns])

    return Crops(crops(CALIBRATION, calibration, 0), crops(TEST, test, 1))


def center_crop(picture: Picture) -> Picture:
    """The largest square in the middle of a picture (H, W, 3), scaled to (224, 224, 3)."""
    return _crop(picture, np.array([1.0, 0.5, 0.5]))


def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1,000 classes of ImageNet, in the order of the models' outputs.

    Source: torchvision's list (BSD licence), one short name a class.
    """
    return tuple(files("eightbit.course").joinpath("imagenet_classes.txt").read_text("utf-8").splitlines())


def _read(package: str, path: str) -> Picture:
    spec = find_spec(package)
    if spec is None or spec.origin is None or find_spec("PIL") is None:
        raise MissingExtra(
            {"skimage": "scikit-image", "sklearn": "scikit-learn"}.get(package, package), "course"
        )
    file = Path(spec.origin).parent / path
    if not file.is_file():
        raise LoadError(f"{package} ships no {path} in this version; install the locked versions (make env)")
    from PIL import Image

    with Image.open(file) as image:
        picture = np.asarray(image.convert("RGB"))
    picture.setflags(write=False)
    return picture


def _crop(picture: Picture, draw: NDArray[np.float64]) -> Picture:
    """The square that `draw` in [0, 1]^3 chooses by scale, row and column, as (224, 224, 3)."""
    from PIL import Image

    height, width = picture.shape[:2]
    side = round(min(height, width) * (SMALLEST + (LARGEST - SMALLEST) * draw[0]))
    top, left = round((height - side) * draw[1]), round((width - side) * draw[2])
    square = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
