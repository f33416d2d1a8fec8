"""Activations of 2 to 7 bits: narrow codes in bytes, the same integers in every engine."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.deploy.sessions import integer_tensors, optimized_ops, run_island
from eightbit.integer import engine
from tests.small_net import images, small_net


@pytest.fixture(scope="module")
def net() -> eb.Model:
    return eb.load(small_net())


def narrow(net: eb.Model, bits: int, **options) -> eb.QuantizedModel:
    return eb.quantize(net, images(32), eb.Recipe(activations=eb.Activations(bits=bits, **options)))


@pytest.mark.parametrize("bits", range(2, 8))
@pytest.mark.parametrize("symmetric", [False, True])
def test_codes_stay_within_their_bits_and_engines_agree(net: eb.Model, bits: int, symmetric: bool):
    q = narrow(net, bits, symmetric=symmetric)
    x = 3 * images(16, seed=1)  # beyond what calibration saw: codes saturate
    feeds = {"image": x}
    runtime = integer_tensors(q.ir, feeds)
    mine = engine.run(q.program, feeds, island=run_island, keep=True)
    names = [name for name in runtime if name.endswith("_q")]
    assert len(names) >= 7
    for name in names:
        np.testing.assert_array_equal(mine[name], runtime[name], err_msg=name)
        assert mine[name].min() >= -128
        assert mine[name].max() <= 2**bits - 1 - 128
    assert any(mine[name].max() == 2**bits - 1 - 128 for name in names)
    np.testing.assert_array_equal(q.run(x, engine="numpy"), q(x))


def test_layers_stay_integer_kernels(net: eb.Model):
    ops = [op for op, _ in optimized_ops(narrow(net, 4).ir)]
    assert ops.count("QLinearConv") == 2
    assert "Conv" not in ops


def test_each_bit_is_worth_something(net: eb.Model):
    x = images(32, seed=1)
    noise = [float(np.square(narrow(net, bits)(x) - net(x)).mean()) for bits in (2, 4, 6, 8)]
    assert noise == sorted(noise, reverse=True)


def test_the_report_has_every_tensor_and_a_file_keeps_them(net: eb.Model, tmp_path):
    q, wide = narrow(net, 4), narrow(net, 8)
    names = [[row.name for row in eb.compare(net, m, images(8)).layers] for m in (q, wide)]
    assert names[0] == names[1] != []
    again = eb.open(q.save(tmp_path / "narrow.onnx"))
    np.testing.assert_array_equal(again(images(8)), q(images(8)))


def test_single_layers_may_be_narrow(net: eb.Model):
    q = eb.quantize(
        net, images(32), eb.Recipe(overrides={"body": eb.Layer(activations=eb.Activations(bits=3))})
    )
    kept = engine.run(q.program, {"image": images(8)}, island=run_island, keep=True)
    narrow_ones = [n for n, c in kept.items() if n.endswith("_q") and c.max() <= 7 - 128]
    assert narrow_ones == ["c2_q"]


@pytest.mark.parametrize("bits", [1, 9, 12, 17])
def test_other_widths_are_refused(bits: int):
    with pytest.raises(eb.QuantizationError, match=r"give an integer equal to .* 8 or 16"):
        eb.Activations(bits=bits)
