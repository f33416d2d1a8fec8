"""Which axis of each input counts the samples.

A free axis may be the batch; it may as well be time, the nodes of a graph, or the length of a recording, and the batch
may lie on another axis (recurrent states; PyTorch's (sequence, batch, features)). Names and positions are hints and
no more, so it is tried out: an axis is the batch if samples that run one by one give the rows that they give together.
Whatever passes may be cut there, for no result can depend on the cut; where nothing passes, what the caller handed
over is one sample as it is.

In: the inputs' specs, arrays, and a way to run the graph. Out: `{input: axis}`; inputs that are not named have no
batch axis and go whole with every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeGuard

import numpy as np

from eightbit.data.feeds import Feeds
from eightbit.data.specs import TensorSpec
from eightbit.errors import EightbitError

Axes = dict[str, int]
Run = Callable[[Feeds], Mapping[str, np.ndarray]]

TRIED = 4
"""Samples that run together in a trial. The first and the last of them run alone."""
SAME = 1e-3
"""Largest norm of a difference, relative to the result's, between rows of float graphs: sums in another order."""
SAME_CODES = 0.1
"""The same for graphs that round inside, where a last digit can move a code, or a batch its range."""
BATCH_NAMES = ("batch", "bs", "n")


def batch_axes(
    specs: Sequence[TensorSpec],
    batch: Feeds,
    run: Run,
    *,
    before: Feeds | None = None,
    same: float = SAME,
) -> Axes | None:
    """The batch axis of each input that has one; `{}` if none has; None if `batch` cannot tell and is one sample.

    `batch` holds inputs as a caller handed them over, `run` runs the graph and may raise EightbitError. With the batch
    `before` it, one that could not tell, two single samples can.
    """
    known = {s.name: s.batch for s in specs if s.batch is not None}
    if known:
        return {name: axis for name, axis in known.items() if axis >= 0}
    if fixed(specs):
        longer = fixed_axes(specs, batch)
        if longer:
            return longer
    for axes in candidates(specs, batch):
        single = samples_in(batch, axes) == 1
        tried = joined([before, batch], axes) if _alike(before, batch) and single else batch
        if samples_in(tried, axes) > 1 and _passes(axes, tried, run, same):
            return axes
        if single:
            return None
    return None if fixed(specs) else {}


def _alike(before: Feeds | None, batch: Feeds) -> TypeGuard[Feeds]:
    return before is not None and all(before[name].shape == a.shape for name, a in batch.items())


def fixed(specs: Sequence[TensorSpec]) -> bool:
    """Whether the first axis of every input has a fixed length: a run takes so many samples, neither fewer nor more."""
    return all(s.shape[0] is not None for s in specs if s.shape)


def fixed_axes(specs: Sequence[TensorSpec], batch: Feeds) -> Axes:
    """Where the data are to be cut for a graph of a `fixed` batch: the axes on which they have another length.

    Inputs whose data are as long as the graph's axes go whole with every run.
    """
    ranked = [s for s in specs if s.shape]
    first = next((s for s in ranked if batch[s.name].shape[0] != s.shape[0]), None)
    if first is None:
        return {}
    size, length = first.shape[0], batch[first.name].shape[0]
    found = {}
    for s in ranked:
        pairs = list(zip(s.shape, batch[s.name].shape, strict=True))
        longer = [axis for axis, pair in enumerate(pairs) if pair == (size, length)]
        if longer:
            found[s.name] = longer[0]
    return found


def candidates(specs: Sequence[TensorSpec], batch: Feeds) -> Iterator[Axes]:
    """What may be the batch, the likeliest first: axes named so, then first axes, then second ones.

    Each is a free axis of one input, with the axes of the other inputs that bear its name or else have its length in
    `batch`; and the same without those that only have the length.
    """
    places = [
        (s, axis)
        for s in specs
        for axis, size in enumerate(s.shape)
        if size is None and (axis == 0 or s.shape[0] != 1)
    ]
    places.sort(key=lambda place: (not _says_batch(place[0].symbol(place[1])), place[1]))
    seen: list[Axes] = []
    for spec, axis in places:
        symbol, length = spec.symbol(axis), batch[spec.name].shape[axis]
        named: Axes = {spec.name: axis}
        alike: Axes = {}
        for other in specs:
            if other is spec:
                continue
            free = [a for a, size in enumerate(other.shape) if size is None]
            with_name = [a for a in free if symbol is not None and other.symbol(a) == symbol]
            with_length = [a for a in free if batch[other.name].shape[a] == length]
            if with_name:
                named[other.name] = with_name[0]
            elif with_length:
                alike[other.name] = axis if axis in with_length else with_length[0]
        for axes in (named | alike, named):
            if axes not in seen and len({batch[n].shape[a] for n, a in axes.items()}) == 1:
                seen.append(axes)
                yield axes


def samples_in(batch: Feeds, axes: Mapping[str, int]) -> int:
    """How many samples lie along `axes`; 1 where there are none."""
    return next((batch[name].shape[axis] for name, axis in axes.items()), 1)


def batch_of(specs: Sequence[TensorSpec], feeds: Feeds) -> int:
    """How many samples `feeds` hold, on the axes that the specs say; else the first input's length."""
    axes = {spec.name: spec.batch for spec in specs if spec.batch is not None and spec.batch >= 0}
    return samples_in(feeds, axes) if axes else next((a.shape[0] for a in feeds.values() if a.ndim), 1)


def taken(batch: Feeds, axes: Mapping[str, int], rows: Sequence[int]) -> Feeds:
    """The samples `rows` of a batch; inputs without a batch axis as they are."""
    return {n: a.take(rows, axis=axes[n]) if n in axes else a for n, a in batch.items()}


def nth(batch: Feeds, axes: Mapping[str, int], index: int) -> Feeds:
    """One sample of a batch, without a copy where it lies on first axes."""
    return {
        n: np.ascontiguousarray(a[(slice(None),) * axes[n] + (slice(index, index + 1),)]) if n in axes else a
        for n, a in batch.items()
    }


def joined(parts: Sequence[Feeds], axes: Mapping[str, int]) -> Feeds:
    """Samples side by side; inputs without a batch axis are those of the first."""
    if len(parts) == 1:
        return parts[0]
    return {
        n: np.concatenate([p[n] for p in parts], axis=axes[n]) if n in axes else a
        for n, a in parts[0].items()
    }


def _says_batch(symbol: str | None) -> bool:
    name = (symbol or "").lower()
    return name in BATCH_NAMES or "batch" in name


def _passes(axes: Axes, batch: Feeds, run: Run, same: float) -> bool:
    """Whether the first and the last of a few samples give alone what they give together."""
    length = samples_in(batch, axes)
    rows = [round(i) for i in np.linspace(0, length - 1, min(TRIED, length))]
    together = taken(batch, axes, rows)
    try:
        whole = run(together)
        alone = [(place, run(taken(together, axes, [place]))) for place in (0, len(rows) - 1)]
    except EightbitError:
        return False
    found = [_same_row(whole[name], result[name], place, same) for place, result in alone for name in whole]
    return None not in found and any(found)


def _same_row(whole: np.ndarray, row: np.ndarray, place: int, same: float) -> bool | None:
    """True if `row` is the one at `place` of `whole`, False if both are the same whole, None if neither."""
    if not isinstance(whole, np.ndarray) or whole.ndim != row.ndim or whole.dtype != row.dtype:
        return None
    other = [axis for axis in range(whole.ndim) if whole.shape[axis] != row.shape[axis]]
    if len(other) > 1 or (other and row.shape[other[0]] != 1):
        return None
    piece = whole.take([place], axis=other[0]) if other else whole
    return bool(other) if piece.shape == row.shape and _close(piece, row, same) else None


def _close(a: np.ndarray, b: np.ndarray, same: float) -> bool:
    if a.dtype.kind != "f":
        return bool(np.mean(a != b) <= same) if a.size else True
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return False
    x, y = (np.where(np.isfinite(v), v, 0).astype(np.float64) for v in (a, b))
    return bool(np.linalg.norm(x - y) <= same * np.linalg.norm(y))
