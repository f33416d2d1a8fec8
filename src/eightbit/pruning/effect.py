"""What a model's outputs lose when a part of one group of channels is gone: measured, for parts of several sizes.

Errors inside a network say little of those at its end. So each group is cut down alone, to each of KEPT, with the
layers that read it fitted in closed form; the errors of the outputs, relative to their spread, are a curve over the
number of units gone, and the curve's slope says what the next unit of the group costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.data.feeds import Feeds
from eightbit.errors import CalibrationError
from eightbit.graph.model import constant, set_constant
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples
from eightbit.pruning.channels import Channels
from eightbit.pruning.fit import refit
from eightbit.quant.encode.seen import Seen
from eightbit.quant.observe.moments import Moments

KEPT = (0.75, 0.5, 0.25)
"""Parts of a group that are left in the three probes of it."""
PROBED, TOGETHER = 256, 32
"""Samples that the outputs are measured on, and how many of them at once."""


def probes(model: ir.Model, data: Any) -> list[Feeds]:
    """The first samples, for measuring outputs. Raises CalibrationError for data that do not fit."""
    return list(islice(samples(model, data, CalibrationError).side_by_side(TOGETHER), PROBED // TOGETHER))


def costs_of_units(
    channels: Channels,
    local: NDArray[np.float64],
    moments: Mapping[str, Moments],
    batches: Sequence[Feeds],
) -> NDArray[np.float64]:
    """What the outputs lose with each unit, (units,), where those of a group go in the order of `local` (units,).

    Rises within each group, so that the order stays what it is.
    """
    exact = outputs(channels.model, batches)
    found = np.zeros(channels.size)
    for group in channels.groups:
        ranked = group.units[np.argsort(local[group.units], kind="stable")]
        places, errors = [0], [0.0]
        for part in KEPT:
            gone = len(ranked) - max(1, round(part * len(ranked)))
            if gone > places[-1]:
                keep = np.ones(channels.size, bool)
                keep[ranked[:gone]] = False
                places.append(gone)
                errors.append(output_error(outputs(_without(channels, keep, moments), batches), exact))
        if len(places) == 1:
            places, errors = [0, len(ranked)], [0.0, 1.0]
        slopes = np.maximum.accumulate(np.diff(errors) / np.diff(places))
        each = slopes[
            np.minimum(np.searchsorted(places, np.arange(len(ranked)), "right") - 1, len(slopes) - 1)
        ]
        found[ranked] = np.maximum(each, 1e-12) * (1 + 1e-6 * np.arange(len(ranked)))
    return found


def _without(channels: Channels, keep: NDArray[np.bool_], moments: Mapping[str, Moments]) -> ir.Model:
    """The graph whose layers do without the other units as well as they can."""
    result = channels.model.clone()
    nodes = {str(node.name): node for node in result.graph}
    for use in channels.found.uses:
        if use.read is None:
            continue
        kept = channels.kept(use.axes[use.read], keep)
        if kept.all():
            continue
        node = nodes[str(use.node.name)]
        seen = moments.get(str(node.name))
        if seen is None:
            weight = constant(node.inputs[1])
            assert weight is not None
            shape = [-1 if axis == use.read else 1 for axis in range(weight.ndim)]
            set_constant(node, 1, weight * kept.reshape(shape).astype(weight.dtype))
        else:
            refit(use.node, node, Seen(seen, seen.hessian, seen.total), kept)
    return result


def output_error(found: Sequence[NDArray[np.float64]], exact: Sequence[NDArray[np.float64]]) -> float:
    """The squared error of outputs, flat by batch, as a part of their spread."""
    spread = sum(float(((y - y.mean()) ** 2).sum()) for y in exact) or 1.0
    return sum(float(((a - b) ** 2).sum()) for a, b in zip(found, exact, strict=True)) / spread


def outputs(model: ir.Model, batches: Sequence[Feeds]) -> list[NDArray[np.float64]]:
    """The outputs of a graph, those that are floats, flat by batch."""
    session = FloatSession(model)
    found = []
    for feeds in batches:
        floats = [y for y in session.run(feeds).values() if isinstance(y, np.ndarray) and y.dtype.kind == "f"]
        found.append(np.concatenate([y.astype(np.float64).ravel() for y in floats]))
    return found
