"""Pictures in a folder -> batches for a model, read a few at a time.

Each picture is turned upright (EXIF), made RGB or grey as the model has 3 channels or 1 (transparency is dropped),
scaled with its proportions kept until it covers the model's height and width and a margin, and cut to them in the
middle; then its pixels p of 0 to 255 become

    x = (p * top / 255 - mean) / std.                                                                            (1)

That is what the evaluation of models on ImageNet does (torchvision's Resize, CenterCrop, ToTensor, Normalize).
Pictures that lie in folders of their class bring labels: the place of their folder among the sorted names.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from eightbit.data.given import LABELS
from eightbit.data.specs import TensorSpec
from eightbit.errors import EightbitError, EngineError, MissingExtra
from eightbit.values.fields import Above, AtLeast, OneOf, check

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
TOGETHER = 16
"""Pictures in a batch."""
COVER = 256 / 224
"""How much larger than its crop a picture is made, unless told otherwise: the ratio of ImageNet's evaluation."""

Side = Annotated[int, AtLeast(1)]


@dataclass(frozen=True)
class Preparation:
    """How pictures become numbers; what is None is read off the model's input.

    `size` is (height, width); `resize` the length that the shorter of the two sides has before the picture is cut, 256
    for 224 unless given. `mean` and `std` are one number or one a channel, for pixels that run from 0 to `top`, 1 or
    255. `layout` says where the channels are, `bgr` puts blue first. Raises EngineError.
    """

    size: tuple[Side, Side] | None = None
    resize: Side | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, Above(0)], ...] = (1.0,)
    top: Annotated[int, OneOf(1, 255)] = 1
    layout: Literal["nchw", "nhwc"] | None = None
    bgr: bool = False

    def __post_init__(self) -> None:
        check(self, EngineError)
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, 3):
                raise EngineError(
                    f"{name}={getattr(self, name)}: give one number, or one for red, green and blue each"
                )
        if self.top == 1 and max(map(abs, self.mean)) > 1:
            raise EngineError(f"mean={self.mean} lies outside pixels of 0 to 1; say that they run to 255")


@dataclass(frozen=True)
class _Target:
    """What a model's input asks for: its name, size, channels and their axis, and whether it takes raw bytes.

    Pictures are made `cover` times as large as needed before they are cut.
    """

    name: str
    size: tuple[int, int]
    cover: float
    channels: int
    first: bool
    raw: bool

    @classmethod
    def of(cls, specs: Sequence[TensorSpec], how: Preparation, error: type[EightbitError]) -> _Target:
        if len(specs) != 1 or len(specs[0].shape) != 4 or specs[0].dtype.kind not in "fu":
            raise error(
                "pictures are for models with one input of four axes, floats or bytes; this one takes "
                f"{'; '.join(map(str, specs))}; give an .npz file"
            )
        spec = specs[0]
        fitting = [
            layout
            for layout, axis in (("nchw", 1), ("nhwc", 3))
            if spec.shape[axis] in (1, 3, None) and how.layout in (None, layout)
        ]
        known = [layout for layout in fitting if spec.shape[1 if layout == "nchw" else 3] is not None]
        chosen = known if len(known) == 1 else fitting
        if not chosen:
            raise error(f"no axis of {spec} holds the channels of pictures{_in(how.layout)}: 1 or 3")
        if len(chosen) > 1:
            raise error(f"the channels of {spec} may be its second axis or its last; say which (nchw, nhwc)")
        first = chosen[0] == "nchw"
        channels = spec.shape[1 if first else 3]
        own = (spec.shape[2], spec.shape[3]) if first else (spec.shape[1], spec.shape[2])
        size = how.size or own
        if None in size:
            raise error(f"{spec} takes pictures of any size; say which")
        if any(mine not in (None, given) for mine, given in zip(own, size, strict=True)):
            raise error(f"pictures of {size[0]} x {size[1]} do not fit {spec}")
        cover = COVER if how.resize is None else how.resize / min(size)  # type: ignore[type-var, operator]
        if cover < 1:
            raise error(
                f"pictures resized to {how.resize} are smaller than their crop of {size[0]} x {size[1]}"
            )
        raw = spec.dtype.kind == "u"
        if raw and (how.mean, how.std) != ((0.0,), (1.0,)):
            raise error(f"{spec} takes pixels as they are; leave mean and std out")
        if channels == 1 and (len(how.mean), len(how.std)) != (1, 1):
            raise error(f"{spec} takes grey pictures; give one number for mean and std")
        return cls(spec.name, (size[0], size[1]), cover, channels or 3, first, raw)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Pictures:
    """The pictures below `path`, a folder or a single file, as batches for a model with inputs `specs`.

    They come in the order of their paths. What begins with a dot and what does not end as pictures do is passed over.
    Where every picture lies in one of several folders in `path`, these are taken for classes, and batches carry labels.
    At most `most` pictures are read, spread evenly over all. `error` is what a file that cannot be read raises, and a
    folder without pictures.
    """

    path: Path
    specs: Sequence[TensorSpec]
    error: type[EightbitError]
    how: Preparation = Preparation()
    most: int | None = None

    @cached_property
    def _below(self) -> tuple[tuple[str, ...], ...]:
        """The paths of all pictures below the folder, as parts."""
        found: list[tuple[str, ...]] = []
        for folder, inner, names in os.walk(self.path):
            inner[:] = [name for name in inner if not name.startswith(".")]
            found += [
                (*Path(folder).relative_to(self.path).parts, name) for name in names if is_picture(name)
            ]
        if not found:
            raise self.error(f"{self.path} holds no picture ({', '.join(ENDINGS)})")
        return tuple(sorted(found))

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The pictures that are read."""
        if not self.path.is_dir():
            return (self.path,)
        count = len(self._below)
        most = count if self.most is None else min(self.most, count)
        return tuple(self.path.joinpath(*self._below[(2 * i + 1) * count // (2 * most)]) for i in range(most))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the folders that are taken for classes, sorted; empty where there are no such folders."""
        if not self.path.is_dir() or {len(parts) for parts in self._below} != {2}:
            return ()
        folders = sorted(f.name for f in self.path.iterdir() if f.is_dir() and not f.name.startswith("."))
        return tuple(folders) if len(folders) > 1 else ()

    @property
    def rows(self) -> int:
        """The number of pictures that are read."""
        return len(self.files)

    @property
    def has_labels(self) -> bool:
        """Whether batches carry labels."""
        return bool(self.classes)

    @cached_property
    def _target(self) -> _Target:
        return _Target.of(self.specs, self.how, self.error)

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the batches. Raises `error`, naming the file, or MissingExtra."""
        places = {name: place for place, name in enumerate(self.classes)}
        for start in range(0, self.rows, TOGETHER):
            files = self.files[start : start + TOGETHER]
            batch: dict[str, NDArray[Any]] = {self._target.name: np.stack([self._read(f) for f in files])}
            if places:
                folders = (file.relative_to(self.path).parts[0] for file in files)
                batch[LABELS] = np.array([places[folder] for folder in folders])
            yield batch

    def _read(self, file: Path) -> NDArray[Any]:
        """One picture as the model takes it."""
        target, how = self._target, self.how
        pixels: NDArray[Any] = self._pixels(file)
        if how.bgr:
            pixels = pixels[..., ::-1]
        if not target.raw:
            x = pixels.astype(np.float32) / np.float32(255 / how.top)
            pixels = (x - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1) if target.first else pixels)

    def _pixels(self, file: Path) -> NDArray[np.uint8]:
        """The middle of a picture, (height, width, channels)."""
        try:
            from PIL import Image, ImageOps
        except ImportError:
            raise MissingExtra("Pillow", "pictures") from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(file) as opened:
                    image: Any = ImageOps.exif_transpose(opened)
                    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
                        narrow = np.clip(np.round(np.asarray(image) / 257), 0, 255)
                        image = Image.fromarray(narrow.astype(np.uint8))
                    image = image.convert("L" if self._target.channels == 1 else "RGB")
        except Exception as cause:
            reason = str(cause).partition("\n")[0] or type(cause).__name__
            raise self.error(f"{file} cannot be read as a picture: {reason}") from cause
        height, width = self._target.size
        box = scaled(image.height, image.width, self._target.size, self._target.cover)
        image = image.resize(box[::-1], Image.Resampling.BILINEAR)
        top, left = round((box[0] - height) / 2), round((box[1] - width) / 2)
        cut = np.asarray(image.crop((left, top, left + width, top + height)))
        return cut[..., None] if cut.ndim == 2 else cut


def scaled(height: int, width: int, size: tuple[int, int], cover: float) -> tuple[int, int]:
    """Height and width of a picture that is to be cut to `size`: its proportions, `cover` times as large as needed.

    >>> scaled(480, 640, (224, 224), 256 / 224)
    (256, 341)
    """
    least = round(cover * size[0]), round(cover * size[1])
    if least[0] * width >= least[1] * height:  # the height is what is short
        return least[0], max(least[1], int(least[0] * width / height))
    return max(least[0], int(least[1] * height / width)), least[1]


def is_picture(name: str) -> bool:
    """Whether a file of this name is taken for a picture."""
    return not name.startswith(".") and name.lower().endswith(ENDINGS)


def _in(layout: str | None) -> str:
    return "" if layout is None else f" in the layout {layout}"
