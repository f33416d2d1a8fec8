"""The codes of a module beside those of the engines."""

import numpy as np

import eightbit as eb
from eightbit.deploy.sessions import run_island
from eightbit.integer import engine


def engine_codes(q: eb.QuantizedModel, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of codes of a run in the NumPy engine, by name."""
    found = engine.run(q.program, {q.program.inputs[0]: x}, island=run_island, keep=True)
    return {name: found[name] for name in q.program.tensors if name in found}


def assert_same_codes(module, q: eb.QuantizedModel, x: np.ndarray) -> None:
    """Every tensor within one step, and nearly all codes equal: only sums of two floats round elsewhere at ties."""
    wanted, got = engine_codes(q, x), module.codes(x)
    assert set(got) == set(wanted)
    for name, codes in wanted.items():
        off = np.abs(got[name].astype(np.int64) - codes)
        assert off.max() <= 1, name
        assert (off > 0).mean() <= 0.001, name
