"""The knocked sensor: what the codes were spent on, a range found in one pass, and a network that hears again."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.arith import affine
from labs.cases import knocked
from labs.network import chain


def test_codes_are_counted():
    values = np.array([-1.0, 0.0, 0.001, 2.0, 5000.0])
    for low, high in [(-1.0, 2.0), (-1.0, 5000.0), (1.0, 3.0)]:
        codes = affine.quantize(values, affine.params_from_range(low, high, affine.INT8))
        assert knocked.codes_used(values, low, high) == len(np.unique(codes))


@pytest.mark.parametrize("share", [0.99, 0.999])
def test_the_range_leaves_the_knocks_out(share):
    rng = np.random.default_rng(0)
    batches = rng.standard_normal((400, 1000))
    batches[::50, 7] = 1000.0 * np.arange(1, 9)  # one number of 50,000
    batches[3:] *= 1 + np.arange(397)[:, None] / 200  # it grows louder, so the first batch is no measure
    low, high = knocked.limits(iter(batches), share)
    assert high == pytest.approx(np.quantile(batches[batches > 0], share), rel=0.02)
    assert low == pytest.approx(np.quantile(batches[batches < 0], 1 - share), rel=0.02)


def test_a_range_of_one_side_ends_in_zero():
    values = np.random.default_rng(0).uniform(5, 10, (20, 1000))
    values[10, 0] = 1e6
    low, high = knocked.limits(iter(values), 0.999)
    assert low == 0
    assert high == pytest.approx(10, rel=0.02)


def test_the_network_hears_ordinary_samples_again():
    rng = np.random.default_rng(0)
    model = eb.load(chain(*(rng.standard_normal(s) / np.sqrt(s[1]) for s in [(64, 32), (64, 64), (4, 64)])))
    calibration = rng.standard_normal((1024, 32)).astype(np.float32)
    calibration[[77, 800]] *= 1000
    q = knocked.mended(model, calibration)
    ordinary = rng.standard_normal((256, 32)).astype(np.float32)
    assert eb.compare(model, q, ordinary).outputs[0].sqnr_db > 30
    assert q.report.islands == ()
    assert {params.itype.bits for params in q.report.params.values()} == {8}
