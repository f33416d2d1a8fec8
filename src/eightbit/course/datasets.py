"""Labelled images for training, calibration and tests: Fashion-MNIST, CIFAR-10, scikit-learn's digits.

Pictures for the ImageNet models are in `eightbit.course.pictures` and sentences for language models in
`eightbit.course.docstrings`, whose functions are offered here too.
"""

from __future__ import annotations

import gzip
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eightbit.course.docstrings import Docstring, Passages, docstring_split, docstrings
from eightbit.course.fetch import Archive, locate
from eightbit.course.pictures import Crops, imagenet_classes, imagenet_crops, pictures
from eightbit.errors import LoadError, MissingExtra

__all__ = [
    "Crops",
    "Docstring",
    "ImageDataset",
    "Passages",
    "Split",
    "cifar10",
    "digits",
    "docstring_split",
    "docstrings",
    "fashion_mnist",
    "imagenet_classes",
    "imagenet_crops",
    "pictures",
]

FASHION_MNIST = Archive(
    name="fashion-mnist",
    digests={
        "train-images-idx3-ubyte.gz": "sha256:b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
        "train-labels-idx1-ubyte.gz": "sha256:0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
        "t10k-images-idx3-ubyte.gz": "sha256:cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
        "t10k-labels-idx1-ubyte.gz": "sha256:8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
    },
    url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    debian_package="dataset-fashion-mnist",
)
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# The binary version, for the Python version is a pickle, and a pickle runs code. MD5 is what its page publishes.
CIFAR10 = Archive(
    name="cifar-10",
    digests={"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"},
    url="https://www.cs.toronto.edu/~kriz",
)
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, H, W) or (N, H, W, C) and labels int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageDataset:
    """A data set in two splits; label `i` means `classes[i]`."""

    train: Split
    test: Split
    classes: tuple[str, ...]


def fashion_mnist() -> ImageDataset:
    """Fashion-MNIST: 60,000 and 10,000 grey pictures of clothes, uint8 (N, 28, 28), in 10 classes.

    Source: Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747 (MIT licence).

    Raises:
        LoadError: the files are neither in the cache, nor in Debian's package, nor to be downloaded.
    """
    folder = locate(FASHION_MNIST)

    def split(prefix: str) -> Split:
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        return Split(images, labels.astype(np.int64))

    return ImageDataset(split("train"), split("t10k"), FASHION_CLASSES)


def cifar10() -> ImageDataset:
    """CIFAR-10: 50,000 and 10,000 colour pictures, uint8 (N, 32, 32, 3), in 10 classes; downloaded on first use.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".

    Raises:
        LoadError: the file is neither in the cache nor to be downloaded.
    """
    path = locate(CIFAR10) / "cifar-10-binary.tar.gz"
    with tarfile.open(path) as archive:

        def batch(name: str) -> NDArray[np.uint8]:
            member = archive.extractfile(f"cifar-10-batches-bin/{name}.bin")
            if member is None:
                raise LoadError(f"{path} holds no regular file {name}.bin; delete it and load again")
            return np.frombuffer(member.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32)

        train = np.concatenate([batch(f"data_batch_{i}") for i in range(1, 6)])
        test = batch("test_batch")

    def split(rows: NDArray[np.uint8]) -> Split:
        images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return Split(np.ascontiguousarray(images), rows[:, 0].astype(np.int64))

    return ImageDataset(split(train), split(test), CIFAR10_CLASSES)


def digits() -> ImageDataset:
    """Scikit-learn's 1,797 handwritten digits, uint8 (N, 8, 8) with values 0..16; the last 360 are the test split.

    Source: Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits".

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra("scikit-learn", "course") from None
    bunch = load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    cut = len(labels) - 360
    return ImageDataset(
        Split(images[:cut], labels[:cut]), Split(images[cut:], labels[cut:]), tuple("0123456789")
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes: magic 00 00 08 rank, big-endian sizes, then the data (Lecun, MNIST page).

    Raises:
        LoadError: the file is no IDX file of bytes, or its length disagrees with its header.
    """
    try:
        with gzip.open(path) as file:
            raw = file.read()
    except (OSError, EOFError) as error:
        raise LoadError(f"{path} is not a readable gzip file ({error}); delete it and load again") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise LoadError(
            f"{path} starts with {raw[:4].hex()}, expected 000008 and a rank: not an IDX file of bytes"
        )
    rank = raw[3]
    header = 4 + 4 * rank
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank))
    if len(raw) != header + int(np.prod(shape)):
        raise LoadError(f"{path} holds {len(raw) - header} bytes of data, its header says shape {shape}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
