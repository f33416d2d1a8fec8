"""The classes that two models name for the same samples, and by how much: why an answer changed.

In: both models' outputs, sample by sample. Out: `Answers`, a few numbers a sample. With the logits z of the float
model, a its class, z' the logits of the int8 model and r the class other than a that the int8 model ranks highest,

    lead = z_a - z_r,   noise = lead - (z'_a - z'_r),

and the int8 model names another class exactly where the noise exceeds the lead (or equals it, and r has the smaller
index). So each changed answer is explained by two numbers: a float model that hesitated, or much noise. Chapter 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightbit.report.table import Table


@dataclass(frozen=True)
class Flip:
    """A sample to which the int8 model gives another class; `index` counts the samples from 0.

    `margin` is the float logit of `float_class` above the next best one, `lead` that above `int8_class`; `noise` is
    what quantization took off the lead. `label` is None without labels.
    """

    index: int
    label: int | None
    float_class: int
    int8_class: int
    margin: float
    lead: float
    noise: float


@dataclass(frozen=True, eq=False)
class Answers:
    """Both models' classes for N samples: int64 (N,), and float64 (N,) logits as the module's docstring defines them.

    `margin` is the float logit of the first class above the second; `lead` that above `rival`, the strongest other
    class in int8. `labels` is None where there are none.
    """

    float_class: NDArray[np.int64]
    int8_class: NDArray[np.int64]
    rival: NDArray[np.int64]
    margin: NDArray[np.float64]
    lead: NDArray[np.float64]
    noise: NDArray[np.float64]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.float_class)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answers):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """Where the int8 model names another class, (N,)."""
        return np.asarray(self.float_class != self.int8_class)

    def flips(self) -> tuple[Flip, ...]:
        """The changed answers in the order of the samples."""
        return tuple(
            Flip(
                int(i),
                None if self.labels is None else int(self.labels[i]),
                int(self.float_class[i]),
                int(self.int8_class[i]),
                float(self.margin[i]),
                float(self.lead[i]),
                float(self.noise[i]),
            )
            for i in np.flatnonzero(self.flipped)
        )

    @property
    def noise_rms(self) -> float:
        """Root mean square of the noise on the leads, in logits."""
        return float(np.sqrt(np.mean(np.square(self.noise))))

    @property
    def expected_flips(self) -> float:
        """How many answers would change if noise fell on the samples regardless of their leads.

        Each lead meets the noise of every sample: the sum over i of the share of j with noise_j > lead_i. A count far
        from it says that the noise goes with the lead, and the samples or classes on which it falls deserve a look.
        """
        ordered = np.sort(self.noise)
        above = len(self) - np.searchsorted(ordered, self.lead, side="right")
        return float(above.sum() / max(1, len(self)))

    def table(self, classes: Sequence[str] | None = None, *, most: int = 20) -> Table:
        """The changed answers, those with the smallest lead first, at most `most`; `classes` names them."""

        def name(index: int | None) -> str:
            return str(index) if classes is None or index is None else classes[index]

        found = sorted(self.flips(), key=lambda f: (f.lead, f.index))
        labelled = self.labels is not None
        rows = tuple(
            (
                str(f.index),
                *((name(f.label),) if labelled else ()),
                *(name(f.float_class), name(f.int8_class), f"{f.lead:.2f}", f"{f.noise:.2f}"),
                *((_judged(f),) if labelled else ()),
            )
            for f in found[:most]
        )
        columns = (
            "sample>",
            *(("label",) if labelled else ()),
            *("float says", "int8 says", "lead>", "noise>"),
            *(("the answer was",) if labelled else ()),
        )
        note = (
            f"{len(found)} of {len(self)} answers changed; {self.expected_flips:.1f} would if noise fell regardless of "
            "leads. Lead: float logit of the first class above that of the other; the answer changes where noise takes "
            "all of it"
        )
        return Table("Changed answers", columns, rows, note)


def _judged(flip: Flip) -> str:
    if flip.label == flip.float_class:
        return "lost"
    return "won" if flip.label == flip.int8_class else "wrong before and after"


class AnswerLog:
    """Gathers `Answers` from outputs (N, classes) as they come."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self.classes = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def update(self, exact: NDArray[Any], int8: NDArray[Any]) -> None:
        """Take in both models' outputs for the same samples, (N, classes) each, classes > 1."""
        self.classes = exact.shape[1]
        z, w = exact.astype(np.float64), int8.astype(np.float64)
        rows = np.arange(len(z))
        first = z.argmax(axis=1)
        without = w.copy()
        without[rows, first] = -np.inf
        rival = without.argmax(axis=1)
        second = np.partition(z, -2, axis=1)[:, -2]
        lead = z[rows, first] - z[rows, rival]
        noise = lead - (w[rows, first] - w[rows, rival])
        self._parts.append((first, w.argmax(axis=1), rival, z[rows, first] - second, lead, noise))

    def answers(self, labels: NDArray[np.int64] | None = None) -> Answers:
        """Everything seen so far; `labels` (N,) come along as they are."""
        columns = [np.concatenate(column) for column in zip(*self._parts, strict=True)]
        first, int8_class, rival, margin, lead, noise = columns
        return Answers(first, int8_class, rival, margin, lead, noise, labels)
