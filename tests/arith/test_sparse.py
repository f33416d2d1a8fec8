"""Codes without their zeros: there and back, the bytes they take, and parts that do not fit."""

import numpy as np
import pytest

from eightbit.arith.sparse import from_sparse, sparse_bytes, sparse_parts
from eightbit.errors import QuantizationError


@pytest.mark.parametrize("width", [2, 4, 8, 16])
@pytest.mark.parametrize(
    ("shape", "share"), [((5, 7), 0.9), ((3, 2, 3, 3), 0.0), ((16,), 1.0), ((0, 4), 0.5)]
)
def test_codes_come_back_and_the_bytes_are_counted(width, shape, share):
    random = np.random.default_rng(width)
    dtype = np.int16 if width == 16 else np.int8
    codes = random.integers(1, 2 ** (width - 1), shape).astype(dtype) * random.choice([-1, 1], shape).astype(
        dtype
    )
    codes[random.random(shape) < share] = 0
    where, values = sparse_parts(codes, width)
    assert where.nbytes + values.nbytes == sparse_bytes(codes, width)
    back = from_sparse(where, values, width, shape)
    np.testing.assert_array_equal(back, codes)
    assert back.dtype == codes.dtype


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda where, values: (where[:-1], values), "of shape \\(5, 7\\) takes 5 bytes; found 4"),
        (lambda where, values: (where.astype(np.int8), values), "takes 5 bytes"),
        (lambda where, values: (where, values[:-1]), "room for 6 other codes; found 5"),
        (lambda where, values: (where | np.uint8([0, 0, 0, 0, 8]), values), "beyond the 35 of shape"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, said):
    codes = np.zeros((5, 7), np.int8)
    codes.ravel()[::6] = 9
    with pytest.raises(QuantizationError, match=said):
        from_sparse(*change(*sparse_parts(codes, 8)), 8, (5, 7))
