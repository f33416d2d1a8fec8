"""How a quantized model is refined: a value, for `refine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from eightbit.values.fields import Above, AtLeast, Between, check


@dataclass(frozen=True)
class Refinement:
    """How long and how fast to learn: about `steps` steps of Adam, `batch` samples each.

    `rate` is that of weights and biases, `scale_rate` that of scales, as in `Training`. The share `held_out` of the
    samples is not learned from: it decides which of the models on the way is kept. `seed` draws it and the batches.
    """

    steps: Annotated[int, Between(1, 10**6)] = 300
    batch: Annotated[int, Between(1, 10**6)] = 32
    rate: Annotated[float, Between(1e-9, 10)] = 2e-3
    scale_rate: Annotated[float, Between(0, 10)] = 1e-3
    held_out: Annotated[float, Above(0), Between(0, 0.9)] = 0.25
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        check(self)
