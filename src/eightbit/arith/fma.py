"""The fused multiply-add of float32, exactly: one rounding, on any machine.

x86 kernels with FMA instructions compute `a * b + c` with a single rounding; NumPy rounds twice. The float64 product
of two float32 is exact (48 bits); the sum with `c` may not be, and rounding it to float64 and then to float32 could
round twice. Rounding the float64 sum *to odd* keeps the information that it was inexact, so that the second rounding
is right (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def fma32(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> NDArray[np.float32]:
    """`a * b + c` on float32 arrays, rounded once to float32, ties to even; broadcasts like NumPy.

    Values whose result is subnormal or overflows are outside its contract.

    >>> a = np.float32(1 + 2**-12)
    >>> float(fma32(a, a, -1) - np.float32(2**-11)), float(a * a - np.float32(1) - np.float32(2**-11))
    (5.960464477539063e-08, 0.0)
    """
    a64, b64, c64 = (np.asarray(v, np.float32).astype(np.float64) for v in (a, b, c))
    product = a64 * b64  # exact: 24 + 24 bits
    total = product + c64
    # Knuth's two-sum: total + error == product + c exactly.
    part = total - product
    error = (product - (total - part)) + (c64 - part)
    bits = np.atleast_1d(total).view(np.int64)
    inexact_even = (np.atleast_1d(error) != 0) & (bits & 1 == 0)
    # The discarded part lies towards `error`: one ulp up in magnitude if it has the sign of the total, else down.
    outward = (np.atleast_1d(error) > 0) == (np.atleast_1d(total) > 0)
    odd = bits + np.where(inexact_even, np.where(outward, 1, -1), 0)
    result: NDArray[np.float32] = odd.view(np.float64).astype(np.float32).reshape(np.shape(total))
    return result
