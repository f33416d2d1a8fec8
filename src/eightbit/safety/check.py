"""How near a quantized model's outputs are to the float model's on a few samples, and what was done about it.

In: what both models gave for the same samples. Out: a frozen `Check`, which `eightbit.quantize` leaves in its report.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from eightbit.arith.noise import Noise, as_numbers, decibels
from eightbit.errors import EngineError, printable
from eightbit.safety.probes import Kind

FLOOR = 15.0
"""dB: an error of 3 % of an output's power. Models that ship in packages, calibrated on 24 samples and judged by their
own task on 120 others: a note detector at 7 dB keeps 70 % of its answers; above 14 dB a line reader, a finder of text
and a finder of faces keep 97.5, 99.6 and 96.3 %. A floor of 20 dB would make these 97.5, 100 and 98.8 %, and the files
slower by 37, 9 and 96 % in ONNX Runtime, for which codes of 16 bits are numbers in float."""
STEP = 1 / 255
"""What a share of one is counted as at least. Where a detector sees nothing at all, its scores are a millionth, and an
error of as much would be 0 dB; 16 bits would be spent on it."""
NAMED = 4
"""Sources of noise that a line names."""


@dataclass(frozen=True)
class OutputCheck:
    """One output of the int8 model beside the float model's.

    `sqnr_db` is that of numbers, -inf where int8 alone gives NaN or infinities; `equal` the share of equal values where
    they are integers, booleans or strings. Shares of one (a Sigmoid's, a Softmax's) below an eight-bit step count as a
    step. Both are None for outputs that cannot be compared, and `why` says so.
    """

    name: str
    sqnr_db: float | None = None
    equal: float | None = None
    why: str = ""

    def __str__(self) -> str:
        if self.sqnr_db is not None:
            unit = "" if self.sqnr_db == inf else " dB"
            return f"{self.name} {decibels(self.sqnr_db)}{unit}"
        return f"{self.name} {self.why}" if self.equal is None else f"{self.name} {self.equal:.1%} equal"


@dataclass(frozen=True)
class Cost:
    """A source of noise: the weights of the node `node`, or the activations that it (or an input of that name) writes.

    `sqnr_db` is that of the outputs if it alone were codes of the recipe's bits; `touched` are the nodes that would
    leave it if they computed in float.
    """

    kind: Kind
    node: str
    sqnr_db: float
    touched: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind.value} of {self.node!r} ({decibels(self.sqnr_db)} dB alone)"


@dataclass(frozen=True)
class Check:
    """What the first `samples` samples of the calibration data say of the outputs; no output is to be below `floor` dB.

    Where one was, `costs` are the sources of its noise, the largest first: those that were `given` 16 bits or float, if
    `before` says how the outputs were with the recipe's bits, or else all of them. `why` says why nothing was run, or
    what was tried in vain.
    """

    outputs: tuple[OutputCheck, ...] = ()
    samples: int = 0
    floor: float = FLOOR
    costs: tuple[Cost, ...] = ()
    before: tuple[OutputCheck, ...] = ()
    given: str = ""
    why: str = ""

    @property
    def low(self) -> tuple[OutputCheck, ...]:
        """The outputs below the floor."""
        return tuple(o for o in self.outputs if o.sqnr_db is not None and o.sqnr_db < self.floor)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user has to know, a sentence each; none where all is well."""
        apart = [str(output) for output in self.outputs if output.why]
        found = [f"not compared: {', '.join(apart)}"] if apart else []
        if self.before:
            was = ", ".join(map(str, self.before))
            found.append(f"{self.given} for the {_listed(self.costs)}; with 8 bits below the floor: {was}")
        if self.low:
            found.append(
                f"below the floor of {self.floor:g} dB on {self.samples} calibration samples: "
                + ", ".join(map(str, self.low))
                + (f"; most of it by the {_listed(self.costs)}" if self.costs else "")
                + (f"; {self.why}" if self.why else "")
            )
        return tuple(found)

    def __str__(self) -> str:
        if not self.samples:
            return printable(f"not checked: {self.why}")
        outputs = ", ".join(map(str, self.outputs))
        first = f"outputs on {self.samples} calibration samples (floor {self.floor:g} dB): {outputs}"
        return printable("\n".join([first, *self.remarks]))


def _listed(costs: Sequence[Cost]) -> str:
    more = f" and {len(costs) - NAMED} more" if len(costs) > NAMED else ""
    return ", ".join(map(str, costs[:NAMED])) + more


def compared(
    exact: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]], shares: Collection[str] = ()
) -> tuple[OutputCheck, ...]:
    """Each output of the int8 model in `found` beside the float model's in `exact`, both by sample.

    Those named in `shares` lie between 0 and 1.
    """
    return tuple(
        _output(name, [(x[name], y[name]) for x, y in zip(exact, found, strict=True)], name in shares)
        for name in exact[0]
    )


def _output(name: str, pairs: Sequence[tuple[Any, Any]], share: bool) -> OutputCheck:
    counts = not isinstance(pairs[0][0], list) and pairs[0][0].dtype.kind not in "fc"
    noise, equal = Noise(), []
    for given in pairs:
        reference, actual = as_numbers(*given)
        if reference.shape != actual.shape:
            return OutputCheck(name, why=f"has other shapes, {actual.shape} for {reference.shape}")
        if counts:
            equal.append(np.ravel(reference == actual))
            continue
        try:
            noise.update(reference, actual)
        except EngineError:
            if np.isfinite(reference).all():
                return OutputCheck(name, sqnr_db=-inf)
            return OutputCheck(name, why="holds NaN or infinities in the float model")
    if counts:
        alike = np.concatenate(equal)
        return OutputCheck(name, equal=float(alike.mean()) if alike.size else 1.0)
    if share:
        noise.signal = max(noise.signal, STEP**2 * sum(np.size(reference) for reference, _ in pairs))
    return OutputCheck(name, sqnr_db=noise.sqnr_db)
