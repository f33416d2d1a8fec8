"""Run calibration data through the float graph and watch the tensors that shall be quantized.

In: a prepared graph, the names to watch, any iterable of inputs. Out: one filled calibrator state a tensor, and from
those the parameters. One sample is in flight at a time, so memory does not grow with the data and no result depends
on how the samples were batched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from eightbit.arith.affine import QuantParams, params_from_range
from eightbit.errors import CalibrationError
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples
from eightbit.quant.choose.recipe import Activations
from eightbit.quant.methods.calibrators import Calibrator
from eightbit.quant.methods.observers import Limits, State
from eightbit.quant.methods.octaves import Octaves

Progress = Callable[[str, int], None]
"""Told of long work as it goes: the stage, and how many steps of it are done."""


@dataclass(frozen=True)
class Observed:
    """What was seen of a graph's tensors: a filled state each, and of those asked for how their values lie in size.

    `broken` has the error of each tensor that took a value which is not finite; its state holds what came before.
    """

    states: dict[str, State]
    octaves: dict[str, Octaves]
    broken: dict[str, str]

    def sound(self, tensors: Iterable[str]) -> dict[str, State]:
        """The states of `tensors`. Raises CalibrationError if one of them took a value that is not finite."""
        for name in tensors:
            if name in self.broken:
                raise CalibrationError(self.broken[name])
        return {name: state for name, state in self.states.items() if name not in self.broken}


def calibrate(
    model: ir.Model,
    tensors: Iterable[str],
    data: Any,
    calibrator: Calibrator | Mapping[str, Calibrator],
    *,
    progress: Progress | None = None,
) -> dict[str, State]:
    """A state of `calibrator` for each of `tensors`, filled from `data` (see `graph.samples` for what it may be).

    A mapping gives each tensor its own calibrator.

    Raises CalibrationError for data that do not fit the graph's inputs or are empty, and for a tensor that takes
    a value that is not finite.
    """
    observed = observe(model, tensors, data, calibrator, progress=progress)
    return observed.sound(observed.states)


def observe(
    model: ir.Model,
    tensors: Iterable[str],
    data: Any,
    calibrator: Calibrator | Mapping[str, Calibrator],
    *,
    sizes: Iterable[str] = (),
    progress: Progress | None = None,
) -> Observed:
    """As `calibrate`, with the octaves of the tensors `sizes`, and without an error for values that are not finite:
    a mask may hold them, and whether a tensor carries one is known when all data were seen.
    """
    states = {
        name: (calibrator[name] if isinstance(calibrator, Mapping) else calibrator).state()
        for name in tensors
    }
    octaves = {name: Octaves() for name in sizes}
    broken: dict[str, str] = {}
    session = FloatSession(model, list(dict.fromkeys([*states, *octaves])))
    for count, sample in enumerate(samples(model, data, CalibrationError), start=1):
        for name, array in session.each(sample):
            if name in octaves:
                octaves[name].update(array)
            if name not in states or name in broken:
                continue
            try:
                states[name].update(array)
            except CalibrationError as cause:
                given = name in sample
                remedy = "remove them from the data" if given else "look for an overflow in the float model"
                what = "input" if given else "tensor"
                broken[name] = f"{what} {name!r}, calibration sample {count - 1}: {cause}; {remedy}"
        if progress is not None:
            progress("calibrate", count)
    return Observed(states, octaves, broken)


def parameters(
    states: Mapping[str, State],
    choice: Activations | Mapping[str, Activations],
    *,
    fixed: Mapping[str, Limits] | None = None,
) -> dict[str, QuantParams]:
    """Scale and zero point of each tensor: its `fixed` limits if given, else those its calibrator finds.

    `choice` is one for all tensors, or a mapping by name.
    """
    known = fixed or {}
    found = {}
    for name, state in states.items():
        own = choice[name] if isinstance(choice, Mapping) else choice
        try:
            lo, hi = known.get(name) or own.range.limits(state, own.itype, own.symmetric)
        except CalibrationError as cause:
            raise CalibrationError(f"tensor {name!r}: {cause}") from cause
        found[name] = params_from_range(lo, hi, own.itype, symmetric=own.symmetric)
    return found
