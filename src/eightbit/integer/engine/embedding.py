"""Rows of a table of codes, by number, as float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.errors import EngineError
from eightbit.integer.program import Embedding, Program


def embedding(
    op: Embedding, program: Program, arithmetic: Arithmetic
) -> Callable[[NDArray[np.integer]], NDArray[np.float32]]:
    """A function from ids (...) to rows (..., K): float32(code) * scale of the row, one rounding in float32.

    As in ONNX, an id below zero counts from the end. It is the same in every arithmetic.
    """
    rows = len(op.table)

    def apply(ids: NDArray[np.integer]) -> NDArray[np.float32]:
        outside = ids[(ids < -rows) | (ids >= rows)]
        if outside.size:
            raise EngineError(
                f"{op.name}: id {outside.flat[0]} in {op.inputs[0]!r}; the table has {rows} rows"
            )
        return op.table[ids].astype(np.float32) * op.scale[ids][..., None]

    return apply
