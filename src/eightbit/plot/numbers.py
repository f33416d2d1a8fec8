"""Numbers and the codes that stand for them: ranges, histograms, rounding errors, differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from eightbit.arith.affine import QuantParams, dequantize, quantize
from eightbit.errors import QuantizationError
from eightbit.plot.look import BLACK, BLUE, INT8_COLOR, ORANGE, SKY, axes_for, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TICKS = 40


def histogram_with_grid(
    x: ArrayLike, params: QuantParams, *, bins: int = 120, ax: Axes | None = None
) -> Axes:
    """The distribution of `x` (any shape) over the real values that the codes of `params` stand for.

    The representable range is shaded, its values are ticks at the foot (thinned to at most MOST_TICKS), and the title
    says how much of `x` is clipped. `params` has one scale. Raises MissingExtra or QuantizationError.
    """
    axes, values, grid = axes_for(ax), _values(x), grid_points(params)
    axes.hist(values, bins=bins, color=SKY, label="values")
    axes.axvspan(grid[0], grid[-1], color=ORANGE, alpha=0.15, lw=0, zorder=0, label="range of the codes")
    shown = grid[:: -(-len(grid) // MOST_TICKS)]
    axes.plot(
        shown, np.zeros(len(shown)), "|", color=INT8_COLOR, ms=10, mew=1.2, clip_on=False, label="codes"
    )
    half = float(params.scale) / 2
    clipped = float(np.mean((values < grid[0] - half) | (values > grid[-1] + half)))
    axes.set(xlabel="value", ylabel="count", title=f"scale {float(params.scale):.4g}, {clipped:.2%} clipped")
    axes.legend()
    return axes


def grid_points(params: QuantParams) -> np.ndarray:
    """Every real value that a code of `params` stands for, ascending float32. Raises QuantizationError per channel."""
    if params.axis is not None:
        raise QuantizationError("these parameters have one scale a channel; pick one channel to draw")
    codes = np.arange(params.itype.qmin, params.itype.qmax + 1)
    return dequantize(codes.astype(params.itype.dtype), params)


def codes(x: ArrayLike, params: QuantParams, *, ax: Axes | None = None) -> Axes:
    """How often each code of `params` is used for `x` (any shape); the title counts the codes in use."""
    axes, itype = axes_for(ax), params.itype
    q = quantize(np.asarray(x, np.float32), params).astype(np.int64).ravel()
    counts = np.bincount(q - itype.qmin, minlength=itype.qmax - itype.qmin + 1)
    axes.bar(np.arange(itype.qmin, itype.qmax + 1), counts, width=1.0, color=INT8_COLOR)
    axes.set(xlabel="code", ylabel="count", title=f"{np.count_nonzero(counts)} of {len(counts)} codes in use")
    return axes


def quantization_error(x: ArrayLike, params: QuantParams, *, ax: Axes | None = None) -> Axes:
    """The error of each value of `x` against the value: a sawtooth of half a step, and slopes where it clips."""
    axes = axes_for(ax)
    values = np.sort(_values(x))
    grid_points(params)
    error = dequantize(quantize(values, params), params) - values
    half = float(params.scale) / 2
    axes.plot(values, error, ".", ms=2.5, color=INT8_COLOR, label="dequantized − value")
    for bound in (-half, half):
        axes.axhline(bound, color=BLACK, lw=0.8, ls="--", label="half a step" if bound > 0 else None)
    axes.set(xlabel="value", ylabel="error", title=f"step {float(params.scale):.4g}")
    axes.legend()
    return axes


def weight_ranges(weight: ArrayLike, *, axis: int = 0, ax: Axes | None = None) -> Axes:
    """Smallest and largest weight of each channel along `axis`, widest first, beside the range of the whole tensor."""
    axes, w = axes_for(ax), np.asarray(weight)
    rows = np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)
    lo, hi = rows.min(axis=1), rows.max(axis=1)
    order = np.argsort(-np.maximum(np.abs(lo), np.abs(hi)), kind="stable")
    axes.bar(
        np.arange(len(rows)), (hi - lo)[order], bottom=lo[order], width=0.9, color=BLUE, label="each channel"
    )
    axes.axhspan(lo.min(), hi.max(), color=ORANGE, alpha=0.15, lw=0, zorder=0, label="whole tensor")
    axes.set(xlabel="channel, widest first", ylabel="weight")
    axes.legend()
    return axes


def difference_histogram(
    a: ArrayLike, b: ArrayLike, *, most: int = 4, names: tuple[str, str] = ("a", "b"), ax: Axes | None = None
) -> Axes:
    """How often codes `a` and `b` (integers, one shape) differ by how much.

    Differences beyond `most` are added up at the ends; counts are on a logarithmic scale.
    Raises QuantizationError if the shapes differ.
    """
    axes, first, second = axes_for(ax), np.asarray(a, np.int64), np.asarray(b, np.int64)
    if first.shape != second.shape:
        raise QuantizationError(
            f"codes of shapes {first.shape} and {second.shape} cannot be compared one by one"
        )
    delta = np.clip(first - second, -most, most).ravel()
    counts = np.bincount(delta + most, minlength=2 * most + 1)
    axes.bar(np.arange(-most, most + 1), counts, color=BLUE, width=0.8)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xticks(range(-most, most + 1))
    axes.set(
        xlabel=f"{label(names[0])} − {label(names[1])}, codes",
        ylabel="count",
        title=f"{delta.size - counts[most]:,} of {delta.size:,} codes differ",
    )
    return axes


def _values(x: ArrayLike) -> np.ndarray:
    values = np.asarray(x, np.float32).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        raise QuantizationError(
            f"an array of shape {np.shape(x)} with {values.size} values cannot be drawn: finite values are needed"
        )
    return values
