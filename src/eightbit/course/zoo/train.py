"""Train a zoo model on Fashion-MNIST and write its checkpoint: one-cycle SGD, shifts and flips, averaged weights.

In: a model's name. Out: `checkpoints/NAME.safetensors` and the accuracy on the 10,000 test images.
One-cycle: Smith and Topin 2017, arXiv:1708.07120. Label smoothing: Szegedy et al. 2016, arXiv:1512.00567.
Averaging: Polyak and Juditsky 1992.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from eightbit.course import datasets
from eightbit.course.datasets import Split
from eightbit.course.zoo.catalog import Entry
from eightbit.course.zoo.checkpoint import save_checkpoint
from eightbit.course.zoo.score import accuracy

SHIFT = 2  # pixels, each way
REPORT = 50  # steps


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: `peak` is the learning rate that the one-cycle schedule reaches.

    `bfloat16` computes convolutions in that format (autocast); parameters, sums and the loss stay float32.
    """

    epochs: int = 15
    batch: int = 256
    peak: float = 0.2
    weight_decay: float = 5e-4
    smoothing: float = 0.05
    seed: int = 0
    bfloat16: bool = False


def train(
    entry: Entry,
    schedule: Schedule,
    *,
    data: datasets.ImageDataset | None = None,
    start: nn.Module | None = None,
) -> nn.Module:
    """Train `entry` on Fashion-MNIST (or `data` of the same shape) and return it in eval mode.

    It begins with the weights of `start`, which are changed, or with random ones.
    """
    data = data or datasets.fashion_mnist()
    torch.manual_seed(schedule.seed)
    random = np.random.default_rng(schedule.seed)
    model = (start or entry.build()).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    steps = math.ceil(len(data.train) / schedule.batch) * schedule.epochs
    optimizer = torch.optim.SGD(_groups(model, schedule), lr=schedule.peak, momentum=0.9, nesterov=True)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.peak, total_steps=steps, pct_start=0.25
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=schedule.smoothing)
    for epoch in range(schedule.epochs):
        model.train()
        losses = []
        for images, labels in _epoch(data.train, schedule.batch, random):
            x = torch.from_numpy(entry.preprocess(images)).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=schedule.bfloat16):
                logits = model(x)
            loss = loss_of(logits.float(), torch.from_numpy(labels))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            one_cycle.step()
            average.update_parameters(model)
            losses.append(loss.item())
            if len(losses) % REPORT == 0:
                _say(epoch, schedule, f"step {len(losses)}", losses[-REPORT:])
        _say(epoch, schedule, "whole", losses)
    trained: nn.Module = average.module
    return trained.eval().to(memory_format=torch.contiguous_format)


def _say(epoch: int, schedule: Schedule, part: str, losses: list[float]) -> None:
    print(
        f"epoch {epoch + 1}/{schedule.epochs}, {part}: loss {np.mean(losses):.4f}",
        file=sys.stderr,
        flush=True,
    )


def train_and_save(entry: Entry, schedule: Schedule, path: Path, *, resume: bool = False) -> float:
    """Train, write the checkpoint to `path`, and return the accuracy on the test images.

    With `resume` training begins with the weights of the model's present checkpoint. Raises LoadError if it has none.
    """
    data = datasets.fashion_mnist()
    model = train(entry, schedule, data=data, start=entry.load() if resume else None)
    save_checkpoint(model, path, dtype=torch.float16 if entry.half else torch.float32)
    return accuracy(model, entry, data.test)


def _epoch(
    split: Split, batch: int, random: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield every image once, in random order, each shifted by up to SHIFT pixels and flipped half of the time."""
    order = random.permutation(len(split))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        yield augment(split.images[chosen], random), split.labels[chosen]


def augment(images: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 (N, H, W) -> the same shape, each picture shifted (border filled with 0) and flipped at random."""
    count, height, width = images.shape
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    dy, dx = random.integers(0, 2 * SHIFT + 1, (2, count))
    moved = windows[np.arange(count), dy, dx]
    flip = random.random(count) < 0.5
    moved[flip] = moved[flip, :, ::-1]
    return moved


def _groups(model: nn.Module, schedule: Schedule) -> list[dict[str, object]]:
    """Weight decay for kernels only: decaying BatchNorm's scales and the biases does not regularise."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": kernels, "weight_decay": schedule.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
