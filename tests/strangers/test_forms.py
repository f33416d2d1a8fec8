"""Ops at the edge of what runs on codes: in integers where both engines have kernels, else in float, and said so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eightbit.deploy.sessions import optimized_ops
from tests.strangers.graphs import graph, node, normal, weight
from tests.strangers.walk import walk

NO_KERNEL = "ONNX Runtime has no integer kernel for it"
# Name: spatial axes, the nodes from r to d, the reason of what stays in float, kernels that ONNX Runtime must run.
BETWEEN_CONVS = {
    "transposed": (2, [node("ConvTranspose", "r t", "d", strides=[2, 2])], NO_KERNEL, {"ConvTranspose"}),
    "three axes": (3, [node("MaxPool", "r", "d", kernel_shape=[2] * 3, strides=[2] * 3)], None, {"MaxPool"}),
    "mean over three axes": (
        3,
        [node("AveragePool", "r", "d", kernel_shape=[2] * 3, pads=[1] * 6)],
        None,
        {"QLinearAveragePool"},
    ),
    "leaky": (2, [node("LeakyRelu", "r", "d", alpha=0.1)], None, {"QLinearLeakyRelu"}),
    "leaky and a sum": (
        2,
        [node("LeakyRelu", "r", "l", alpha=0.1), node("Add", "l l", "d")],
        None,
        {"QLinearLeakyRelu", "QLinearAdd"},
    ),
    "tanh": (2, [node("Tanh", "r", "d")], "no integer form of this op", {"Tanh"}),
}


@pytest.mark.parametrize("name", BETWEEN_CONVS)
def test_between_convolutions(name: str, tmp_path: Path) -> None:
    axes, nodes, reason, kernels = BETWEEN_CONVS[name]
    rng = np.random.default_rng(5)
    model = graph(
        [node("Conv", "x w1 b1", "r", pads=[1] * 2 * axes), *nodes, node("Conv", "d w2 b2", "y")],
        {"x": ["N", 3, *[8] * axes]},
        {"y": ["N", 4, *[None] * axes]},
        {
            "w1": weight(rng, 8, 3, *[3] * axes),
            "b1": normal(rng, 8) / 10,
            "t": weight(rng, 8, 8, *[2] * axes),
            "w2": weight(rng, 4, 8, *[1] * axes),
            "b2": normal(rng, 4) / 10,
        },
    )
    data = [{"x": normal(rng, 2, 3, *[8] * axes)} for _ in range(6)]
    for q in walk(model, data[:4], data[4:], tmp_path, floor=20).quantized.values():
        assert q.report is not None
        assert [i.reason for i in q.report.islands] == ([] if reason is None else [reason])
        assert {op for op, _ in optimized_ops(q.ir)} >= {"QLinearConv", *kernels}
