"""How many windows there are: ONNX's rules, counted by hand."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from eightbit.arith.windows import window_count


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "pads", "floor", "ceil"),
    [
        (8, 3, 2, (0, 0), 3, 4),  # the last window hangs over the end by one
        (4, 1, 3, (0, 1), 2, 2),
        (2, 1, 2, (0, 1), 2, 1),  # in ceil mode the window at 2 would start in the end padding: there is none
        (3, 2, 3, (1, 1), 2, 2),
        (2, 2, 3, (1, 1), 1, 1),  # a window at 3 would start behind begin padding and data
        (5, 2, 2, (0, 0), 2, 3),
    ],
)
def test_the_number_of_windows(
    length: int, kernel: int, stride: int, pads: tuple[int, int], floor: int, ceil: int
):
    assert window_count(length, kernel, stride, pads) == floor
    assert window_count(length, kernel, stride, pads, ceil=True) == ceil


@pytest.mark.parametrize("seed", range(40))
def test_ceil_mode_has_as_many_windows_as_onnx_runtime(seed: int):
    rng = np.random.default_rng(seed)
    kernel = int(rng.integers(1, 5))
    pads = (int(rng.integers(0, kernel)), int(rng.integers(0, kernel)))
    stride, length = int(rng.integers(1, 5)), int(rng.integers(kernel, 12))
    node = helper.make_node(
        "MaxPool", ["x"], ["y"], kernel_shape=[kernel], strides=[stride], pads=pads, ceil_mode=1
    )
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", [1, 1, length]), ("y", None))
    ]
    graph = helper.make_graph([node], "pool", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.zeros((1, 1, length), np.float32)})
    assert window_count(length, kernel, stride, pads, ceil=True) == found.shape[-1]
