"""Every integer as the device's: ties, saturation, a million random sums, and a whole network."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.arith import fixedpoint
from eightbit.arith.affine import INT8
from labs.deployment import requantize as lab
from labs.network import chain

LEAST, MOST = -(2**31), 2**31 - 1


def test_the_high_product_saturates_and_keeps_all_bits():
    a = np.array([LEAST, LEAST, MOST, -3, 3, 0, 123_456_789], np.int32)
    b = np.array([LEAST, MOST, MOST, 2**30, 2**30, 5, -987_654_321], np.int32)
    np.testing.assert_array_equal(lab.high_product(a, b), fixedpoint.srdhm(a, b))


@pytest.mark.parametrize("exponent", [0, 1, 2, 7, 31])
def test_ties_of_the_division_go_away_from_zero(exponent):
    x = np.concatenate([np.arange(-40, 41), [LEAST, LEAST + 1, MOST - 1, MOST]]).astype(np.int32)
    np.testing.assert_array_equal(lab.divide_by_power(x, exponent), fixedpoint.rdpot(x, exponent))


@pytest.mark.parametrize("real", [0.4999999, 0.0037, 0.75, 1.5, 2.0**-20])
def test_a_million_sums_become_the_device_s_codes(real):
    multiplier, shift = fixedpoint.quantize_multiplier(real)
    rng = np.random.default_rng(0)
    sums = np.concatenate(
        [
            rng.integers(-int(300 / real), int(300 / real), 200_000).clip(LEAST, MOST),
            np.arange(-500, 500),  # where ties are
        ]
    ).astype(np.int32)
    right = fixedpoint.requantize_c(sums, multiplier, shift, 3, INT8)
    np.testing.assert_array_equal(lab.requantize(sums, multiplier, shift, 3), right)


def test_the_certificate_counts():
    ours = np.array([[1, 2], [3, -128]], np.int8)
    theirs = np.array([[1, 2], [4, 127]], np.int8)
    assert lab.certificate(ours, theirs) == (2, 255, (1, 0))
    assert lab.certificate(ours, ours) == (0, 0, None)


def test_a_layer_of_a_network_is_certified():
    rng = np.random.default_rng(1)
    q = eb.quantize(chain(rng.standard_normal((10, 16))), x := rng.standard_normal((500, 16)).astype("f"))
    layer = next(op for op in q.program.ops if hasattr(op, "weight"))
    into, out = (q.program.tensors[name] for name in (layer.inputs[0], layer.outputs[0]))
    codes = np.clip(np.rint(x / into.scale) + into.zero_point, -128, 127)
    sums = ((codes - into.zero_point) @ layer.weight.astype(float) + layer.bias).astype(np.int32)
    factor = into.scale.astype(float) * layer.weight_scale.astype(float) / float(out.scale)
    made = lab.requantize(sums, *fixedpoint.quantize_multiplier(factor), out.zero_point)
    theirs = q.run(x, engine="numpy", arithmetic="tflite") / out.scale + out.zero_point
    assert lab.certificate(made, np.rint(theirs).astype(np.int8)) == (0, 0, None)
