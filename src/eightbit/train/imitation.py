"""A quantized model that learns to answer as its float model does; the best of the models on the way is kept.

In: a quantized model, its teacher, samples to learn from and others to judge by. Out: the model with the least error
(equation 1 of `refine`) on the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eightbit.data.feeds import Feeds
from eightbit.data.samples import Samples
from eightbit.errors import QuantizationError
from eightbit.model import Model, QuantizedModel
from eightbit.quant.observe.calibrate import Progress
from eightbit.train.fit import fit
from eightbit.train.refinement import Refinement
from eightbit.train.torch_module import Trainable
from eightbit.train.training import Training

AVERAGE = 0.9
"""Of the learned numbers, over some ten steps: what a single batch says of a code is mostly chance."""


class Imitation:
    """A pupil of `teacher` that begins as `q`. `found` cuts and joins the samples."""

    def __init__(self, q: QuantizedModel, teacher: Model, found: Samples, how: Refinement) -> None:
        self.module, self.teacher, self.found, self.how = Trainable(q), teacher, found, how
        self.module.freeze()  # the few samples of a batch do not say what is normal
        self.judged: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = []
        self.powers: list[float] = []
        self.least, self.state = math.inf, dict[str, Any]()

    def run(
        self, held_out: Sequence[Feeds], learned: Sequence[Feeds], *, progress: Progress | None
    ) -> tuple[float, float, QuantizedModel | None]:
        """SQNR of the outputs in dB on the samples held out, before and after, and the model; None if none is better.

        Raises QuantizationError for a model without outputs in float that are not all zero.
        """
        for feeds in self.found.together(held_out, self.how.batch):
            inputs = self.inputs(feeds)
            told = _tuple(self.teacher(*(x.numpy() for x in inputs)))
            self.judged.append((inputs, tuple(map(torch.as_tensor, told))))
        self.powers = [_power(arrays) for arrays in zip(*(told for _, told in self.judged), strict=True)]
        if not any(self.powers):
            raise QuantizationError(
                "the model gives no floats other than zero; there is nothing to learn from"
            )
        before = self.least = self._error(self.module.eval())
        if before > 0:
            batches = _Shuffled(self, learned)
            training = Training(
                epochs=math.ceil(self.how.steps / len(batches)),
                rate=self.how.rate,
                scale_rate=self.how.scale_rate,
                average=AVERAGE,
                seed=self.how.seed,
            )
            fit(
                self.module,
                batches,
                training,
                teacher=self.teacher,
                loss=self._loss,
                evaluate=self._keep,
                progress=progress,
            )
        if not self.state:
            return _db(before), _db(before), None
        self.module.load_state_dict(self.state)
        return _db(before), _db(self.least), self.module.quantized()

    def inputs(self, feeds: Feeds) -> tuple[Tensor, ...]:
        """The inputs of a run in the model's order."""
        return tuple(torch.from_numpy(feeds[spec.name]) for spec in self.teacher.inputs)

    def _loss(self, said: Any, told: Any) -> Tensor:
        """The error of a batch: squares relative to the outputs' power on the samples held out, summed over outputs."""
        pairs = zip(_tuple(said), _tuple(told), self.powers, strict=True)
        return sum(((y - t).square().mean() / power for y, t, power in pairs if power), torch.zeros(()))

    def _error(self, module: torch.nn.Module) -> float:
        """The error on the samples held out, each with the same weight."""
        with torch.no_grad():
            found = [
                (float(self._loss(module(*inputs), told)), len(inputs[0])) for inputs, told in self.judged
            ]
        return float(np.average([error for error, _ in found], weights=[count for _, count in found]))

    def _keep(self, module: torch.nn.Module) -> float:
        """Remember the module if it is the best so far; the SQNR in dB, for the history."""
        error = self._error(module)
        if error < self.least:
            self.least, self.state = error, {n: v.clone() for n, v in module.state_dict().items()}
        return _db(error)


class _Shuffled:
    """Batches of samples, joined anew in every pass; those of one shape go together, so that none is alone."""

    def __init__(self, pupil: Imitation, runs: Sequence[Feeds]) -> None:
        self.pupil, self.runs = pupil, runs
        self.random = np.random.default_rng(pupil.how.seed)
        self.length = len(self._batches())

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        batches = self._batches()
        for i in self.random.permutation(len(batches)):
            yield self.pupil.inputs(batches[i])

    def _batches(self) -> list[Feeds]:
        drawn = [self.runs[i] for i in self.random.permutation(len(self.runs))]
        alike = sorted(drawn, key=lambda feeds: [array.shape for array in feeds.values()])
        return list(self.pupil.found.together(alike, self.pupil.how.batch))


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _power(arrays: Sequence[Tensor]) -> float:
    """The mean square of an output over its batches; 0 for one of integers, which has no error to learn from."""
    if not arrays[0].is_floating_point():
        return 0.0
    return sum(float(a.double().square().sum()) for a in arrays) / sum(a.numel() for a in arrays)


def _db(error: float) -> float:
    return -10 * math.log10(error) if error > 0 else math.inf
