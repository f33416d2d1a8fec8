"""How many bytes of a microcontroller's flash a network in C takes, before anything is compiled."""

from __future__ import annotations

import numpy as np

from eightbit.deploy.c.steps import Biases, Value
from eightbit.deploy.c.text import Network

KERNELS = 4096
"""All kernels together take less, compiled by GCC 12 for a Cortex-M3 or M4 with -Os."""
CALL = 24
"""Machine code of one call: pointers into registers, and the branch."""


def flash_bytes(net: Network) -> int:
    """Bytes of the constants, which are exact, and room for the code: a bound from above, -Os, Cortex-M.

    Equal arrays are counted once, as they are written.
    """
    arrays: dict[tuple[str, bytes], int] = {}
    structs = calls = 0
    values: list[Value] = [*net.plan.constants.values()]
    for call in (call for step in net.plan.steps for call in step.calls):
        calls += 1
        for value in call.fields.values():
            values.append(value)
            structs += 4 * (len(value) if isinstance(value, tuple) else 1)
    for value in values:
        if isinstance(value, Biases):
            arrays["bias", value.bias.tobytes() + value.sums.tobytes()] = 4 * len(value.bias)
        elif isinstance(value, np.ndarray):
            arrays[str(value.dtype), value.tobytes()] = value.nbytes
    return sum(arrays.values()) + structs + CALL * calls + KERNELS
