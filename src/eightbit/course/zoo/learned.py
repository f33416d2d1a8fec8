"""Int8 models of the course that were trained in the integers that they run in: small files, and how each was made.

In: the name of a model in the catalog, what is pruned, bits, a schedule. Out: `checkpoints/NAME.onnx`, which
`eightbit.open` reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eightbit.course import datasets
from eightbit.course.zoo.catalog import CHECKPOINTS, find, pick, require_torch
from eightbit.errors import LoadError

if TYPE_CHECKING:
    from eightbit.model import QuantizedModel

CALIBRATION = 512  # pictures


@dataclass(frozen=True)
class Learned:
    """One model: `start` of the catalog, quantized to `bits` (weights, activations), then trained as `epochs` ... say.

    Before that `branches` of the residual ones go, and channels until the share `macs` of the multiplications is left,
    each group a multiple of `multiple`, and the share `zeros` of the weights becomes zero; these stay so. The float
    network teaches. Weights begin with the scales of the least squared error (`trainable` says why). Pictures are not
    shifted or flipped: that teaches the few codes less in the same time. With `in_float` all of the training comes
    before the rounding, its layers in bfloat16: zeros that take many passes have them there in a third of the time.
    """

    name: str
    summary: str
    start: str
    bits: tuple[int, int]
    epochs: int
    rate: float
    scale_rate: float = 1e-2
    average: float = 0.995
    macs: float = 1.0
    branches: int = 0
    multiple: int = 4
    zeros: float = 0.0
    in_float: bool = False

    @property
    def checkpoint(self) -> Path:
        """Where the int8 model lies."""
        return CHECKPOINTS / f"{self.name}.onnx"

    def load(self) -> QuantizedModel:
        """The model. Raises LoadError if there is no file yet, or it does not open."""
        from eightbit.model import open as open_int8

        if not self.checkpoint.is_file():
            raise LoadError(
                f"there is no checkpoint {self.checkpoint}; run: python -m eightbit.course.zoo train {self.name}"
            )
        return open_int8(self.checkpoint)

    def train(
        self, *, say: Callable[[str, int], None] | None = None, resume: Path | None = None
    ) -> QuantizedModel:
        """Make the model anew, in a few minutes. With `resume`, a file that keeps each epoch, a killed run goes on."""
        require_torch()
        import torch

        from eightbit.course.zoo.score import logits
        from eightbit.model import quantize
        from eightbit.pruning.prune import prune
        from eightbit.pruning.sparsity import Sparsity
        from eightbit.quant.choose.recipe import Activations, Recipe, Weights
        from eightbit.quant.methods.calibrators import MSE
        from eightbit.train.fit import fit
        from eightbit.train.trainable import trainable
        from eightbit.train.training import Training

        entry, split = find(self.start), datasets.fashion_mnist().train
        teacher, calibration = entry.load(), entry.preprocess(split.images[:CALIBRATION])
        recipe = Recipe(Weights(bits=self.bits[0], range=MSE()), Activations(bits=self.bits[1]))
        training = Training(
            epochs=self.epochs,
            rate=self.rate,
            scale_rate=self.scale_rate,
            average=self.average,
            bfloat16=self.in_float,
            sparsity=Sparsity(self.zeros, adaptive=self.in_float) if self.zeros else None,
        )
        data = entry.preprocess(split.images), split.labels
        told = logits(teacher, entry, split.images)
        student: Any = teacher
        if self.in_float:
            student.to(memory_format=torch.channels_last)
            fit(student, data, training, teacher=told, checkpoint=resume, progress=say)
            student = prune(student, calibration, sparsity=self.zeros, compensate=False)
            return quantize(student, calibration, recipe)
        if self.macs < 1:
            student = prune(
                student, calibration, macs=self.macs, branches=self.branches, multiple=self.multiple
            )
        if self.zeros:
            student = prune(student, calibration, sparsity=self.zeros)
        module = trainable(student, calibration, recipe)
        fit(module, data, training, teacher=told, checkpoint=resume, progress=say)
        return quantize(module)

    def train_and_save(self, path: Path, say: Callable[[str, int], None]) -> float:
        """Train, write the model to `path`, and return the share of the 10,000 test images that it names rightly."""
        from eightbit.course.zoo.score import accuracy

        q = self.train(say=say)
        q.save(path)
        return accuracy(q, find(self.start), datasets.fashion_mnist().test)


LEARNED: dict[str, Learned] = {
    entry.name: entry
    for entry in (
        Learned(
            "resnet8_w2a8",
            "ResNet-8 with weights of two bits, trained in its own integers",
            "resnet8",
            bits=(2, 8),
            epochs=3,
            rate=1e-2,
        ),
        Learned(
            "resnet8_pruned",
            "ResNet-8 with half of the multiplications, a residual branch and channels removed, then trained",
            "resnet8",
            bits=(8, 8),
            epochs=4,
            rate=5e-3,
            scale_rate=3e-3,
            average=0.99,
            macs=0.5,
            branches=1,
            multiple=16,
        ),
        Learned(
            "resnet8_sparse",
            "ResNet-8 with nine of ten weights zero",
            "resnet8",
            bits=(8, 8),
            epochs=12,
            rate=5e-3,
            average=0.0,
            zeros=0.9,
            in_float=True,
        ),
        Learned(
            "resnet8_small",
            "ResNet-8 with channels removed, weights zero, the others of four bits",
            "resnet8",
            bits=(4, 8),
            epochs=2,
            rate=5e-3,
            scale_rate=3e-3,
            average=0.99,
            macs=0.6,
            zeros=0.6,
        ),
    )
}


def find_learned(name: str) -> Learned:
    """The entry called `name`. Raises LoadError if there is none; the message lists the names."""
    return pick(LEARNED, name, "int8 model")
