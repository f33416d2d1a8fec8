"""What tuning is asked for, and what it hands back: plain frozen values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from eightbit.arith.noise import decibels
from eightbit.errors import QuantizationError
from eightbit.model import QuantizedModel
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.choose.recipe_text import write_recipe
from eightbit.report.table import Table
from eightbit.tuning.sensitivity import Sensitivity
from eightbit.values.fields import Between, check


@dataclass(frozen=True)
class Target:
    """A budget: any of these limits, together; those left None do not bind.

    `drop` is the accuracy that may be lost, as a share (0.01: one point); `agreement` the least share of samples to
    which the float model's first class is given. `size` is the file's bytes and `latency` the time of one sample in
    ONNX Runtime, both at most this fraction of the float model's. `bits` is the mean number of bits that the file
    spends on a weight, at most.
    """

    drop: Annotated[float, Between(0, 1)] | None = None
    agreement: Annotated[float, Between(0, 1)] | None = None
    size: Annotated[float, Between(0, 2)] | None = None
    latency: Annotated[float, Between(0, 100)] | None = None
    bits: Annotated[float, Between(2, 16)] | None = None

    def __post_init__(self) -> None:
        check(self)
        if all(getattr(self, f.name) is None for f in fields(self)):
            raise QuantizationError("Target() asks for nothing; give drop, agreement, size, latency or bits")

    def lacks(self, trial: Trial) -> tuple[str, ...]:
        """What a trial lacks in quality, in words: `drop` and `agreement`."""
        found = _above("drop", trial.drop, self.drop)
        if self.agreement is not None and trial.agreement < self.agreement - 1e-12:
            found += (f"agreement {trial.agreement:.4g}, wanted >= {self.agreement:g}",)
        return found

    def misses(self, trial: Trial) -> tuple[str, ...]:
        """What of the budget a trial breaks, in words; empty if it meets all of it."""
        costs = (
            _above(name, getattr(trial, name), getattr(self, name)) for name in ("size", "latency", "bits")
        )
        return self.lacks(trial) + tuple(chain.from_iterable(costs))

    def __str__(self) -> str:
        signs = {"agreement": ">="}
        given = ((f.name, getattr(self, f.name)) for f in fields(self))
        return ", ".join(f"{name} {signs.get(name, '<=')} {v:g}" for name, v in given if v is not None)


def _above(name: str, value: float | None, limit: float | None) -> tuple[str, ...]:
    if limit is None or (value is not None and value <= limit + 1e-12):
        return ()
    return (f"{name} {'unknown' if value is None else f'{value:.4g}'}, wanted <= {limit:g}",)


@dataclass(frozen=True)
class Trial:
    """One recipe, tried: everything measured on the tuning data, nothing predicted.

    `size` and `latency` (None where it was not asked for) are fractions of the float model's, `bits` those that the
    file spends on a weight in the mean, `agreement` and `drop` shares (`drop` None without `evaluate` and labels),
    `sqnr_db` that of the outputs. `step` says which stage of the search tried it.
    """

    recipe: Recipe
    step: str
    size: float
    bits: float
    agreement: float
    sqnr_db: float
    drop: float | None = None
    latency: float | None = None

    @property
    def quality(self) -> tuple[float, float]:
        """To sort by: accuracy kept if it was measured, else agreement; then SQNR."""
        return (self.agreement if self.drop is None else -self.drop, self.sqnr_db)


@dataclass(frozen=True)
class Tuned:
    """The recipe that tuning chose, with all it tried on the way.

    `met` says whether the budget was met on the tuning data; if not, `recipe` is the trial that comes nearest and
    `misses` says what it breaks. `held_out` is the chosen recipe measured on data that the search never saw.
    """

    recipe: Recipe
    model: QuantizedModel
    target: Target
    chosen: Trial
    trials: tuple[Trial, ...]
    sensitivity: Sensitivity
    held_out: Trial | None = None

    def __post_init__(self) -> None:
        check(self)

    @property
    def misses(self) -> tuple[str, ...]:
        """What of the budget the chosen recipe breaks on the tuning data, in words."""
        return self.target.misses(self.chosen)

    @property
    def met(self) -> bool:
        """Whether the chosen recipe meets the budget on the tuning data."""
        return not self.misses

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials that no other beats in both size and quality, smallest first."""
        return pareto_front(self.trials)

    def save_recipe(self, path: str | os.PathLike[str]) -> Path:
        """Write the chosen recipe as a recipe file, for `eightbit quantize --recipe`. Raises ExportError."""
        return write_recipe(self.recipe, path)

    def table(self) -> Table:
        """All trials in the order they were made."""
        front = set(map(id, self.front))
        rows = tuple(
            (
                t.step,
                f"{t.size:.4f}",
                f"{t.bits:.2f}",
                f"{t.agreement:.2%}",
                "" if t.drop is None else f"{100 * t.drop:+.2f}",
                decibels(t.sqnr_db),
                "" if t.latency is None else f"{t.latency:.2f}",
                " ".join((["front"] if id(t) in front else []) + (["chosen"] if t == self.chosen else [])),
            )
            for t in self.trials
        )
        columns = ("trial", "size>", "bits>", "agreement>", "drop, points>", "SQNR dB>", "latency>", "")
        verdict = "met" if self.met else f"NOT met: {'; '.join(self.misses)}"
        note = f"target {self.target}: {verdict}"
        if self.held_out is not None:
            h = self.held_out
            kept = f"agreement {h.agreement:.2%}" + (
                "" if h.drop is None else f", drop {100 * h.drop:+.2f} points"
            )
            note += f"; on held-out data: {kept}, {decibels(h.sqnr_db)} dB"
        return Table("Tuning", columns, rows, note)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain lists, dicts and numbers, for JSON."""

        def plain(t: Trial) -> dict[str, Any]:
            return {f.name: getattr(t, f.name) for f in fields(t) if f.name != "recipe"}

        return {
            "met": self.met,
            "misses": list(self.misses),
            "chosen": plain(self.chosen),
            "held_out": None if self.held_out is None else plain(self.held_out),
            "trials": [plain(t) for t in self.trials],
        }

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


def pareto_front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials that none beats in size without losing in quality, smallest first."""
    found: list[Trial] = []
    for t in sorted(trials, key=lambda t: (t.size, tuple(-q for q in t.quality))):
        if not found or t.quality > found[-1].quality:
            found.append(t)
    return tuple(found)
