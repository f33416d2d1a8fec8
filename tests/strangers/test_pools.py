"""Pooling as exporters write it: windows, paddings, attributes that say what is the default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.strangers.graphs import graph, node, normal, weight
from tests.strangers.walk import walk

SIZE = {1: 33, 2: 9}


def between_convs(
    rng: np.random.Generator, pool: list[onnx.NodeProto], axes: int, opset: int
) -> onnx.ModelProto:
    """Conv, Relu, `pool` from r to d, Conv of one tap."""
    ones = [1] * axes
    return graph(
        [
            node("Conv", "x w1 b1", "c", pads=[1] * 2 * axes),
            node("Relu", "c", "r"),
            *pool,
            node("Conv", "d w2 b2", "y"),
        ],
        {"x": ["N", 3, *[SIZE[axes]] * axes]},
        {"y": ["N", 4, *[None] * axes]},
        {
            "w1": weight(rng, 8, 3, *[3] * axes),
            "b1": normal(rng, 8) / 10,
            "w2": weight(rng, 4, 8, *ones),
            "b2": normal(rng, 4) / 10,
        },
        opset=opset,
    )  # fmt: skip


AVERAGE = {
    "plain": (2, 17, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "opset 11": (2, 11, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "opset 22": (2, 22, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "dilations of one": (2, 19, {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [1, 1]}),
    "dilations of two": (2, 19, {"kernel_shape": [2, 2], "dilations": [2, 2]}),
    "asymmetric pads": (2, 17, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 1, 0]}),
    "pads counted": (2, 17, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "count_include_pad": 1}),
    "ceil": (2, 17, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "ceil, opset 19": (2, 19, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "dilations": [1, 1]}),
    "same upper": (2, 17, {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "same lower": (2, 17, {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "1D": (1, 17, {"kernel_shape": [2], "strides": [2]}),
    "1D with dilations": (1, 20, {"kernel_shape": [3], "strides": [2], "pads": [1, 1], "dilations": [1]}),
}  # fmt: skip


@pytest.mark.parametrize("name", AVERAGE)
def test_average_pool(name: str, tmp_path: Path) -> None:
    axes, opset, attributes = AVERAGE[name]
    rng = np.random.default_rng(1)
    model = between_convs(rng, [node("AveragePool", "r", "d", **attributes)], axes, opset)
    data = [{"x": normal(rng, 2, 3, *[SIZE[axes]] * axes)} for _ in range(10)]
    walk(model, data[:8], data[8:], tmp_path, floor=20)


def test_dilated_average_pool_stays_in_float_and_says_so(tmp_path: Path) -> None:
    """ONNX Runtime's QLinearAveragePool refuses the attribute `dilations`, and would be made between DQ and Q."""
    rng = np.random.default_rng(1)
    pool = node("AveragePool", "r", "d", kernel_shape=[2, 2], dilations=[2, 2])
    model = between_convs(rng, [pool], 2, 19)
    data = [{"x": normal(rng, 2, 3, 9, 9)} for _ in range(4)]
    found = walk(model, data[:3], data[3:], tmp_path, floor=20, recipes=("plain",))
    report = found.quantized["plain"].report
    assert report is not None
    assert [(i.node, i.reason) for i in report.islands] == [
        ("d_averagepool", "its windows are dilated by (2, 2); the integer kernels average neighbours")
    ]


OTHERS = {
    "max, ceil": [node("MaxPool", "r", "d", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)],
    "max, dilated": [node("MaxPool", "r", "d", kernel_shape=[2, 2], dilations=[2, 2])],
    "max of negative values with pads": [
        node("Neg", "r", "n"),
        node("MaxPool", "n", "d", kernel_shape=[3, 3], pads=[1] * 4),
    ],
    "max, indices left out by name": [node("MaxPool", "r", "d _", kernel_shape=[3, 3], strides=[3, 3])],
    "max, indices used": [
        node("MaxPool", "r", "p i", kernel_shape=[3, 3], strides=[3, 3]),
        node("MaxUnpool", "p i", "d", kernel_shape=[3, 3], strides=[3, 3]),
    ],
    "Lp": [node("LpPool", "r", "d", kernel_shape=[2, 2], strides=[2, 2], p=2)],
    "global max": [node("GlobalMaxPool", "r", "d")],
    "global average": [node("GlobalAveragePool", "r", "d")],
    "mean of an axis": [node("ReduceMean", "r", "d", axes=[2], keepdims=1)],
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_pool(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    model = between_convs(rng, OTHERS[name], 2, 17)
    data = [{"x": normal(rng, 2, 3, 9, 9)} for _ in range(10)]
    walk(model, data[:8], data[8:], tmp_path, floor=20)


def test_indices_of_a_max_pool_as_an_output_of_the_graph(tmp_path: Path) -> None:
    """Nobody in the graph reads the indices, and they are asked for all the same."""
    rng = np.random.default_rng(3)
    model = between_convs(rng, [node("MaxPool", "r", "d i", kernel_shape=[3, 3], strides=[3, 3])], 2, 17)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, ["N", 8, None, None])
    )
    data = [{"x": normal(rng, 2, 3, 9, 9)} for _ in range(4)]
    walk(model, data[:3], data[3:], tmp_path, floor=(20, None))
