"""Ops at the edge of what runs on codes: in integers where both engines have kernels, else in float, and said so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import eightbit as eb
from eightbit.deploy.sessions import optimized_ops
from eightbit.integer.program import IN_A_TABLE
from tests.strangers.graphs import graph, node, normal, weight
from tests.strangers.walk import sqnr_db, walk

NO_KERNEL = "ONNX Runtime has no integer kernel for it"
# Name: spatial axes, the nodes from r to d, the reason of what stays in float, kernels that ONNX Runtime must run.
BETWEEN_CONVS = {
    "transposed": (2, [node("ConvTranspose", "r t", "d", strides=[2, 2])], None, {"DepthToSpace"}),
    "transposed, one axis": (1, [node("ConvTranspose", "r t", "d", strides=[2])], None, {"Transpose"}),
    "transposed, with gaps": (
        2,
        [node("ConvTranspose", "r t", "d", strides=[2, 2], dilations=[2, 1])],
        NO_KERNEL,
        {"ConvTranspose"},
    ),
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
        [
            node("LeakyRelu", "r", "l", alpha=0.1),
            node("MaxPool", "r", "m", kernel_shape=[1, 1]),
            node("Add", "l m", "d"),
        ],
        None,
        {"QLinearLeakyRelu", "QLinearAdd"},
    ),
    "tanh": (2, [node("Tanh", "r", "d")], IN_A_TABLE, {"Tanh"}),
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


# Name: shape of x, the nodes from x to y, their constants.
PRODUCTS = {
    "experts": ([3, 5, 8], "MatMul x w3 c;Relu c r;MatMul r v3 y", "w3 v3"),
    "experts, any batch": (["N", 3, 5, 8], "MatMul x w3 c;Relu c r;MatMul r v3 y", "w3 v3"),
    "experts of one input": ([5, 8], "MatMul x w3 c;Relu c r;MatMul r v3 y", "w3 v3"),
    "experts with biases": ([3, 5, 8], "MatMul x w3 c;Add c b3 a;Relu a r;MatMul r v3 y", "w3 b3 v3"),
    "experts read in float": ([3, 5, 8], "MatMul x w3 c;Softplus c y", "w3"),
    "one expert": (["N", 5, 8], "MatMul x w1 c;Relu c r;MatMul r v y", "w1 v"),
    "by a vector": (["N", 5, 8], "MatMul x w c;Relu c r;MatMul r k y", "w k"),
    "by a vector, read in float": (["N", 5, 8], "MatMul x w c;Relu c r;MatMul r k d;Softplus d y", "w k"),
    "a vector first": (["N", 5, 8], "MatMul x w c;Relu c r;MatMul f r y", "w f"),
    "of vectors": ([8], "MatMul x w c;Relu c r;MatMul r k y", "w k"),
    "of two signals": ([4, 8], "MatMul x w c;Relu c r;ReduceMax r m;MatMul r m y", "w"),
    "bias of rank 3 behind a Gemm": (["N", 8], "MatMul x w c;Add c b3 a;Relu a r;MatMul r v y", "w b3 v"),
    "bias of rank 4": (["N", 5, 8], "MatMul x w c;Add b4 c a;Relu a r;MatMul r v y", "w b4 v"),
    "bias of ones before": (["N", 8], "MatMul x w c;Add c b1 a;Relu a r;MatMul r v y", "w b1 v"),
    "bias a row": ([5, 8], "MatMul x w c;Add c br a;Relu a r;MatMul r v y", "w br v"),
}
SHAPES = {
    "w": (8, 6),
    "v": (6, 4),
    "w1": (1, 8, 6),
    "w3": (3, 8, 6),
    "v3": (3, 6, 4),
    "k": (6,),
    "f": (5,),
    "b1": (1, 1, 6),
    "b3": (3, 1, 6),
    "b4": (2, 1, 1, 6),
    "br": (5, 6),
}


def product(name: str) -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    shape, lines, names = PRODUCTS[name]
    rng = np.random.default_rng(6)
    parts = [line.split() for line in lines.split(";")]
    nodes = [
        node(op, " ".join(ins), out, **({"axes": [0], "keepdims": 0} if op == "ReduceMax" else {}))
        for op, *ins, out in parts
    ]
    constants = {n: (normal(rng, *SHAPES[n]) / 2).astype(np.float32) for n in names.split()}
    proto = onnx.shape_inference.infer_shapes(graph(nodes, {"x": shape}, {"y": None}, constants))
    sizes = [8 if isinstance(n, str) else n for n in shape]
    return proto, [{"x": normal(rng, *sizes)} for _ in range(40)]


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str, tmp_path: Path) -> None:
    """Stacks of matrices (experts), vectors, and biases with more axes than what they are added to."""
    proto, data = product(name)
    for q in walk(proto, data[:32], data[32:], tmp_path, floor=20).quantized.values():
        assert q.report is not None
        assert [i.op for i in q.report.islands if i.op not in ("Softplus", "ReduceMax")] == []


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    "name", ["experts", "experts, any batch", "experts of one input", "one expert", "of vectors"]
)
def test_weights_of_products_alone(name: str, bits: int) -> None:
    """Each matrix of a stack is rounded for the rows that it meets."""
    proto, data = product(name)
    model = eb.load(proto)
    kept = {}
    for rounding in (eb.Nearest(), None):
        recipe = eb.Recipe(activations=eb.FLOAT, weights=eb.Weights(bits=bits, rounding=rounding))
        q = eb.quantize(model, data[:32], recipe)
        pairs = [(model(x), q(x)) for x in data[32:]]
        kept[rounding] = sqnr_db(*(np.concatenate([p[i].ravel() for p in pairs]) for i in (0, 1)))
    assert min(kept.values()) >= {8: 30, 4: 8}[bits], kept
