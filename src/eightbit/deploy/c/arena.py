"""One static arena for all codes that live between two operations: who lies where, and how many bytes it takes.

In: `Buffer`s with the steps between which they live, and how far a step's output may run into its input. Out: an
`Arena` with an offset for each.

A step that reads its input from front to back and writes its output from front to back frees the input as it goes, so
the two may share bytes: `gap` bytes before the input the output may begin (0 where element i is written after element
i was read; some rows for a convolution). Optimal placement is NP-hard; greedy placement by first fit is repeated over
several orders, and the order is improved by moving forward what lies at the top. Chapter 18 draws the result.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eightbit.errors import printable

ALIGNMENT = 4
ROUNDS = 300
"""Orders tried after the first ones; each moves one buffer forward."""


@dataclass(frozen=True)
class Buffer:
    """`size` bytes that are written in step `first` and read for the last time in step `last`."""

    name: str
    size: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """Whether there is a step in which both are needed."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Where each buffer begins. `gaps[output, input]` says how far before its input an output begins at the least."""

    buffers: tuple[Buffer, ...]
    offsets: Mapping[str, int]
    gaps: Mapping[tuple[str, str], int]

    @property
    def size(self) -> int:
        """Bytes of the whole arena."""
        return max((self.offsets[b.name] + b.size for b in self.buffers), default=0)

    @property
    def most_live(self) -> int:
        """The most bytes that are alive in one step: what an arena takes at the least if no two buffers share bytes."""
        return most_live(self.buffers)

    def __str__(self) -> str:
        rows = sorted(self.buffers, key=lambda b: (b.first, self.offsets[b.name]))
        lines = [
            f"arena {self.size:,} bytes; {self.most_live:,} alive in one step",
            f"{'offset':>9} {'bytes':>9}  steps    buffer",
        ]
        lines += [
            f"{self.offsets[b.name]:>9,} {b.size:>9,}  {b.first:>3}-{b.last:<4} {printable(b.name)}"
            for b in rows
        ]
        return "\n".join(lines)


def most_live(buffers: Sequence[Buffer]) -> int:
    """The most bytes alive in one step."""
    steps = {b.first for b in buffers}
    return max((sum(b.size for b in buffers if b.first <= t <= b.last) for t in steps), default=0)


def planned(buffers: Sequence[Buffer], gaps: Mapping[tuple[str, str], int]) -> Arena:
    """The smallest arena found. A gap counts where the output begins to live in the step that reads its input last."""
    alive = {b.name: b for b in buffers}
    kept = {
        (y, x): gap
        for (y, x), gap in gaps.items()
        if x in alive and y in alive and alive[x].last == alive[y].first
    }
    orders = [
        sorted(buffers, key=lambda b: (-b.size, b.first)),
        sorted(buffers, key=lambda b: (-b.size, -b.first)),
        sorted(buffers, key=lambda b: (-b.size * (b.last - b.first + 1), b.first)),
        sorted(buffers, key=lambda b: b.first),
        sorted(buffers, key=lambda b: -b.first),
    ]
    best = min((_placed(order, kept) for order in orders), key=lambda arena: arena.size)
    rng = random.Random(0)  # the same arena on every run
    for begin in orders[:2]:
        order = list(begin)
        for _ in range(ROUNDS // 2):
            arena = _placed(order, kept)
            if arena.size < best.size:
                best = arena
            top = [b for b in order if arena.offsets[b.name] + b.size == arena.size]
            if not top:
                break
            chosen = rng.choice(top)
            place = order.index(chosen)
            order.insert(rng.randrange(place + 1), order.pop(place))
    return best


def _placed(order: Iterable[Buffer], gaps: Mapping[tuple[str, str], int]) -> Arena:
    """Each buffer in turn at the lowest place that is free as long as it lives."""
    done: list[Buffer] = []
    offsets: dict[str, int] = {}
    for b in order:
        rivals = [r for r in done if r.meets(b)]
        places = {0}
        for r in rivals:
            at = offsets[r.name]
            places |= {at, _aligned(at + r.size)}
            if (b.name, r.name) in gaps:
                places.add((at - gaps[b.name, r.name]) // ALIGNMENT * ALIGNMENT)
            if (r.name, b.name) in gaps:
                places.add(_aligned(at + gaps[r.name, b.name]))
        offsets[b.name] = min(
            place
            for place in places
            if place >= 0 and all(_apart(b, place, r, offsets[r.name], gaps) for r in rivals)
        )
        done.append(b)
    return Arena(tuple(done), offsets, gaps)


def _apart(b: Buffer, at: int, r: Buffer, r_at: int, gaps: Mapping[tuple[str, str], int]) -> bool:
    if at + b.size <= r_at or r_at + r.size <= at:
        return True
    below, above = gaps.get((b.name, r.name)), gaps.get((r.name, b.name))
    return (below is not None and r_at - at >= below) or (above is not None and at - r_at >= above)


def _aligned(at: int) -> int:
    return -(-at // ALIGNMENT) * ALIGNMENT
