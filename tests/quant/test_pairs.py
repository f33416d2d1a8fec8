"""Weights whose products no kernel saturates in pairs: nearest codes by search, whole networks by what proves them."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import eightbit as eb
from eightbit.arith.affine import IntType
from eightbit.deploy.saturation import can_saturate, proven
from eightbit.quant.methods.pairs import pairs_along
from eightbit.quant.methods.rounding import GPTQ, AdaRound, Nearest
from tests.graph.graphs import normal, parse
from tests.small_net import images, small_net

INT8 = IntType(8, signed=True, narrow=True)
UNITS = st.floats(-200, 200, width=32)


@given(arrays(np.float32, (1, 1, 2), elements=UNITS))
def test_the_nearest_codes_of_a_pair_are_the_nearest_that_are_safe(units):
    """Every neighbour within two steps and every pair at the limit is no nearer."""
    found = Nearest().codes(units, np.float32(1), INT8, pairs=pairs_along(np.arange(2)))[0, 0]
    assert not can_saturate(found.astype(np.int8)[:, None]).any()
    near = [range(int(c) - 2, int(c) + 3) for c in found]
    limit = [(s * a, s * (128 - a)) for a in range(1, 128) for s in (1, -1)]
    tried = [pair for pair in itertools.chain(itertools.product(*near), limit) if max(map(abs, pair)) < 128]
    safe = [pair for pair in tried if not can_saturate(np.int8(pair)[:, None]).any()]
    errors = ((np.array(safe) - units[0, 0].astype(np.float64)) ** 2).sum(axis=1)
    assert ((found - units[0, 0].astype(np.float64)) ** 2).sum() <= errors.min() + 1e-9


@given(
    rows=arrays(np.float32, (2, 3, 9), elements=UNITS),
    order=st.permutations(range(9)),
    dead=st.sets(st.integers(0, 8), max_size=8),
    rounding=st.sampled_from([Nearest(), GPTQ(), GPTQ(block=2), AdaRound(iterations=10)]),
)
def test_no_rounding_leaves_a_pair_that_can_saturate(rows, order, dead, rounding):
    order = np.array(order)
    x = np.random.default_rng(0).normal(size=(2, 9, 40))
    x[:, sorted(dead)] = 0
    codes = rounding.codes(rows, np.float32(1), INT8, x @ x.transpose(0, 2, 1), pairs=pairs_along(order))
    assert not can_saturate(codes[..., order].reshape(-1, 9).T.astype(np.int8)).any()


BODY = """g (float[N,6,9,9] x) => (float[N,10] y) {
    a = Conv <pads=[1,1,1,1]> (x, w3)
    b = Conv <group=2> (a, wg)
    c = Conv <group=6> (b, wd)
    d = GlobalAveragePool (c)
    e = Flatten (d)
    f = MatMul (e, w)
    y = Gemm <transB=1> (f, wt)
}"""
WEIGHTS = {"w3": (6, 6, 3, 3), "wg": (6, 3, 3, 3), "wd": (6, 1, 3, 3), "w": (6, 7), "wt": (10, 7)}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("processor", ["any", "x86-avx2"])
def test_a_network_for_such_processors_is_proven_and_close_to_what_others_get(processor, dynamic):
    model = eb.load(parse(BODY, **{n: normal(*s, seed=i) for i, (n, s) in enumerate(WEIGHTS.items())}))
    x = normal(16, 6, 9, 9)
    base = {"activations": eb.Activations(dynamic=True)} if dynamic else {}
    held, free = (eb.quantize(model, x, eb.Recipe(processor=p, **base)) for p in (processor, "x86-vnni"))
    assert proven(held.ir) and not proven(free.ir)
    assert held.ir.metadata_props["eightbit.processor"] == processor
    assert not eb.lint(held, "x86-avx2").findings or dynamic
    assert f"for {processor}" in str(held.report) and "avx2" not in str(free.report)
    wanted = np.asarray(model(x))
    errors = [float(((np.asarray(q(x)) - wanted) ** 2).sum()) for q in (held, free)]
    assert errors[0] < 3 * errors[1]


def test_what_is_not_known_to_be_safe_is_not_proven():
    q = eb.quantize(small_net(), images(8), eb.Recipe(processor="any"))
    codes = next(
        v for v in q.ir.graph.initializers.values() if v.dtype == ir.DataType.INT8 and len(v.shape) == 4
    )
    array = codes.const_value.numpy().copy()
    array.reshape(len(array), array.shape[1], -1)[0, :2, 0] = 65  # neighbours along the channels of one tap
    codes.const_value = ir.tensor(array, name=codes.name)
    assert not proven(q.ir)


def test_training_forgets_what_the_file_was_rounded_for():
    pytest.importorskip("torch")
    q = eb.refine(small_net(), images(16), eb.Recipe(processor="any"))
    if q.report.notes[-1].startswith("refined on"):
        assert "eightbit.processor" not in q.ir.metadata_props and q.report.recipe.processor == "x86-vnni"
