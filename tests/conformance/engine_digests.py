"""The NumPy engine's integers as digests, in a process that needs NumPy alone: another processor runs it.

    python -m tests.conformance.engine_digests PROGRAMS

PROGRAMS is a pickle of `{name: (program, feeds)}`. Printed is one line of JSON: the machine, and for every program and
arithmetic a digest of all its tensors of codes and outputs, or what the engine says instead.
"""

from __future__ import annotations

import json
import pickle
import platform
import sys
from collections.abc import Mapping
from hashlib import blake2s
from pathlib import Path

import numpy as np

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.errors import EngineError
from eightbit.integer.engine import run
from eightbit.integer.program import Program

Programs = Mapping[str, tuple[Program, Mapping[str, np.ndarray]]]


def digest(program: Program, feeds: Mapping[str, np.ndarray], arithmetic: Arithmetic) -> str:
    """Of all tensors by name, their shapes, types and bytes."""
    try:
        found = run(program, feeds, arithmetic=arithmetic, keep=True)
    except EngineError as cause:
        return str(cause)
    seen = blake2s(digest_size=16)
    for name in sorted(found):
        array = np.ascontiguousarray(found[name])
        seen.update(f"{name} {array.dtype.str} {array.shape}".encode())
        seen.update(array.tobytes())
    return seen.hexdigest()


def digests(programs: Programs) -> dict[str, str]:
    """For every program and arithmetic."""
    return {f"{name}, {a.value}": digest(*pair, a) for name, pair in programs.items() for a in Arithmetic}


if __name__ == "__main__":
    print(json.dumps([platform.machine(), digests(pickle.loads(Path(sys.argv[1]).read_bytes()))]))
