"""Photographs and crops: the same everywhere, disjoint between calibration and test, and what they show."""

import numpy as np
import pytest

from eightbit.course import pictures as module
from eightbit.course.pictures import (
    CALIBRATION,
    TEST,
    center_crop,
    imagenet_classes,
    imagenet_crops,
    pictures,
)
from eightbit.errors import LoadError, MissingExtra


def test_no_photograph_serves_calibration_and_test():
    assert not CALIBRATION.keys() & TEST.keys()
    assert not set(CALIBRATION.values()) & set(TEST.values())
    assert list(pictures()) == sorted(CALIBRATION.keys() | TEST.keys())


def test_pictures_are_colour_bytes_that_nobody_can_change():
    for name, picture in pictures().items():
        assert picture.dtype == np.uint8, name
        assert picture.ndim == 3, name
        assert picture.shape[2] == 3, name
        assert min(picture.shape[:2]) >= 190, name
        with pytest.raises(ValueError, match="read-only"):
            picture[0, 0, 0] = 1


def test_crops_are_deterministic_and_nested():
    few, many = imagenet_crops(6, 5), imagenet_crops(12, 9)
    np.testing.assert_array_equal(few.calibration, many.calibration[:6])
    np.testing.assert_array_equal(few.test, many.test[:5])
    assert few.calibration.shape == (6, 224, 224, 3)
    assert few.calibration.dtype == np.uint8
    other = imagenet_crops(6, 5, seed=1)
    assert (other.calibration != few.calibration).any()


def test_there_are_a_thousand_classes():
    classes = imagenet_classes()
    assert len(classes) == 1000
    assert (classes[0], classes[967], classes[285], classes[999]) == (
        "tench",
        "espresso",
        "Egyptian cat",
        "toilet tissue",
    )


@pytest.mark.slow
def test_efficientnet_lite0_names_the_cup_and_the_cat():
    torch = pytest.importorskip("torch")
    from eightbit.course import zoo

    net, classes = zoo.load("efficientnet_lite0"), imagenet_classes()
    shown = np.stack([center_crop(pictures()[name]) for name in ("coffee", "chelsea")])
    with torch.no_grad():
        best = net(torch.from_numpy(zoo.preprocess_for("efficientnet_lite0", shown))).argmax(1)
    assert classes[best[0]] == "espresso"
    assert "cat" in classes[best[1]]


def test_a_missing_package_and_a_missing_file_are_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match=r"scikit-image is not installed; run: pip install 'eightbit\[course\]'"
    ):
        module._read("skimage", "data/coffee.png")
    monkeypatch.undo()
    with pytest.raises(LoadError, match=r"skimage ships no data/lena\.png in this version"):
        module._read("skimage", "data/lena.png")
