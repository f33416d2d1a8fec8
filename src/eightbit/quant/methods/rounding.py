"""To which of its two neighbouring codes a weight goes.

In: rows of weights (G groups, C channels, K inputs), their scales, and (but for `Nearest`) the second moments of what
they multiply. Out: integer codes. Rounding each weight to the nearest minimises the error of the *weights*; what
counts is the error of the layer's *output*, trace(E H Eᵀ) with E the weights' error and H the moments, and there the
weights can make up for one another. Chapter 4 derives both methods. Where `pairs` of inputs are given, no pair's codes
are too large together (module `pairs`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.affine import IntType
from eightbit.errors import QuantizationError
from eightbit.quant.methods.pairs import Pairs, held, partners, room
from eightbit.values.fields import Above, AtLeast, check

Codes = NDArray[np.int32]
Zeros = NDArray[np.bool_]
"""Where weights were pruned, (G, C, K): their codes are 0, whatever the weights and data say."""


@dataclass(frozen=True)
class Nearest:
    """Each weight to its nearest code, ties to even. Needs no data."""

    needs_data = False
    in_turn = False

    def codes(
        self,
        rows: NDArray[np.float32],
        scale: NDArray[np.float32],
        itype: IntType,
        hessian: NDArray[np.float64] | None = None,
        zeros: Zeros | None = None,
        pairs: Pairs | None = None,
    ) -> Codes:
        """Codes (G, C, K) of `rows` (G, C, K), scales that broadcast with them; `hessian` is not looked at."""
        units = rows / scale
        codes = np.clip(np.rint(units), itype.qmin, itype.qmax).astype(np.int32)
        codes = codes if zeros is None else np.where(zeros, np.int32(0), codes)
        return codes if pairs is None else held(codes, units, pairs, itype)


@dataclass(frozen=True)
class GPTQ:
    """One input at a time, the rest of the row makes up for the error made so far, in closed form.

    `damping` is added to the diagonal of the moments, as a fraction of its mean. Inputs go in the order of falling
    energy. Source: Frantar et al. 2022, arXiv 2210.17323, algorithm 1 (with activation order).

    With `in_turn` a recipe's layers are rounded one after another, each on what the layers before it and the codes of
    activations make of its input, and make up for that (`encode.sequential`).
    """

    damping: Annotated[float, Above(0)] = 0.01
    block: Annotated[int, AtLeast(1)] = 128
    in_turn: bool = False
    needs_data = True

    def __post_init__(self) -> None:
        check(self)

    def codes(
        self,
        rows: NDArray[np.float32],
        scale: NDArray[np.float32],
        itype: IntType,
        hessian: NDArray[np.float64] | None = None,
        zeros: Zeros | None = None,
        pairs: Pairs | None = None,
    ) -> Codes:
        """Codes (G, C, K) of `rows` (G, C, K), scales that broadcast with them, moments (G, K, K)."""
        hessian = _needed(hessian, self)
        groups, channels, inputs = rows.shape
        energy = np.einsum("gkk->gk", hessian)
        seen = np.flatnonzero(energy.any(axis=0))
        if (
            len(seen) < inputs
        ):  # the others are always zero, as under padding: they matter to nothing, any code will do
            result = Nearest().codes(rows, scale, itype, None, zeros, pairs)
            if len(seen):
                kept = replace(self, damping=self.damping * len(seen) / inputs)  # of the mean over all inputs
                steps = scale[..., seen] if _width(scale) == inputs else scale
                part = hessian[:, seen[:, None], seen]
                left = None if zeros is None else zeros[..., seen]
                both = None if pairs is None else _among(pairs, seen)
                result[..., seen] = kept.codes(rows[..., seen], steps, itype, part, left, both)
            return result if pairs is None else _beside(result, seen, pairs, itype)
        order = np.argsort(-energy, axis=1, kind="stable")
        width = np.broadcast_to(scale, (*rows.shape[:2], _width(scale)))
        steps = np.broadcast_to(_turned(width, order), (inputs, groups, channels))
        gone = None if zeros is None else _turned(zeros, order, bool)
        codes = np.zeros((inputs, groups, channels), np.int32)
        others, place = None if pairs is None else _others(pairs, order), np.arange(groups)

        def choose(k: int, left: NDArray[np.float64]) -> NDArray[np.float64]:
            bounds = (itype.qmin, itype.qmax) if others is None else room(codes[others[k], place], itype)
            codes[k] = np.clip(np.rint(left / steps[k]), *bounds)
            if gone is not None:
                codes[k][gone[k]] = 0
            return np.asarray(codes[k] * steps[k])

        _sweep(rows, _factor(hessian, order, self.damping), order, self.block, choose)
        result = np.empty((groups, channels, inputs), np.int32)
        np.put_along_axis(
            result, np.broadcast_to(order[:, None, :], result.shape), codes.transpose(1, 2, 0), axis=2
        )
        return result


def _others(pairs: Pairs, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place in each group's `order` (G, K) of the other of the pair that is at each place, (K, G)."""
    places = np.argsort(order, axis=1)
    other = partners(pairs, order.shape[1])[order]
    return np.take_along_axis(places, other, axis=1).T


def _among(pairs: Pairs, seen: NDArray[np.int64]) -> Pairs:
    """Those pairs whose inputs are both among `seen`, by their place there."""
    return np.searchsorted(seen, pairs[:, np.isin(pairs, seen).all(axis=0)])


def _beside(codes: Codes, seen: NDArray[np.int64], pairs: Pairs, itype: IntType) -> Codes:
    """`codes`, those of inputs not `seen` cut to what their neighbours leave."""
    firsts, seconds = np.isin(pairs, seen)
    for ours, theirs in (pairs[:, firsts & ~seconds][::-1], pairs[:, seconds & ~firsts]):
        codes[..., ours] = np.clip(codes[..., ours], *room(codes[..., theirs], itype))
    return codes


def _turned(x: NDArray[Any], order: NDArray[np.int64], dtype: Any = np.float64) -> NDArray[Any]:
    """(K, G, C) of an array (G, C, K), inputs in their order: all rows of an input lie side by side."""
    moved = np.take_along_axis(x, order[:, None, :], axis=2) if x.shape[2] == order.shape[1] else x
    return np.ascontiguousarray(moved.transpose(2, 0, 1), dtype=dtype)


def _sweep(
    rows: NDArray[Any],
    factor: NDArray[np.floating],
    order: NDArray[np.int64],
    block: int,
    choose: Callable[[int, NDArray[np.float64]], NDArray[np.float64]],
) -> None:
    """Let `choose` set each input's weights (G, C) in the given order, and the inputs behind make up for the errors."""
    left, inputs = _turned(rows, order), rows.shape[2]
    for start in range(0, inputs, block):
        stop = min(start + block, inputs)
        errors = np.empty((stop - start, *left.shape[1:]))
        for k in range(start, stop):
            chosen = choose(k, left[k])
            error = errors[k - start]
            error[:] = (left[k] - chosen) / factor[:, k, k, None]
            left[k + 1 : stop] -= error * factor[:, k, k + 1 : stop, None].transpose(1, 0, 2)
        left[stop:] -= (
            factor[:, start:stop, stop:].transpose(0, 2, 1) @ errors.transpose(1, 0, 2)
        ).transpose(1, 0, 2)


def pruned_rows(
    rows: NDArray[Any], zeros: Zeros, hessian: NDArray[np.float64], *, damping: float = 0.01, block: int = 128
) -> NDArray[np.float64]:
    """Rows (G, C, K) with zeros where `zeros` says, whose other weights make up for it in one sweep over the inputs.

    `hessian` (G, K, K) are the moments of what the rows multiply, `damping` and `block` as in `GPTQ`. Inputs that are
    always zero keep their weights. Source: Frantar and Alistarh 2023, arXiv 2301.00774 (SparseGPT).
    """
    order = np.argsort(-np.einsum("gkk->gk", hessian), axis=1, kind="stable")
    gone, found = _turned(zeros, order, bool), np.empty((rows.shape[2], *rows.shape[:2]))

    def choose(k: int, left: NDArray[np.float64]) -> NDArray[np.float64]:
        found[k] = np.where(gone[k], 0.0, left)
        return found[k]

    _sweep(rows, _factor(hessian, order, damping), order, block, choose)
    result = np.empty(rows.shape)
    np.put_along_axis(
        result, np.broadcast_to(order[:, None, :], rows.shape), found.transpose(1, 2, 0), axis=2
    )
    return result


def _factor(hessian: NDArray[np.float64], order: NDArray[np.int64], damping: float) -> NDArray[np.floating]:
    """U, upper triangular, with UᵀU the inverse of the damped, reordered moments.

    Raises QuantizationError if so little damping leaves them singular.
    """
    ordered = np.stack([h[np.ix_(o, o)] for h, o in zip(hessian, order, strict=True)])
    diagonal = np.einsum("gkk->gk", ordered)  # a writeable view
    dead = diagonal == 0
    diagonal += damping * diagonal.mean(axis=1, keepdims=True)
    diagonal[dead] = np.maximum(diagonal, 1.0)[dead]  # an input that is always zero: any code will do
    # H = R Rᵀ with R upper triangular (the Cholesky factor read backwards), so H⁻¹ = R⁻ᵀ R⁻¹ and U = R⁻¹.
    try:
        lower = np.linalg.cholesky(ordered[:, ::-1, ::-1])
    except np.linalg.LinAlgError:
        raise QuantizationError(
            f"damping {damping:g} leaves the moments of its input singular: the data have it in few directions only; "
            "give a larger one, or more data"
        ) from None
    return _upper_inverse(lower[:, ::-1, ::-1])


def _upper_inverse(
    upper: NDArray[np.floating], into: NDArray[np.floating] | None = None
) -> NDArray[np.floating]:
    """The inverse of upper triangular matrices (G, K, K), by halves; a general solver would do six times the work."""
    inverse = np.zeros_like(upper) if into is None else into
    size = upper.shape[1]
    if size <= 64:
        inverse[:] = np.linalg.inv(upper)
        return inverse
    half = size // 2
    first = _upper_inverse(upper[:, :half, :half], inverse[:, :half, :half])
    last = _upper_inverse(upper[:, half:, half:], inverse[:, half:, half:])
    np.matmul(-first, upper[:, :half, half:] @ last, out=inverse[:, :half, half:])
    return inverse


@dataclass(frozen=True)
class AdaRound:
    """Learn up or down for every weight by gradient descent on the output's error.

    The fraction is a stretched sigmoid that a growing penalty drives to 0 or 1. Because the loss of a linear layer is
    a quadratic form in the moments, no activations are kept. Source: Nagel et al. 2020, arXiv 2004.10568,
    equations 21 to 25; `penalty` is lambda for a loss whose moments have a mean diagonal of 1. `in_turn` is as in
    `GPTQ`.
    """

    iterations: Annotated[int, AtLeast(10)] = 500
    rate: Annotated[float, Above(0)] = 0.02
    penalty: Annotated[float, AtLeast(0)] = 0.3
    in_turn: bool = False
    needs_data = True

    def __post_init__(self) -> None:
        check(self)

    def codes(
        self,
        rows: NDArray[np.float32],
        scale: NDArray[np.float32],
        itype: IntType,
        hessian: NDArray[np.float64] | None = None,
        zeros: Zeros | None = None,
        pairs: Pairs | None = None,
    ) -> Codes:
        """Codes (G, C, K) of `rows` (G, C, K), scales that broadcast with them, moments (G, K, K)."""
        hessian = _needed(hessian, self)
        trace = np.einsum("gkk->g", hessian).mean() / hessian.shape[1]
        h = (hessian / trace if trace > 0 else hessian).astype(np.float32)
        units = rows / np.asarray(scale, np.float32)  # weights in steps of the grid
        floor = np.floor(units)
        rest = units - floor
        v = -np.log((_ZETA - _GAMMA) / np.clip(rest - _GAMMA, 1e-3, None) - 1).astype(np.float32)
        mean: NDArray[Any] = np.zeros_like(v)
        square: NDArray[Any] = np.zeros_like(v)
        for t in range(1, self.iterations + 1):
            sigmoid = 1 / (1 + np.exp(-v))
            stretched = sigmoid * (_ZETA - _GAMMA) + _GAMMA
            up = np.clip(stretched, 0, 1)
            codes = np.clip(floor + up, itype.qmin, itype.qmax)
            if zeros is not None:
                codes[zeros] = 0
            gradient = (codes - units) @ h
            warm = t / self.iterations
            if warm > 0.2:
                beta = 2 + 18 * (1 - (warm - 0.2) / 0.8)
                distance = 2 * up - 1
                gradient -= self.penalty * beta * np.sign(distance) * np.abs(distance) ** (beta - 1)
            gradient *= (_ZETA - _GAMMA) * sigmoid * (1 - sigmoid) * ((stretched > 0) & (stretched < 1))
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            v -= self.rate * (mean / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        upward = 1 / (1 + np.exp(-v)) * (_ZETA - _GAMMA) + _GAMMA >= 0.5
        chosen = np.clip(floor + upward, itype.qmin, itype.qmax).astype(np.int32)
        chosen = chosen if zeros is None else np.where(zeros, np.int32(0), chosen)
        return chosen if pairs is None else held(chosen, units, pairs, itype)


def _width(scale: NDArray[Any]) -> int:
    """How many scales each row has: one, or one for each of its inputs."""
    return scale.shape[-1] if np.ndim(scale) else 1


_ZETA, _GAMMA = 1.1, -0.1  # how far the sigmoid is stretched beyond [0, 1]

Rounding = Nearest | GPTQ | AdaRound


def output_error(
    rows: NDArray[np.float32], codes: Codes, scale: NDArray[np.float32], hessian: NDArray[np.float64]
) -> float:
    """The squared error of a layer's outputs over the data in `hessian`: sum over rows e of e H eᵀ."""
    return float(row_errors(rows, codes, scale, hessian).sum())


def row_errors(
    rows: NDArray[np.float32], codes: Codes, scale: NDArray[np.float32], hessian: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The squared output error e H eᵀ for the error e of every row, (G, C)."""
    e = codes * np.asarray(scale, np.float64) - rows
    return np.asarray(((e @ hessian) * e).sum(axis=2))


def _needed(hessian: NDArray[np.float64] | None, rounding: Rounding) -> NDArray[np.float64]:
    if hessian is None:
        raise QuantizationError(f"{rounding} looks at data; give the layer's moments")
    return hessian
