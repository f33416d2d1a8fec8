"""Packed codes: by the definition, there and back, and as ONNX stores them."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eightbit.arith.packing import pack, unpack, width_of
from eightbit.errors import QuantizationError


def codes_of(width):
    elements = st.integers(-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    return hnp.arrays(np.int8, hnp.array_shapes(max_dims=3, max_side=7), elements=elements)


@pytest.mark.parametrize("width", [2, 4, 8])
@given(data=st.data())
def test_packed_bytes_are_one_number_in_base_two_to_the_width(width, data):
    codes = data.draw(codes_of(width))
    number = sum((int(c) % 2**width) << (i * width) for i, c in enumerate(codes.reshape(-1)))
    size = -(-codes.size * width // 8)
    assert pack(codes, width).tobytes() == number.to_bytes(size, "little")
    np.testing.assert_array_equal(unpack(pack(codes, width), width, codes.shape), codes)


@pytest.mark.parametrize(("width", "dtype"), [(4, onnx.TensorProto.INT4), (2, onnx.TensorProto.INT2)])
@given(data=st.data())
def test_onnx_reads_the_same_codes(width, dtype, data):
    codes = data.draw(codes_of(width))
    tensor = onnx.TensorProto(data_type=dtype, dims=codes.shape, raw_data=pack(codes, width).tobytes())
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int8), codes)


@given(codes_of(8))
def test_the_width_is_the_least_that_holds_the_codes(codes):
    width = width_of(codes)
    np.testing.assert_array_equal(unpack(pack(codes, width), width, codes.shape), codes)
    if width > 2:
        with pytest.raises(QuantizationError, match=f"do not fit {width // 2} bits"):
            pack(codes, width // 2)


def test_nothing_packs_to_nothing():
    assert unpack(pack(np.zeros((0, 3), np.int8), 2), 2, (0, 3)).shape == (0, 3)


def test_wrong_sizes_and_widths_are_named():
    with pytest.raises(QuantizationError, match=r"shape \(5,\) at 4 bits take 3 bytes; found 2"):
        unpack(np.zeros(2, np.uint8), 4, (5,))
    with pytest.raises(QuantizationError, match="codes of 3 bits cannot be packed"):
        pack(np.zeros(2, np.int8), 3)
