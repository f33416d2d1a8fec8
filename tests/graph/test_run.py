"""Float sessions that are asked for many tensors."""

import numpy as np
import pytest

from eightbit.graph import run
from eightbit.graph.run import FloatSession
from tests.graph.graphs import graph, normal

NET = "g (float[N,8] x) => (float[N,8] y) { a = Relu (x) b = Add (a, w) c = Mul (b, b) y = Neg (c) }"
DATA = normal(4, 8, seed=1)


@pytest.mark.parametrize("held", [1, 300, 2**28])
def test_each_gives_what_run_gives_however_little_is_held(held, monkeypatch):
    """The tensors of 4 x 8 numbers take 128 bytes each."""
    monkeypatch.setattr(run, "HELD", held)
    names = ["c", "x", "a", "w", "b", "y"]
    session = FloatSession(graph(NET, w=normal(8, seed=2)), names)
    asked = []
    real = session._session.run

    class Counted:
        def run(self, wanted, feeds):
            asked.append(list(wanted))
            return real(wanted, feeds)

    expected = session.run({"x": DATA})
    session._session = Counted()
    for _ in range(2):
        found = dict(session.each({"x": DATA}))
        assert found.keys() == set(names)
        for name in names:
            np.testing.assert_array_equal(found[name], expected[name])
    assert sorted(name for group in asked for name in group) == sorted(2 * ["c", "a", "b", "y"])
    assert max(map(len, asked)) == {1: 1, 300: 2}.get(held, 4)
