"""What a model of the course answers on a set of pictures, and how often that is right.

In: a torch module, a `Model` or a `QuantizedModel`, the entry whose inputs it takes, pictures. Out: logits, a share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from eightbit.course.datasets import Split
from eightbit.course.zoo.catalog import Entry

BATCH = 500


def logits(model: Callable[[Any], Any], entry: Entry, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What `model` says of uint8 pictures (N, H, W): float32 (N, classes)."""
    return np.concatenate(
        [_said(model, entry.preprocess(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
    )


def accuracy(model: Callable[[Any], Any], entry: Entry, split: Split) -> float:
    """Share of `split` that the model's first choice names rightly, 0 to 1."""
    return float((logits(model, entry, split.images).argmax(1) == split.labels).mean())


def _said(model: Callable[[Any], Any], x: NDArray[np.float32]) -> NDArray[np.float32]:
    if not isinstance(model, nn.Module):
        return np.asarray(model(x), np.float32)
    with torch.inference_mode():
        said: NDArray[np.float32] = model(torch.from_numpy(x)).numpy()
    return said
