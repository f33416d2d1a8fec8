"""Which parts of a picture an answer rests on, found with forward passes alone, so int8 is asked as float is.

In: a model as a function from a batch of inputs to logits (a `Model`, a `QuantizedModel`, anything that is called so),
and one picture. Out: a map (H, W) float64 in logits, positive where the picture speaks for the answer. An int8 network
has no gradients; hiding a part and looking at what the answer loses needs none. Chapter 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eightbit.errors import EngineError

Target = int | tuple[int, int]
"""A class a, scored by its logit; or (a, r), scored by the logit of a above that of r."""

Run = Callable[[NDArray[np.float32]], Any]
Image = NDArray[np.float32]
Map = NDArray[np.float64]
CHUNK = 32


def occlusion(
    run: Run,
    image: ArrayLike,
    target: Target,
    *,
    patch: int,
    stride: int | None = None,
    channels_last: bool = False,
) -> Map:
    """What the score of `target` loses when a square of the picture is hidden: for each pixel, the mean of its squares.

    `image` is one input without the batch axis, float32 (C, H, W), or (H, W, C) with `channels_last`. Squares of
    `patch` pixels, `stride` apart (default: half a patch), take the picture's mean colour. Raises EngineError.
    Source: Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 4.2.
    """
    x, rows, columns = _plane(image, channels_last)
    step = stride or max(1, patch // 2)
    if not 1 <= patch <= min(rows, columns) or step < 1:
        raise EngineError(
            f"squares of {patch} pixels, {step} apart, do not fit a picture of {rows} by {columns}"
        )
    hidden = _background(x, channels_last)
    squares = [
        (slice(top, top + patch), slice(left, left + patch))
        for top in _starts(rows, patch, step)
        for left in _starts(columns, patch, step)
    ]

    def variants() -> Iterator[Image]:
        yield x
        for square in squares:
            place = (*square, slice(None)) if channels_last else (slice(None), *square)
            covered = x.copy()
            covered[place] = np.broadcast_to(hidden, x.shape)[place]
            yield covered

    whole, *scores = _scores(run, variants(), target)
    lost, times = np.zeros((rows, columns)), np.zeros((rows, columns))
    for square, score in zip(squares, scores, strict=True):
        lost[square] += whole - score
        times[square] += 1
    return lost / times


def rise(
    run: Run,
    image: ArrayLike,
    target: Target,
    *,
    masks: int = 1000,
    cells: int = 7,
    seed: int = 0,
    channels_last: bool = False,
) -> Map:
    """How the score of `target` depends on each pixel's being seen, over random smooth masks that show half of all.

    A mask is a random grid of `cells` by `cells` zeros and ones, enlarged bilinearly and shifted at random; hidden
    parts take the picture's mean colour. The map is the mean score weighted by visibility, less the plain mean score.
    `image` as in `occlusion`. Source: Petsiuk, Das and Saenko, "RISE", BMVC 2018, equations 4 to 6, with p = 1/2.
    """
    x, rows, columns = _plane(image, channels_last)
    if masks < 2 or cells < 2:
        raise EngineError(
            f"masks={masks} of {cells} by {cells} cells tell nothing; give two at least of each"
        )
    hidden = _background(x, channels_last)
    shown = [_mask(rows, columns, cells, np.random.default_rng([seed, i])) for i in range(masks)]

    def variants() -> Iterator[Image]:
        for m in shown:
            weight = m[..., None] if channels_last else m
            yield (weight * x + (1 - weight) * hidden).astype(np.float32)

    scores = np.array(list(_scores(run, variants(), target)))
    visible = np.stack(shown)
    weighted = np.tensordot(scores - scores.mean(), visible, axes=1)
    return np.asarray(weighted / visible.sum(axis=0), np.float64)


def correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's correlation of two maps of one shape, -1 to 1; NaN if one of them is constant."""
    x, y = (np.asarray(m, np.float64).ravel() for m in (a, b))
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else float("nan")


def _plane(image: ArrayLike, channels_last: bool) -> tuple[Image, int, int]:
    x = np.asarray(image, np.float32)
    if x.ndim != 3:
        raise EngineError(
            f"an image of shape {x.shape} has no channels, height and width; give one picture without the batch axis"
        )
    return x, *((x.shape[0], x.shape[1]) if channels_last else (x.shape[1], x.shape[2]))


def _background(x: Image, channels_last: bool) -> Image:
    return np.asarray(x.mean(axis=(0, 1) if channels_last else (1, 2), keepdims=True), np.float32)


def _starts(length: int, patch: int, stride: int) -> list[int]:
    """Starts of squares that cover an axis: `stride` apart, the last one flush with the end."""
    starts = list(range(0, length - patch + 1, stride))
    return starts if starts[-1] == length - patch else [*starts, length - patch]


def _mask(rows: int, columns: int, cells: int, rng: np.random.Generator) -> NDArray[np.float64]:
    grid = rng.integers(0, 2, (cells + 1, cells + 1)).astype(np.float64)

    def at(length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        position = (np.arange(length) + rng.random() * length / cells) * cells / length
        position = np.minimum(position, cells - 1e-9)
        return position.astype(np.int64), position % 1.0

    (i, u), (j, v) = at(rows), at(columns)
    above = grid[i][:, j] * (1 - v) + grid[i][:, j + 1] * v
    below = grid[i + 1][:, j] * (1 - v) + grid[i + 1][:, j + 1] * v
    return np.asarray(above * (1 - u)[:, None] + below * u[:, None], np.float64)


def _scores(run: Run, images: Iterator[Image], target: Target) -> Iterator[float]:
    held: list[Image] = []
    for image in images:
        held.append(image)
        if len(held) == CHUNK:
            yield from _scored(run, held, target)
            held = []
    if held:
        yield from _scored(run, held, target)


def _scored(run: Run, held: list[Image], target: Target) -> list[float]:
    result = run(np.stack(held))
    logits = np.asarray(result[0] if isinstance(result, tuple) else result, np.float64)
    if logits.ndim != 2:
        raise EngineError(f"the model's output has shape {logits.shape}; saliency needs logits (N, classes)")
    first, second = target if isinstance(target, tuple) else (target, None)
    found: list[float] = (logits[:, first] - (0.0 if second is None else logits[:, second])).tolist()
    return found
