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
    """Every code of every tensor, whatever has been learned."""
    wanted, got = engine_codes(q, x), module.codes(x)
    assert set(got) == set(wanted)
    for name, codes in wanted.items():
        np.testing.assert_array_equal(got[name], codes, name)
