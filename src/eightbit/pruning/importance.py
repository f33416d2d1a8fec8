"""What is lost with a unit of channels: by its weights, or by what the layers behind it can no longer compute.

`Magnitude` needs no data. `Reconstruction` asks how well the layers that read a unit could do without it. With W the
weights (C, K) of such a layer, H the centred second moments of its input, and S the columns that belong to the unit,
the least squares that can be reached by changing the other columns and the bias are

    E(S) = trace(W_S ((H⁻¹)_SS)⁻¹ W_Sᵀ)                                                                            (1)

which is counted as a part of the spread trace(W H Wᵀ) of the layer's output. Sources: Li et al. 2017, arXiv 1608.08710
(magnitude); Hassibi and Stork 1993 (equation 1, the optimal brain surgeon, here for many columns at once).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.data.specs import specs
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.graph.model import constant
from eightbit.pruning.channels import Channels
from eightbit.pruning.effect import costs_of_units, probes
from eightbit.pruning.fit import fits
from eightbit.pruning.source_scores import norm_scales, taylor_rows
from eightbit.quant.encode.layers import TAKES_BIAS
from eightbit.quant.observe.calibrate import Progress
from eightbit.quant.observe.layout import Layout
from eightbit.quant.observe.moments import Moments, layer_moments
from eightbit.values.fields import OneOf, check

Scores = NDArray[np.float64]
"""What is lost with each unit, (units,)."""


@dataclass(frozen=True)
class Magnitude:
    """The L1 or L2 norm of all weights that go with a unit, in units of the mean of its group."""

    norm: Annotated[int, OneOf(1, 2)] = 2
    needs_data = False

    def __post_init__(self) -> None:
        check(self)

    def scores(
        self, channels: Channels, data: Any = None, *, source: Any = None, progress: Progress | None = None
    ) -> Scores:
        """The importance of every unit; the data are not looked at."""
        found = np.zeros(channels.size)
        for use in channels.found.uses:
            weight = constant(use.node.inputs[use.index])
            assert weight is not None
            if use.made is None and use.read is None:
                continue
            powers = np.abs(weight.astype(np.float64)) ** self.norm
            for axis, labels in use.axes.items():
                others = tuple(a for a in range(weight.ndim) if a != axis)
                found += by_unit(channels, labels, powers.sum(axis=others))
        found = found ** (1 / self.norm)
        for group in channels.groups:
            found[group.units] /= found[group.units].mean() or 1.0
        return found


@dataclass(frozen=True)
class Reconstruction:
    """Equation (1) over the calibration data, summed over the layers that read the unit."""

    needs_data = True

    def scores(
        self, channels: Channels, data: Any = None, *, source: Any = None, progress: Progress | None = None
    ) -> Scores:
        """The importance of every unit. Raises CalibrationError without data."""
        if data is None:
            raise CalibrationError("Reconstruction() looks at data; give some, or choose Magnitude()")
        readers = {
            str(use.node.name): use for use in channels.found.uses if use.read is not None and fits(use.node)
        }
        moments = layer_moments(channels.model, tuple(readers), data, progress=progress)
        found = np.zeros(channels.size)
        for name, use in readers.items():
            units = channels.units(use.axes[use.read])  # type: ignore[index]
            found += read_errors(use.node, units, moments[name], channels.size)
        return costs_of_units(channels, found, moments, probes(channels.model, data))


def read_errors(node: ir.Node, units: NDArray[np.int64], moments: Moments, size: int) -> Scores:
    """Equation (1) for the units (n,) on the axis that a layer reads, as a part of its output's spread, (size,)."""
    weight, layout = constant(node.inputs[1]), Layout.of(node)
    assert weight is not None
    rows = layout.rows(weight.astype(np.float64))
    hessian = moments.centred if node.op_type in TAKES_BIAS else moments.hessian
    inputs = rows.shape[2]
    owner = np.repeat(units, inputs // len(units))
    found = np.zeros(size)
    spread = float(((rows @ hessian) * rows).sum()) or 1.0
    damped = hessian + DAMPING * np.einsum("gkk->g", hessian)[:, None, None] / inputs * np.eye(inputs)
    for part, h in zip(rows, damped, strict=True):
        if not h.any():
            continue
        inverse = np.linalg.inv(h)
        for unit in np.unique(owner[owner >= 0]):
            columns = np.flatnonzero(owner == unit)
            weights = part[:, columns]
            lost = np.linalg.solve(inverse[np.ix_(columns, columns)], weights.T)
            found[unit] += float((weights * lost.T).sum()) / spread
    return found


DAMPING = 0.01
"""Of the mean diagonal of H, so that it can be inverted where channels are alike or silent."""


def by_unit(channels: Channels, labels: NDArray[np.int64], values: NDArray[np.float64]) -> Scores:
    """Values (n,) of positions on an axis, summed by unit, (units,)."""
    units = channels.units(labels)
    known = units >= 0
    return np.bincount(units[known], values[known], minlength=channels.size).astype(np.float64)


@dataclass(frozen=True)
class BatchNormScale:
    """The scale `|gamma|` of the BatchNorm behind the layers that make a unit; units without one stay.

    `prune` must be given the torch module, or an ONNX file that still has its BatchNormalization: `load` folds it.
    Source: Liu et al. 2017, arXiv 1708.06519 (network slimming).
    """

    needs_data = True

    def scores(
        self, channels: Channels, data: Any = None, *, source: Any = None, progress: Progress | None = None
    ) -> Scores:
        """The importance of every unit. Raises QuantizationError for a source without BatchNorm."""
        return by_makers(channels, norm_scales(source, data, specs(channels.model)))


@dataclass(frozen=True)
class Taylor:
    """What the loss changes without the channels of a unit, to first order, squared, in the mean over labelled batches.

    For torch modules, given to `prune` as they are: a graph has no gradients. Source: Molchanov et al. 2019, arXiv
    1906.10771, with a gate behind the BatchNorm where there is one.
    """

    needs_data = True

    def scores(
        self, channels: Channels, data: Any = None, *, source: Any = None, progress: Progress | None = None
    ) -> Scores:
        """The importance of every unit. Raises QuantizationError for a source that is no torch module."""
        return by_makers(channels, taylor_rows(source, data, specs(channels.model)))


def by_makers(channels: Channels, rows: Mapping[str, NDArray[np.float64]]) -> Scores:
    """Scores of layers' output channels (C,) by node, summed by unit; infinite for units of none of these layers."""
    found, known = np.zeros(channels.size), np.zeros(channels.size, bool)
    for use in channels.found.uses:
        name = str(use.node.name)
        if use.made is not None and name in rows:
            labels = use.axes[use.made]
            if rows[name].shape != labels.shape:
                raise QuantizationError(
                    f"layer {name!r} makes {len(labels)} channels in the graph and {len(rows[name])} in its source"
                )
            found += by_unit(channels, labels, rows[name])
            units = channels.units(labels)
            known[units[units >= 0]] = True
    if not known.any():
        raise QuantizationError(
            f"none of the layers {', '.join(map(repr, list(rows)[:4]))} makes channels that can be removed"
        )
    return np.where(known, found, np.inf)


Importance = Magnitude | Reconstruction | BatchNormScale | Taylor
