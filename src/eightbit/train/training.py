"""How to train, and how it went: values, for `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from eightbit.pruning.sparsity import Sparsity
from eightbit.values.fields import AtLeast, Between, check
from eightbit.values.frozen_map import FrozenMap


@dataclass(frozen=True)
class Training:
    """How to train: `epochs` passes over the data in batches of `batch` (where the data are arrays), by Adam.

    `rate` is the peak of the learning rate of weights and biases, which rises for `warmup` of the time and falls to
    zero as a cosine; in a `Trainable` a weight is counted in the largest of its channel. That of scales is
    `scale_rate`, a relative change. `weight_decay` draws weights to zero, in a `Trainable` to the codes that it started
    from. `smoothing` of labels is that of Szegedy et al.
    2016. `weight` is the teacher's share of the loss, at `temperature`, and `features` pairs tensors of the student
    with those of the teacher, at `feature_weight` (`loss`). With `average`, an exponential average of the parameters
    over some 1 / (1 - average) steps is what remains in the end. For the last part `frozen` of the time a `Trainable`
    normalizes no more (its `freeze`), and the average begins anew. With `bfloat16` the layers of a float module compute
    in that format (autocast), faster on processors that have it; parameters and the loss stay float32. `seed` decides
    the order of the samples. `sparsity` sets weights to zero on the way, and keeps those that are zero when the
    training begins: the zero codes of a `Trainable`, too.
    """

    epochs: Annotated[int, Between(1, 10**6)] = 5
    batch: Annotated[int, Between(1, 10**6)] = 128
    rate: Annotated[float, Between(1e-9, 10)] = 1e-3
    scale_rate: Annotated[float, Between(0, 10)] = 1e-3
    warmup: Annotated[float, Between(0, 1)] = 0.05
    weight_decay: Annotated[float, Between(0, 10)] = 0.0
    smoothing: Annotated[float, Between(0, 1)] = 0.0
    weight: Annotated[float, Between(0, 1)] = 0.9
    temperature: Annotated[float, Between(1e-3, 1e3)] = 4.0
    features: Mapping[str, str] = FrozenMap()
    feature_weight: Annotated[float, Between(0, 1e6)] = 1.0
    average: Annotated[float, Between(0, 1)] = 0.0
    frozen: Annotated[float, Between(0, 1)] = 0.0
    bfloat16: bool = False
    seed: Annotated[int, AtLeast(0)] = 0
    sparsity: Sparsity | None = None

    def __post_init__(self) -> None:
        check(self)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as plain values."""
        return asdict(self) | {"features": dict(self.features)}


@dataclass(frozen=True)
class Epoch:
    """One pass: the mean loss, what `evaluate` said, and the share of the samples that were answered right in passing.

    The last two are None without `evaluate` and without labels.
    """

    number: int
    loss: float
    quality: float | None
    accuracy: float | None = None

    @property
    def measured(self) -> dict[str, float]:
        """What was measured, by name."""
        parts = {"loss": self.loss, "accuracy": self.accuracy, "quality": self.quality}
        return {name: value for name, value in parts.items() if value is not None}

    def __str__(self) -> str:
        return f"epoch {self.number}: {', '.join(f'{name} {x:.4f}' for name, x in self.measured.items())}"


@dataclass(frozen=True)
class History:
    """Every epoch of a training, those of earlier runs that it resumed included."""

    epochs: tuple[Epoch, ...]
    training: Training

    def __str__(self) -> str:
        return "\n".join(map(str, self.epochs))
