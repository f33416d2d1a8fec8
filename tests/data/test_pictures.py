"""Pictures as people have them become a model's inputs: of any format, size and mode, upright, cut, labelled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eightbit.data.pictures import TOGETHER, Pictures, Preparation, scaled
from eightbit.data.specs import TensorSpec
from eightbit.errors import CalibrationError, EngineError

SIDE = 6
RGB = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
GREY = RGB[..., 0]
EXACT = Preparation(resize=SIDE)
"""Pictures that have the size of the crop pass pixel by pixel."""


def spec(
    channels: int | None = 3, *, last: bool = False, dtype: str = "float32", side: int | None = SIDE
) -> Any:
    shape = (None, side, side, channels) if last else (None, channels, side, side)
    return (TensorSpec("x", np.dtype(dtype), shape),)


def read(path: Path, specs: Any = None, how: Preparation = EXACT, **more: Any) -> dict[str, np.ndarray]:
    """All batches in one."""
    batches = list(Pictures(path, spec() if specs is None else specs, CalibrationError, how, **more))
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


def as_chw(pixels: np.ndarray) -> np.ndarray:
    return (pixels.astype(np.float32) / np.float32(255)).transpose(2, 0, 1)


def with_alpha(pixels: np.ndarray) -> Image.Image:
    alpha = np.full((SIDE, SIDE, 1), 7, np.uint8)
    return Image.fromarray(np.concatenate([pixels, alpha], axis=2))


def see_through(pixels: np.ndarray) -> Image.Image:
    """A palette with transparency in bytes, of which Pillow warns."""
    image = Image.fromarray(pixels).quantize(256)
    image.info["transparency"] = bytes(range(256))
    return image


MODES: dict[str, tuple[str, Callable[[], Image.Image], np.ndarray]] = {
    "RGB": ("a.png", lambda: Image.fromarray(RGB), RGB),
    "RGBA": ("a.png", lambda: with_alpha(RGB), RGB),
    "grey": ("a.png", lambda: Image.fromarray(GREY), np.repeat(GREY[..., None], 3, 2)),
    "grey with alpha": (
        "a.png",
        lambda: Image.fromarray(np.stack([GREY, GREY], 2), "LA"),
        np.repeat(GREY[..., None], 3, 2),
    ),
    "palette": ("a.gif", lambda: Image.fromarray(RGB).quantize(256), RGB),
    "palette with alpha": ("a.png", lambda: see_through(RGB), RGB),
    "16 bits": (
        "a.png",
        lambda: Image.fromarray(GREY.astype(np.uint16) * 257),
        np.repeat(GREY[..., None], 3, 2),
    ),
    "black and white": (
        "a.png",
        lambda: Image.fromarray(GREY > 127),
        np.repeat(np.where(GREY > 127, 255, 0)[..., None], 3, 2),
    ),
    "capitals": ("A.PNG", lambda: Image.fromarray(RGB), RGB),
    "webp": ("a.webp", lambda: Image.fromarray(RGB), RGB),
    "bmp": ("a.bmp", lambda: Image.fromarray(RGB), RGB),
    "tiff": ("a.tif", lambda: Image.fromarray(RGB), RGB),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_picture_is_the_same_pixels(mode: str, tmp_path: Path) -> None:
    name, make, pixels = MODES[mode]
    make().save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    np.testing.assert_array_equal(read(tmp_path)["x"], as_chw(pixels)[None])
    np.testing.assert_array_equal(read(tmp_path / name)["x"], as_chw(pixels)[None])  # the file alone


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)],
)
def test_a_camera_held_sideways(orientation: int, upright: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path)["x"][0], as_chw(upright(RGB)))


@pytest.mark.parametrize(
    ("how", "specs", "expected"),
    [
        ({"mean": (0.5,), "std": (0.25,)}, spec(), lambda p: (as_chw(p) - np.float32(0.5)) / np.float32(0.25)),
        (
            {"mean": (127, 126, 125), "std": (128, 64, 32), "top": 255},
            spec(),
            lambda p: ((p - np.float32([127, 126, 125])) / np.float32([128, 64, 32])).transpose(2, 0, 1),
        ),
        ({"bgr": True, "mean": (1, 2, 3), "top": 255}, spec(last=True), lambda p: p[..., ::-1] - np.float32([1, 2, 3])),
        ({"layout": "nhwc", "top": 255}, spec(None, last=True), lambda p: p.astype(np.float32)),
        ({}, spec(dtype="uint8", last=True), lambda p: p),
        (
            {"top": 255},
            spec(1),
            lambda p: np.asarray(Image.fromarray(p).convert("L"), np.float32)[None],
        ),
        ({"size": (SIDE, SIDE)}, spec(side=None), as_chw),
    ],
    ids=["a number", "three numbers", "blue first", "layout", "bytes", "grey", "size"],
)  # fmt: skip
def test_pixels_become_numbers(how: Any, specs: Any, expected: Any, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    found = read(tmp_path, specs, Preparation(**({"resize": SIDE} | how)))["x"][0]
    np.testing.assert_array_equal(found, expected(RGB))
    assert found.dtype == specs[0].dtype


@pytest.mark.parametrize(
    ("picture", "size", "cover", "expected"),
    [
        ((480, 640), (224, 224), 256 / 224, (256, 341)),
        ((640, 480), (224, 224), 256 / 224, (341, 256)),
        ((3, 1000), (8, 8), 1.0, (8, 2666)),
        ((100, 100), (192, 256), 1.0, (256, 256)),
        ((100, 300), (192, 256), 1.0, (192, 576)),
        ((7, 5), (7, 5), 1.0, (7, 5)),
    ],
)
def test_the_size_before_the_cut(picture: Any, size: Any, cover: float, expected: Any) -> None:
    assert scaled(*picture, size, cover) == expected


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (3, 5), (64, 64)])
def test_the_middle_of_a_picture_of_any_size(shape: tuple[int, int], tmp_path: Path) -> None:
    """As torchvision's Resize(8) and CenterCrop(6) do on Pillow's pictures."""
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    short, long = min(shape), max(shape)
    sides = (8, int(8 * long / short)) if shape[0] <= shape[1] else (int(8 * long / short), 8)
    small = np.asarray(image.resize(sides[::-1], Image.Resampling.BILINEAR))
    top, left = (round((side - SIDE) / 2) for side in sides)
    right = as_chw(small[top : top + SIDE, left : left + SIDE])
    np.testing.assert_array_equal(read(tmp_path, how=Preparation(resize=8))["x"][0], right)


def grid(folder: Path, *names: str) -> None:
    """Pictures of one grey each, by number."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (number, number, number)).save(folder / name)


def numbers(found: dict[str, np.ndarray]) -> list[int]:
    return [round(255 * float(x[0, 0, 0])) for x in found["x"]]


def test_pictures_come_in_the_order_of_their_paths_a_few_at_a_time(tmp_path: Path) -> None:
    grid(tmp_path, *(f"{i:03}.png" for i in range(TOGETHER + 3)))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "thumb.png").write_bytes(b"")
    pictures = Pictures(tmp_path, spec(), CalibrationError, EXACT)
    assert [len(b["x"]) for b in pictures] == [TOGETHER, 3] and pictures.rows == TOGETHER + 3
    assert numbers(read(tmp_path)) == [*range(TOGETHER + 3)]
    assert not pictures.has_labels
    for most, expected in ((1, [9]), (3, [3, 9, 15]), (100, [*range(19)])):
        assert numbers(read(tmp_path, most=most)) == expected


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["cat/2.png", "ant/1.png", "cat/1.png", "bee/9.png"], [0, 1, 2, 2]),
        (["1/a.png", "10/a.png", "2/a.png"], [0, 1, 2]),
        (["cat/1.png", "dog/1.png", "loose.png"], None),
        (["all/1.png", "all/2.png"], None),
        (["train/cat/1.png", "train/dog/1.png", "test/cat/1.png"], None),
    ],
    ids=["classes", "as text", "loose ones", "one folder", "deeper"],
)
def test_folders_of_classes_give_labels(names: list[str], labels: list[int] | None, tmp_path: Path) -> None:
    grid(tmp_path, *names)
    found = read(tmp_path)
    assert len(found["x"]) == len(names)
    assert numbers(found) == [i for _, i in sorted((tuple(n.split("/")), i) for i, n in enumerate(names))]
    assert (found["labels"].tolist() if "labels" in found else None) == labels


def truncated(path: Path) -> None:
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: p.write_bytes(b""), "cannot identify image file"),
        (lambda p: p.write_text("<html>"), "cannot identify image file"),
        (truncated, "truncated"),
    ],
    ids=["empty", "text", "truncated"],
)
def test_a_picture_that_cannot_be_read_is_named(spoil: Any, said: str, tmp_path: Path) -> None:
    grid(tmp_path, "a.jpg")
    spoil(tmp_path / "b.jpg")
    with pytest.raises(CalibrationError, match=rf"b\.jpg cannot be read as a picture: .*{said}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("specs", "how", "said"),
    [
        (spec(7), {}, r"no axis of x: float32 \(\?, 7, 6, 6\) holds the channels of pictures: 1 or 3"),
        (spec(), {"layout": "nhwc"}, "no axis of .* in the layout nhwc"),
        (spec(3, last=True, side=3), {"resize": 3}, "may be its second axis or its last; say which"),
        (spec(side=None), {}, "takes pictures of any size; say which"),
        (spec(), {"size": (8, 8)}, r"pictures of 8 x 8 do not fit x: float32 \(\?, 3, 6, 6\)"),
        (spec(), {"resize": 5}, "resized to 5 are smaller than their crop of 6 x 6"),
        (spec(dtype="uint8"), {"mean": (0.5,)}, "takes pixels as they are; leave mean and std out"),
        (spec(1), {"mean": (0.1, 0.2, 0.3)}, "takes grey pictures; give one number"),
        (spec() * 2, {}, "models with one input of four axes"),
        (spec(dtype="int64"), {}, "models with one input of four axes, floats or bytes"),
    ],
)
def test_models_and_preparations_that_do_not_fit(specs: Any, how: Any, said: str, tmp_path: Path) -> None:
    grid(tmp_path, "a.png")
    with pytest.raises(CalibrationError, match=said):
        read(tmp_path, specs, Preparation(**how))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"size": (0, 4)}, "size"),
        ({"size": 224}, "size"),
        ({"mean": (0.1, 0.2)}, "one number, or one for red, green and blue"),
        ({"mean": (float("nan"),)}, "mean"),
        ({"mean": (127.0,)}, "lies outside pixels of 0 to 1; say that they run to 255"),
        ({"std": (0.0,)}, "std"),
        ({"top": 2}, "top"),
        ({"layout": "NCHW"}, "layout"),
    ],
)
def test_a_preparation_checks_itself(how: Any, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        Preparation(**how)


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(CalibrationError, match=r"holds no picture \(\.jpg"):
        read(tmp_path)
