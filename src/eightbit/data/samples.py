"""Data one sample at a time, so that no result depends on how the caller cut the batches.

In: data as `feeds.batches` takes them, and a rule that finds the batch axes. Out: dicts of arrays for one run each,
with one sample, or as many as the graph's fixed batch asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from eightbit.data.batch_axis import Axes, fixed, joined, nth, samples_in
from eightbit.data.feeds import Feeds, batches, check_shapes
from eightbit.data.specs import TensorSpec
from eightbit.errors import EightbitError

Decide = Callable[[Feeds, Feeds | None], Axes | None]
"""A batch, and the one before it, -> the batch axes, or None where they cannot tell."""


class Samples:
    """Iterates over `data`; `axes` are known from the first batch that can tell, and None before.

    `decide` gets batches until it answers. A batch goes whole as long as it cannot tell, and always where the answer
    is that no input has a batch axis: then it is a sample. Where the batch of the graph is fixed at n > 1, n samples
    go together, also across the borders of the caller's batches.

    Iterating raises `error` as `batches` does, for data that do not fit `specs`, for inputs that disagree on the number
    of samples, and for a number of samples that is no multiple of n.
    """

    def __init__(
        self, data: Any, specs: Sequence[TensorSpec], error: type[EightbitError], decide: Decide
    ) -> None:
        self.data, self.specs, self.error, self.decide = data, tuple(specs), error, decide
        self.axes: Axes | None = None

    def __iter__(self) -> Iterator[Feeds]:
        held: list[Feeds] = []
        for batch in self._batches():
            if not self.axes:
                yield batch
                continue
            for i in range(self._length(batch)):
                held.append(nth(batch, self.axes, i))
                if len(held) == self._size:
                    yield joined(held, self.axes)
                    held = []
        if held:
            raise self.error(
                f"the model's batch size is fixed at {self._size} and {len(held)} sample(s) are left over; "
                f"give a multiple of {self._size}, or export the model with a dynamic batch"
            )

    def as_given(self) -> Iterator[Feeds]:
        """The batches as they come where the graph takes any number of samples at once, else one run each."""
        yield from self if self.fixed else self._batches()

    def singly(self, feeds: Feeds) -> Iterator[Feeds]:
        """One by one what `side_by_side` laid together."""
        if not self.axes or self.fixed:
            yield feeds
            return
        yield from (nth(feeds, self.axes, i) for i in range(samples_in(feeds, self.axes)))

    def side_by_side(self, size: int) -> Iterator[Feeds]:
        """The samples in batches of at most `size`; those of other shapes begin a new one.

        Where the graph fixes its batch, or has none, they pass as they are.
        """
        return self.together(self, size)

    def together(self, samples: Iterable[Feeds], size: int) -> Iterator[Feeds]:
        """As `side_by_side`, for `samples` that this has given before, in any order."""
        held: list[Feeds] = []
        for sample in samples:
            if held and (not self.axes or self.fixed or len(held) == size or not self._fit(held[0], sample)):
                yield joined(held, self.axes or {})
                held = []
            held.append(sample)
        if held:
            yield joined(held, self.axes or {})

    def count(self, feeds: Feeds) -> int:
        """How many samples lie in what this gave."""
        if self.axes is None and self.fixed:
            return next((s.shape[0] or 1 for s in self.specs if s.shape), 1)
        return samples_in(feeds, self.axes or {})

    def _batches(self) -> Iterator[Feeds]:
        before: Feeds | None = None
        for batch in batches(self.data, self.specs, self.error):
            if self.axes is None:
                self.axes = self.decide(batch, before)
                before = batch
            check_shapes(batch, self.specs, self.error, free=self.axes if self.fixed else None)
            yield batch

    @property
    def fixed(self) -> bool:
        """Whether a run takes so many samples, neither fewer nor more."""
        return fixed(self.specs)

    @property
    def _size(self) -> int:
        """The samples of a run."""
        assert self.axes is not None
        return next((s.shape[self.axes[s.name]] or 1 for s in self.specs if s.name in self.axes), 1)

    def _length(self, batch: Feeds) -> int:
        assert self.axes is not None
        lengths = {name: batch[name].shape[axis] for name, axis in sorted(self.axes.items())}
        if len(set(lengths.values())) > 1:
            raise self.error(
                f"inputs of one batch hold different numbers of samples: {lengths}; make them equal"
            )
        return next(iter(lengths.values()))

    def _fit(self, first: Feeds, sample: Feeds) -> bool:
        """Whether two samples can lie in one batch: equal shapes, and what has no batch axis shared by both."""
        assert self.axes is not None
        return all(a.shape == first[n].shape if n in self.axes else a is first[n] for n, a in sample.items())
