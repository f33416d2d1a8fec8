"""Weighing designs: how to measure many small effects together, each as precisely as if it were measured alone.

A design with m runs has an entry of +1 or -1 for each run and each effect, and its columns are orthogonal. Switch every
effect on with those signs, and effect j is the sum over the runs of sign times result, divided by m: the others
cancel. Source: Plackett and Burman 1946, "The design of optimum multifactorial experiments", Biometrika 33.
"""

from __future__ import annotations

from itertools import count

import numpy as np
from numpy.typing import NDArray

Signs = NDArray[np.float32]


def weighing_design(effects: int) -> Signs:
    """Signs (runs, effects), columns orthogonal to one another and to the constant; runs is little above effects.

    >>> weighing_design(3).T @ weighing_design(3)
    array([[4., 0., 0.],
           [0., 4., 0.],
           [0., 0., 4.]], dtype=float32)
    """
    smallest = next(m for m in count(effects + 1) if _hadamard(m) is not None)
    matrix = _hadamard(smallest)
    assert matrix is not None
    return (matrix * matrix[:, :1])[:, 1 : effects + 1]  # the first column is made constant and left out


def one_by_one(effects: int) -> Signs:
    """The design without any weighing: each effect by itself, in a run of its own."""
    return np.eye(effects, dtype=np.float32)


def _hadamard(order: int) -> Signs | None:
    """A matrix of +-1 (order, order) with orthogonal columns, by Sylvester's and Paley's constructions, or None."""
    if order == 1:
        return np.ones((1, 1), np.float32)
    if order % 4 == 0 and _is_prime(order - 1):
        return _paley(order - 1)
    half = _hadamard(order // 2) if order % 2 == 0 else None
    return None if half is None else np.block([[half, half], [half, -half]])


def _paley(prime: int) -> Signs:
    """Order prime + 1, for a prime of the form 4 k - 1: I + [[0, 1], [-1, Q]] with Q[i, j] the quadratic residue i - j.

    Source: Paley 1933, "On orthogonal matrices", Journal of Mathematics and Physics 12.
    """
    residue = np.full(prime, -1.0, np.float32)
    residue[np.arange(1, prime, dtype=np.int64) ** 2 % prime] = 1.0
    residue[0] = 0.0
    index = np.arange(prime)
    skew = np.zeros((prime + 1, prime + 1), np.float32)
    skew[0, 1:], skew[1:, 0] = 1.0, -1.0
    skew[1:, 1:] = residue[(index[:, None] - index[None, :]) % prime]
    return np.eye(prime + 1, dtype=np.float32) + skew


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % d for d in range(2, int(number**0.5) + 1))
