"""A mask is known by its values (a gap below everything else) and by its reader (a Softmax)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightbit.graph.prepare.fold import prepare
from eightbit.quant.choose.capable import capable
from eightbit.quant.choose.masks import ADDED, MAKES, MASKED, around_masks, watched
from eightbit.quant.methods.octaves import Octaves, is_mask
from tests.graph.graphs import graph

F32 = np.float32
LOWEST = float(np.finfo(F32).min)


@pytest.mark.parametrize("fill", [-16, -31, -32, -100, -1e4, -65504, LOWEST, -np.inf])
@pytest.mark.parametrize("others", [[0], [0, 0.5, -1.5], [-0.25], [2]])
def test_far_values_with_nothing_between_are_a_mask(fill, others):
    assert is_mask(np.array([fill, *others, fill], F32))


@pytest.mark.parametrize(
    "values",
    [
        [],
        [0, 0],
        [-np.inf, -np.inf],  # nothing else: no signal, but no mask either
        [-1e4, -1e4],
        [0, -10],  # not far enough for a Softmax
        [0, -30, 40],  # the others are as large
        [1e4, 0],  # above
        list(-np.geomspace(0.01, 1e6, 400)),  # no gap
        list(np.linspace(-700, 0, 64)),  # ALiBi
        [0, -1e4, np.inf],
    ],
)
def test_other_values_are_not(values):
    assert not is_mask(np.array(values, F32))


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20), st.integers(0, 20))
def test_octaves_do_not_depend_on_order_or_shards(values, cut):
    array = np.array(values, F32)
    whole, one, other = Octaves(), Octaves(), Octaves()
    whole.update(array[::-1])
    one.update(array[:cut])
    other.update(array[cut:])
    merged = one.merge(other)
    np.testing.assert_array_equal(merged.negative, whole.negative)
    assert (merged.highest, merged.masks, merged.silent) == (whole.highest, whole.masks, whole.silent)


SCORES = """g (float[N,4,8] x, float[N,4] m) => (float[N,4,4] y) {
    q = MatMul (x, w)
    k = Transpose <perm=[0,2,1]> (x)
    s = MatMul (q, k)
    r = Unsqueeze (m, one)
    h = Mul (r, fill)
    a = Add (s, h)
    b = Mul (a, half)
    p = Softmax <axis=-1> (b)
    y = Mul (p, p)
}"""
CONSTANTS = {"w": np.eye(8, dtype=F32), "one": np.array([1]), "fill": F32(-1e4), "half": F32(0.5)}


def test_what_stays_in_float_around_a_mask():
    model = prepare(graph(SCORES, **CONSTANTS))
    for node in model.graph:
        node.name = node.outputs[0].name
    assert watched(model) == {"a": ("s", "h")}
    assert around_masks(model, frozenset()) == {}
    assert around_masks(model, {"h"}) == {"a": ADDED, "b": MASKED, "h": MAKES, "r": MAKES}
    can = capable(model)
    fewer = can.without(around_masks(model, {"h"}))
    assert {*can.forms} - {*fewer.forms} == {"a", "b", "h", "r"}
    assert fewer.refusals["b"] == MASKED


def test_a_mask_that_others_read_is_made_all_the_same():
    """What makes a mask stays in float only if it makes nothing else."""
    model = prepare(graph(SCORES.replace("y = Mul (p, p)", "y = Mul (p, h)"), **CONSTANTS))
    for node in model.graph:
        node.name = node.outputs[0].name
    assert around_masks(model, {"h"}) == {"a": ADDED, "b": MASKED}


def test_only_additions_before_a_softmax_are_looked_at():
    """A residual stream may hold outliers that look like a mask."""
    body = "g (float[N,8] x) => (float[N,8] y) { a = MatMul (x, w) b = Add (a, x) y = MatMul (b, w) }"
    assert watched(prepare(graph(body, w=np.eye(8, dtype=F32)))) == {}
