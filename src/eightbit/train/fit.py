"""The training loop of the course, for a `Trainable` and for any other torch module: labels, a teacher, or both.

In: a module, data, a `Training`. Out: the module, trained in place, and a `History`. After every epoch the whole state
can go to a checkpoint, which appears whole or not at all: a run that is killed goes on from its last finished epoch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eightbit.data.given import is_array
from eightbit.errors import LoadError, QuantizationError
from eightbit.files import write_whole
from eightbit.quant.observe.calibrate import Progress
from eightbit.train.batches import Batch, Batches, is_pair
from eightbit.train.hooks import Hooks, Teacher, first
from eightbit.train.loss import feature_loss, output_loss, soft_loss, task_loss
from eightbit.train.progress import Show, shown
from eightbit.train.torch_module import Trainable
from eightbit.train.training import Epoch, History, Training
from eightbit.train.zeros import TrainedZeros
from eightbit.values.fields import argument

RECENT = 50
"""Steps whose mean loss is shown as a training goes."""


def fit(
    module: nn.Module,
    data: Any,
    training: Training | None = None,
    *,
    teacher: Any = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    tensorboard: str | os.PathLike[str] | None = None,
    progress: Progress | bool | None = None,
) -> History:
    """Train `module` in place, on the device that it is on, and leave it in eval mode.

    `data` is a pair of arrays (inputs, labels), one array of inputs alone, or an iterable of batches that can be
    repeated, such as a DataLoader, of (inputs..., labels) or, with a `teacher` and no labels, of inputs. `teacher` is
    called with the inputs and gives what the module should give: a float module, an `eightbit.Model`; or it is an array
    of what it said before, sample by sample as the inputs, and is not run again. `loss` of the module's and the
    teacher's outputs, as they give them, takes the place of the soft targets. `evaluate` is called
    after every epoch. A `checkpoint` that exists is resumed. `progress=True` draws a bar with loss, accuracy and
    quality on stderr, where that is a terminal; a function is told "train" and the steps done. Raises QuantizationError
    for data without labels and without a teacher, and for a loss that is not finite; LoadError for a checkpoint of
    another training.
    """
    chosen = argument("training", training, Training | None) or Training()
    if not isinstance(module, nn.Module):
        zeros = "" if chosen.sparsity is None else ', and a sparse one as trainable(framework="torch")'
        raise QuantizationError(
            f"fit trains torch modules, not a {type(module).__name__}; train a Keras model by its own compile and fit"
            f"{zeros}"
        )
    if chosen.bfloat16 and isinstance(module, Trainable):
        raise QuantizationError("bfloat16 cannot hold the integers of a Trainable; leave it out")
    torch.manual_seed(chosen.seed)
    loop = _Loop(module, data, chosen, teacher, loss)
    if checkpoint is not None and Path(checkpoint).exists():
        loop.resume(Path(checkpoint))
    writer = None if tensorboard is None else _writer(tensorboard)
    with shown(progress, chosen.epochs * loop.data.length) as show:
        while len(loop.epochs) < chosen.epochs:
            loop.epoch(show)
            quality = None
            if evaluate is not None:
                with _averaged(module, loop.average):
                    quality = float(evaluate(module.eval()))
            done = loop.done(quality)
            if checkpoint is not None:
                loop.save(Path(checkpoint))
            if writer is not None:
                for name, value in done.measured.items():
                    writer.add_scalar(name, value, done.number)
    if writer is not None:
        writer.close()
    loop.finish()
    return History(tuple(loop.epochs), chosen)


class _Loop:
    """The state of a training: everything that a checkpoint holds."""

    def __init__(
        self,
        module: nn.Module,
        data: Any,
        training: Training,
        teacher: Any,
        loss: Callable[[Any, Any], Tensor] | None,
    ) -> None:
        self.module, self.training, self.given = module, training, loss or self._soft
        self.device = next((p.device for p in module.parameters()), torch.device("cpu"))
        noted = teacher if is_array(teacher) else None
        self.data = Batches(data, training, labelled=teacher is None or is_pair(data), told=noted)
        self.teacher = None if teacher is None else Teacher(teacher, training.features)
        self.student = Hooks(module, training.features.keys()) if training.features else None
        self.zeros = None if training.sparsity is None else TrainedZeros(module, training.sparsity)
        self.optimizer = torch.optim.Adam(_groups(module, training))
        self.epochs: list[Epoch] = []
        self.losses: list[float] = []
        self.right: list[float] = []
        self.steps = 0
        self.average: dict[str, Tensor] | None = None
        self._average_from_here()

    def epoch(self, show: Show) -> None:
        """One pass over the data."""
        self.module.train()
        self.losses, self.right = [], []
        peak = [group["peak"] for group in self.optimizer.param_groups]
        for batch in self.data.epoch(len(self.epochs)):
            share = (len(self.epochs) + len(self.losses) / self.data.length) / self.training.epochs
            for group, rate in zip(self.optimizer.param_groups, peak, strict=True):
                group["lr"] = rate * _schedule(share, self.training.warmup)
            self._freeze(share)
            loss = self._loss(batch)
            if not math.isfinite(loss.item()):
                raise QuantizationError(
                    f"the loss is {loss.item()} in step {self.steps}; lower Training(rate={self.training.rate:g}), "
                    "or look for NaN in the data"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.zeros is not None:
                self.zeros.note()
            self.optimizer.step()
            self.steps += 1
            self.losses.append(loss.item())
            self._follow()
            if self.zeros is not None:
                self.zeros.hold(share, self.average)
            show(
                self.steps,
                self._epoch(self.losses[-RECENT:], self.epochs[-1].quality if self.epochs else None),
            )
        if not self.losses:
            raise QuantizationError("the data hold no batch in this epoch; give data that can be read again")

    def done(self, quality: float | None) -> Epoch:
        """Note the pass that has ended."""
        self.epochs.append(self._epoch(self.losses, quality))
        return self.epochs[-1]

    def _epoch(self, losses: list[float], quality: float | None) -> Epoch:
        accuracy = float(np.mean(self.right)) if self.right else None
        return Epoch(len(self.epochs) + 1, float(np.mean(losses)), quality, accuracy)

    def _loss(self, batch: Batch) -> Tensor:
        inputs, labels = tuple(x.to(self.device) for x in batch.inputs), batch.labels
        if self.training.bfloat16:
            with torch.autocast(self.device.type, torch.bfloat16):
                outputs = self.module(*inputs)
            outputs = (
                tuple(y.float() for y in outputs) if isinstance(outputs, tuple | list) else outputs.float()
            )
        else:
            outputs = self.module(*inputs)
        said = first(outputs)
        total = torch.zeros((), device=said.device)
        share = 0.0
        if self.teacher is not None:
            share = 1.0 if labels is None else self.training.weight
            told = self.teacher(inputs, said.device) if batch.told is None else batch.told.to(said.device)
            total = total + share * self.given(outputs, told)
            if self.student is not None:
                for mine, its in self.training.features.items():
                    pair = self.student.seen[mine].float(), self.teacher.seen[its]
                    total = total + self.training.feature_weight * feature_loss(*pair)
        if labels is not None:
            labels = labels.to(said.device)
            self.right += (said.detach().argmax(1) == labels).flatten().tolist()
        if labels is not None and share < 1.0:
            total = total + (1.0 - share) * task_loss(said, labels, self.training.smoothing)
        return total

    def _soft(self, outputs: Any, teacher: Any) -> Tensor:
        said, told = first(outputs), first(teacher)
        if said.ndim == 2 and said.shape[1] > 1:  # logits
            return soft_loss(said, told, self.training.temperature)
        return output_loss(said, told)

    def _freeze(self, share: float) -> None:
        """Stop normalizing when its time is over; what was averaged until then were other numbers."""
        module = self.module
        if isinstance(module, Trainable) and not module.frozen and share >= 1 - self.training.frozen:
            module.freeze()
            self._average_from_here()

    def _average_from_here(self) -> None:
        if self.training.average:
            self.average = {n: p.detach().clone() for n, p in self.module.named_parameters()}

    def _follow(self) -> None:
        if self.average is None:
            return
        keep = min(self.training.average, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for name, p in self.module.named_parameters():
                self.average[name].lerp_(p.detach(), 1 - keep)

    def finish(self) -> None:
        """Leave the averaged parameters in the module."""
        if self.zeros is not None:
            self.zeros.finish(self.average)
        _put(self.module, self.average)
        for hooks in (self.student, self.teacher):
            if hooks is not None:
                hooks.remove()
        self.module.eval()

    def save(self, path: Path) -> None:
        """Write the whole state; the file appears whole or not at all."""
        target = BytesIO()
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "epochs": [asdict(e) for e in self.epochs],
            "steps": self.steps,
            "training": self.training.to_dict(),
            "random": torch.get_rng_state(),
            "zeros": None if self.zeros is None else self.zeros.state(),
        }
        torch.save(state, target)
        write_whole(target.getvalue(), path)

    def resume(self, path: Path) -> None:
        """Take up a state that `save` wrote. Raises LoadError."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            if state["training"] != self.training.to_dict():
                raise LoadError(
                    f"{path} is a checkpoint of another training, {state['training']}; take another file, or the same "
                    "Training"
                )
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.steps = state["average"], state["steps"]
            self.epochs = [Epoch(**e) for e in state["epochs"]]
            torch.set_rng_state(state["random"].cpu())
            if self.zeros is not None:
                self.zeros.take(state["zeros"])
        except LoadError:
            raise
        except Exception as cause:
            raise LoadError(
                f"{path} is no checkpoint of this module ({type(cause).__name__}); delete it to begin anew"
            ) from cause


@contextmanager
def _averaged(module: nn.Module, average: Mapping[str, Tensor] | None) -> Iterator[None]:
    """The averaged parameters in a module, for a while; its own, where there is no average."""
    if average is None:
        yield
        return
    kept = {name: p.detach().clone() for name, p in module.named_parameters()}
    _put(module, average)
    try:
        yield
    finally:
        _put(module, kept)


def _put(module: nn.Module, values: Mapping[str, Tensor] | None) -> None:
    if values is not None:
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(values[name])


def _groups(module: nn.Module, training: Training) -> list[dict[str, Any]]:
    """Weights decay, biases and scales do not; scales have a rate of their own."""
    if isinstance(module, Trainable):
        kinds = list(module.kinds())
    else:
        kinds = [("weight" if p.ndim > 1 else "bias", p) for p in module.parameters() if p.requires_grad]
    rates = {"weight": training.rate, "bias": training.rate, "scale": training.scale_rate}
    found = []
    for kind, rate in rates.items():
        parameters = [p for own, p in kinds if own == kind]
        if parameters:
            decay = training.weight_decay if kind == "weight" else 0.0
            found.append({"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay})
    return found


def _schedule(share: float, warmup: float) -> float:
    if share < warmup:
        return max(share / warmup, 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (share - warmup) / max(1e-9, 1 - warmup)))


def _writer(folder: str | os.PathLike[str]) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(os.fspath(folder))
