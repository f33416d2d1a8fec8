"""The training loop of the course, for a `Trainable` and for any other torch module: labels, a teacher, or both.

In: a module, data, a `Training`. Out: the module, trained in place, and a `History`. After every epoch the whole state
can go to a checkpoint, which appears whole or not at all: a run that is killed goes on from its last finished epoch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from eightbit.data.given import is_array
from eightbit.errors import LoadError, QuantizationError
from eightbit.files import write_whole
from eightbit.quant.observe.calibrate import Progress
from eightbit.train.loss import feature_loss, output_loss, soft_loss, task_loss
from eightbit.train.torch_module import Trainable
from eightbit.values.fields import AtLeast, Between, argument, check
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
    over some 1 / (1 - average) steps is what remains in the end. `seed` decides the order of the samples.
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
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Epoch:
    """One pass: the mean loss, and what `evaluate` said, or None."""

    number: int
    loss: float
    quality: float | None


@dataclass(frozen=True)
class History:
    """Every epoch of a training, those of earlier runs that it resumed included."""

    epochs: tuple[Epoch, ...]
    training: Training

    def __str__(self) -> str:
        lines = [
            f"epoch {e.number}: loss {e.loss:.4f}"
            + ("" if e.quality is None else f", quality {e.quality:.4f}")
            for e in self.epochs
        ]
        return "\n".join(lines)


def fit(
    module: nn.Module,
    data: Any,
    training: Training | None = None,
    *,
    teacher: Callable[..., Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    tensorboard: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> History:
    """Train `module` in place and leave it in eval mode.

    `data` is a pair of arrays (inputs, labels), one array of inputs alone, or an iterable of batches that can be
    repeated, such as a DataLoader, of (inputs..., labels) or, with a `teacher` and no labels, of inputs. `teacher` is
    called with the inputs and gives what the module should give: a float module, an `eightbit.Model`. `loss` of the
    module's and the teacher's outputs, as they give them, takes the place of the soft targets. `evaluate` is called
    after every epoch. A `checkpoint` that exists is resumed. Raises QuantizationError for data without labels
    and without a teacher, and for a loss that is not finite; LoadError for a checkpoint of another training.
    """
    chosen = argument("training", training, Training | None) or Training()
    if not isinstance(module, nn.Module):
        raise QuantizationError(
            f"fit trains torch modules, not a {type(module).__name__}; train a Keras model by its own compile and fit"
        )
    torch.manual_seed(chosen.seed)
    loop = _Loop(module, data, chosen, teacher, loss)
    if checkpoint is not None and Path(checkpoint).exists():
        loop.resume(Path(checkpoint))
    writer = None if tensorboard is None else _writer(tensorboard)
    while len(loop.epochs) < chosen.epochs:
        loop.epoch(progress)
        quality = None
        if evaluate is not None:
            with _averaged(module, loop.average):
                quality = float(evaluate(module.eval()))
        number, mean = len(loop.epochs) + 1, float(np.mean(loop.losses))
        loop.epochs.append(Epoch(number, mean, quality))
        if checkpoint is not None:
            loop.save(Path(checkpoint))
        if writer is not None:
            writer.add_scalar("loss", mean, number)
            if quality is not None:
                writer.add_scalar("quality", quality, number)
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
        teacher: Callable[..., Any] | None,
        loss: Callable[[Any, Any], Tensor] | None,
    ) -> None:
        self.module, self.training, self.given = module, training, loss or self._soft
        self.data = _Batches(data, training, labelled=teacher is None or _is_pair(data))
        self.teacher = None if teacher is None else _Teacher(teacher, training.features)
        self.student = _Hooks(module, training.features.keys()) if training.features else None
        self.optimizer = torch.optim.Adam(_groups(module, training))
        self.epochs: list[Epoch] = []
        self.losses: list[float] = []
        self.steps = 0
        self.average = (
            {n: p.detach().clone() for n, p in module.named_parameters()} if training.average else None
        )

    def epoch(self, progress: Progress | None) -> None:
        """One pass over the data."""
        self.module.train()
        self.losses = []
        peak = [group["peak"] for group in self.optimizer.param_groups]
        for inputs, labels in self.data.epoch(len(self.epochs)):
            share = (len(self.epochs) + len(self.losses) / self.data.length) / self.training.epochs
            for group, rate in zip(self.optimizer.param_groups, peak, strict=True):
                group["lr"] = rate * _schedule(share, self.training.warmup)
            loss = self._loss(inputs, labels)
            if not math.isfinite(loss.item()):
                raise QuantizationError(
                    f"the loss is {loss.item()} in step {self.steps}; lower Training(rate={self.training.rate:g}), "
                    "or look for NaN in the data"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.steps += 1
            self.losses.append(loss.item())
            self._follow()
            if progress is not None:
                progress("train", self.steps)
        if not self.losses:
            raise QuantizationError("the data hold no batch in this epoch; give data that can be read again")

    def _loss(self, inputs: tuple[Tensor, ...], labels: Tensor | None) -> Tensor:
        outputs = self.module(*inputs)
        said = _first(outputs)
        total = torch.zeros((), device=said.device)
        share = 0.0
        if self.teacher is not None:
            share = 1.0 if labels is None else self.training.weight
            total = total + share * self.given(outputs, self.teacher(inputs, said.device))
            if self.student is not None:
                for mine, its in self.training.features.items():
                    pair = self.student.seen[mine], self.teacher.seen[its]
                    total = total + self.training.feature_weight * feature_loss(*pair)
        if labels is not None and share < 1.0:
            total = total + (1.0 - share) * task_loss(said, labels, self.training.smoothing)
        return total

    def _soft(self, outputs: Any, teacher: Any) -> Tensor:
        said, told = _first(outputs), _first(teacher)
        if said.ndim == 2 and said.shape[1] > 1:  # logits
            return soft_loss(said, told, self.training.temperature)
        return output_loss(said, told)

    def _follow(self) -> None:
        if self.average is None:
            return
        keep = min(self.training.average, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for name, p in self.module.named_parameters():
                self.average[name].lerp_(p.detach(), 1 - keep)

    def finish(self) -> None:
        """Leave the averaged parameters in the module."""
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
            "training": _plain(self.training),
            "random": torch.get_rng_state(),
        }
        torch.save(state, target)
        write_whole(target.getvalue(), path)

    def resume(self, path: Path) -> None:
        """Take up a state that `save` wrote. Raises LoadError."""
        try:
            state = torch.load(path, weights_only=True)
            if state["training"] != _plain(self.training):
                raise LoadError(
                    f"{path} is a checkpoint of another training, {state['training']}; take another file, or the same "
                    "Training"
                )
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.steps = state["average"], state["steps"]
            self.epochs = [Epoch(**e) for e in state["epochs"]]
            torch.set_rng_state(state["random"])
        except LoadError:
            raise
        except Exception as cause:
            raise LoadError(
                f"{path} is no checkpoint of this module ({type(cause).__name__}); delete it to begin anew"
            ) from cause


@contextmanager
def _averaged(module: nn.Module, average: Mapping[str, Tensor] | None) -> Iterator[None]:
    """The averaged parameters in a module, for a while."""
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


class _Batches:
    """Data as batches of (inputs, labels or None), in a new order every epoch where they are arrays."""

    def __init__(self, data: Any, training: Training, *, labelled: bool) -> None:
        self.data, self.training, self.labelled = data, training, labelled
        if not is_array(data) and not _is_pair(data) and iter(data) is data:
            raise QuantizationError(
                "training reads the data once an epoch; give arrays, a list or a DataLoader, not a generator"
            )
        first = data[0] if _is_pair(data) else data
        if is_array(first):
            self.length = math.ceil(len(first) / training.batch)
        else:
            self.length = len(data) if hasattr(data, "__len__") else sum(1 for _ in data)

    def epoch(self, number: int) -> Iterator[tuple[tuple[Tensor, ...], Tensor | None]]:
        """The batches of epoch `number`. Raises QuantizationError for batches without what the loss needs."""
        for batch in self._raw(number):
            parts = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
            if self.labelled and len(parts) < 2:
                raise QuantizationError("a batch has no labels; give (inputs, labels), or a teacher")
            *inputs, last = parts
            if self.labelled or (len(parts) > 1 and _integers(last)):
                yield tuple(map(torch.as_tensor, inputs)), torch.as_tensor(last).long()
            else:
                yield tuple(map(torch.as_tensor, parts)), None

    def _raw(self, number: int) -> Iterable[Any]:
        arrays = self.data if _is_pair(self.data) else (self.data,)
        if not all(map(is_array, arrays)):
            yield from self.data
            return
        if len({len(a) for a in arrays}) > 1:
            raise QuantizationError(f"inputs and labels differ in number: {[len(a) for a in arrays]}")
        random = np.random.default_rng([self.training.seed, number])
        order = random.permutation(len(arrays[0]))
        for start in range(0, len(order), self.training.batch):
            chosen = order[start : start + self.training.batch]
            yield tuple(a[chosen] for a in arrays)


class _Hooks:
    """What named parts of a module, or named tensors of a `Trainable`, last gave."""

    def __init__(self, module: nn.Module, names: Iterable[str]) -> None:
        self.seen: dict[str, Tensor] = {}
        wanted = list(names)
        if isinstance(module, Trainable):
            module.watch(wanted, self.seen)
            self.handles: list[Any] = []
            self._watched: Trainable | None = module
            return
        self._watched = None
        parts = dict(module.named_modules())
        missing = [name for name in wanted if name not in parts]
        if missing:
            raise QuantizationError(
                f"features name {missing[0]!r}, which is no part of {type(module).__name__}; its parts are "
                f"{', '.join(list(parts)[1:9])}"
            )
        self.handles = [
            parts[n].register_forward_hook(lambda _m, _i, out, n=n: self._take(n, out)) for n in wanted
        ]

    def _take(self, name: str, out: Any) -> None:
        self.seen[name] = _first(out)

    def remove(self) -> None:
        """Stop watching."""
        for handle in self.handles:
            handle.remove()
        if self._watched is not None:
            self._watched.watch([], {})


class _Teacher(_Hooks):
    """Called with inputs, gives the teacher's outputs without gradients: one bare, more as a tuple."""

    def __init__(self, teacher: Callable[..., Any], features: Mapping[str, str]) -> None:
        self.teacher = teacher.eval() if isinstance(teacher, nn.Module) else teacher
        if isinstance(teacher, nn.Module):
            super().__init__(teacher, features.values())
        elif features:
            raise QuantizationError(
                f"features need a torch module as teacher, not a {type(teacher).__name__}"
            )
        else:
            self.seen, self.handles, self._watched = {}, [], None

    def __call__(self, inputs: tuple[Tensor, ...], device: torch.device) -> Any:
        with torch.no_grad():
            if isinstance(self.teacher, nn.Module):
                told = self.teacher(*inputs)
            else:
                told = self.teacher(*(x.cpu().numpy() for x in inputs))
        if isinstance(told, tuple | list):
            return tuple(torch.as_tensor(t).to(device) for t in told)
        return torch.as_tensor(told).to(device)


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


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple | list) else value


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and all(map(is_array, data))


def _integers(value: Any) -> bool:
    kind = torch.as_tensor(value)
    return not kind.is_floating_point() and kind.ndim == 1


def _plain(training: Training) -> dict[str, Any]:
    return asdict(training) | {"features": dict(training.features)}


def _writer(folder: str | os.PathLike[str]) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(os.fspath(folder))
