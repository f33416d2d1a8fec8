"""Attention under masks, however they are written: as accurate as without one, and with the reasons in the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.strangers.graphs import graph, node, normal, weight
from tests.strangers.walk import Walked, walk

LENGTH, WIDTH = 12, 32
LOWEST = float(np.finfo(np.float32).min)
FLOOR = 25
"""Without a mask the default recipe keeps 29 dB of this net, the plain one 28."""
INT, BOOL = TensorProto.INT64, TensorProto.BOOL


def attention(
    rng: np.random.Generator,
    mask: list[onnx.NodeProto],
    inputs: dict[str, object],
    constants: dict[str, object],
) -> onnx.ModelProto:
    """One head over (N, LENGTH, WIDTH); the nodes of `mask` lead from the scores s to the masked ones t."""
    return graph(
        [
            node("MatMul", "x wq", "q"),
            node("MatMul", "x wk", "k"),
            node("MatMul", "x wv", "v"),
            node("Transpose", "k", "kt", perm=[0, 2, 1]),
            node("MatMul", "q kt", "s0"),
            node("Mul", "s0 scale", "s"),
            *mask,
            node("Softmax", "t", "p", axis=-1),
            node("MatMul", "p v", "c"),
            node("MatMul", "c wo", "y"),
        ],
        {"x": ["N", LENGTH, WIDTH], **inputs},
        {"y": ["N", LENGTH, WIDTH]},
        {
            **{f"w{name}": weight(rng, WIDTH, WIDTH, gain=0.7) for name in "qkvo"},
            "scale": np.float32(1 / np.sqrt(WIDTH)),
            **constants,
        },
        opset=18,
    )


def causal(fill: float) -> np.ndarray:
    """(LENGTH, LENGTH): `fill` above the diagonal, 0 below."""
    return np.where(np.triu(np.ones((LENGTH, LENGTH), bool), 1), np.float32(fill), np.float32(0))


def padding(count: int, dtype: type) -> np.ndarray:
    """(count, LENGTH): 1 for the first eight or more positions, 0 for the rest."""
    ends = 8 + np.arange(count) % 4
    return (np.arange(LENGTH) < ends[:, None]).astype(dtype)


ADD = [node("Add", "s m", "t")]
CONSTANT = {
    "none": ([node("Identity", "s", "t")], {}),
    "1e4": (ADD, {"m": causal(-1e4)}),
    "float16's lowest": (ADD, {"m": causal(-65504)}),
    "float32's lowest": (ADD, {"m": causal(LOWEST)}),
    "infinity": (ADD, {"m": causal(-np.inf)}),
    "Swin": (
        [
            node("Add", "s bias", "b"),
            node("Unsqueeze", "b axis", "b5"),
            node("Add", "b5 m", "t5"),
            node("Reshape", "t5 shape", "t"),
        ],
        {
            "bias": np.float32(np.sin(np.arange(LENGTH**2)).reshape(LENGTH, LENGTH)),
            "m": causal(-100)[None, None],
            "axis": np.array([1]),
            "shape": np.array([-1, LENGTH, LENGTH]),
        },
    ),
    "mask first": ([node("Add", "m s", "t")], {"m": causal(-1e4)}),
    "scale behind the mask": (
        [node("Add", "s m", "a"), node("Mul", "a half", "t")],
        {"m": causal(-1e4), "half": np.float32(0.5)},
    ),
    "clipped behind the mask": (
        [node("Add", "s m", "a"), node("Max", "a low", "t")],
        {"m": causal(-np.inf), "low": np.float32(LOWEST)},
    ),
    "bias behind the mask": (
        [node("Add", "s m", "a"), node("MatMul", "x wb", "b"), node("Add", "a b", "t")],
        {"m": causal(-1e4), "wb": np.float32(np.cos(np.arange(WIDTH * LENGTH)).reshape(WIDTH, LENGTH) / 4)},
    ),
    "fill above the diagonal": (
        [node("Where", "u s fill", "t")],
        {"u": causal(1) == 0, "fill": np.float32(-np.inf)},
    ),
    "fill, then a bias": (
        [node("Where", "u s fill", "a"), node("MatMul", "x wb", "b"), node("Add", "a b", "t")],
        {
            "u": causal(1) == 0,
            "fill": np.float32(-1e9),
            "wb": np.float32(np.cos(np.arange(WIDTH * LENGTH)).reshape(WIDTH, LENGTH) / 4),
        },
    ),
    "Trilu in the graph": (
        [
            node("Shape", "s", "n"),
            node("ConstantOfShape", "n", "full", value=onnx.helper.make_tensor("f", 1, [1], [-1e4])),
            node("Trilu", "full one", "m", upper=1),
            node("Add", "s m", "t"),
        ],
        {"one": np.int64(1)},
    ),
    "Range and Less": (
        [
            node("Shape", "s", "n1", start=1, end=2),
            node("Squeeze", "n1", "n"),
            node("Range", "zero n step", "i"),
            node("Unsqueeze", "i last", "row"),
            node("Less", "row i", "hidden"),
            node("Where", "hidden fill nothing", "m"),
            node("Add", "s m", "t"),
        ],
        {
            "zero": np.int64(0),
            "step": np.int64(1),
            "last": np.array([1]),
            "fill": np.float32(LOWEST),
            "nothing": np.float32(0),
        },
    ),
    "Softmax by hand": (
        [
            node("Add", "s m", "a"),
            node("ReduceMax", "a axes", "top", keepdims=1),
            node("Sub", "a top", "d"),
            node("Exp", "d", "e"),
            node("ReduceSum", "e axes", "sum", keepdims=1),
            node("Div", "e sum", "h"),
            node("Log", "h", "t"),
        ],
        {"m": causal(-30), "axes": np.array([2])},
    ),
}


@pytest.mark.parametrize("kind", CONSTANT)
def test_a_mask_in_the_graph(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    nodes, constants = CONSTANT[kind]
    model = attention(rng, nodes, {}, constants)
    data = [{"x": normal(rng, 8, LENGTH, WIDTH)} for _ in range(4)]
    walk(model, data, data[:1], tmp_path, floor=FLOOR)


AXIS = {"axis": np.array([1])}
TWO = ["N", LENGTH]
FROM_INPUT = {
    "added": (ADD, ["N", LENGTH, LENGTH], {}, lambda n: np.repeat(causal(-1e4)[None], n, 0)),
    "added, lowest": (ADD, ["N", LENGTH, LENGTH], {}, lambda n: np.repeat(causal(LOWEST)[None], n, 0)),
    "added, infinite": (ADD, ["N", LENGTH, LENGTH], {}, lambda n: np.repeat(causal(-np.inf)[None], n, 0)),
    "added, one for all": (ADD, [LENGTH, LENGTH], {}, lambda n: causal(-np.inf)),
    "rows, infinite": (
        [node("Unsqueeze", "m axis", "r"), node("Expand", "r shape", "w"), node("Add", "s w", "t")],
        TWO,
        {**AXIS, "shape": np.array([1, LENGTH, 1])},
        lambda n: np.where(padding(n, bool), np.float32(0), np.float32(-np.inf)),
    ),
    "BERT, int": (
        [
            node("Cast", "m", "f", to=TensorProto.FLOAT),
            node("Unsqueeze", "f axis", "r"),
            node("Sub", "one r", "h"),
            node("Mul", "h fill", "w"),
            node("Add", "s w", "t"),
        ],
        (TWO, INT),
        {**AXIS, "one": np.float32(1), "fill": np.float32(-1e4)},
        lambda n: padding(n, np.int64),
    ),
    "BERT, float, lowest": (
        [
            node("Unsqueeze", "m axis", "r"),
            node("Sub", "one r", "h"),
            node("Mul", "h fill", "w"),
            node("Add", "s w", "t"),
        ],
        TWO,
        {**AXIS, "one": np.float32(1), "fill": np.float32(LOWEST)},
        lambda n: padding(n, np.float32),
    ),
    "what is hidden, float": (
        [node("Unsqueeze", "m axis", "r"), node("Mul", "r fill", "w"), node("Add", "s w", "t")],
        TWO,
        {**AXIS, "fill": np.float32(LOWEST)},
        lambda n: 1 - padding(n, np.float32),
    ),
    "what is hidden, bool": (
        [
            node("Cast", "m", "f", to=TensorProto.FLOAT),
            node("Unsqueeze", "f axis", "r"),
            node("Mul", "r fill", "w"),
            node("Add", "s w", "t"),
        ],
        (TWO, BOOL),
        {**AXIS, "fill": np.float32(-65504)},
        lambda n: ~padding(n, bool),
    ),
    "subtracted": (
        [node("Unsqueeze", "m axis", "r"), node("Mul", "r fill", "w"), node("Sub", "s w", "t")],
        TWO,
        {**AXIS, "fill": np.float32(1e9)},
        lambda n: 1 - padding(n, np.float32),
    ),
    "filled": (
        [node("Unsqueeze", "m axis", "r"), node("Where", "r s fill", "t")],
        (TWO, BOOL),
        {**AXIS, "fill": np.float32(-np.inf)},
        lambda n: padding(n, bool),
    ),
    "nothing or infinity": (
        [node("Unsqueeze", "m axis", "r"), node("Where", "r nothing fill", "w"), node("Add", "s w", "t")],
        (TWO, BOOL),
        {**AXIS, "fill": np.float32(-np.inf), "nothing": np.float32(0)},
        lambda n: padding(n, bool),
    ),
    "outer product": (
        [
            node("Unsqueeze", "m axis", "r"),
            node("Unsqueeze", "m last", "l"),
            node("MatMul", "l r", "b"),
            node("Sub", "b one", "h"),
            node("Mul", "h fill", "w"),
            node("Add", "s w", "t"),
        ],
        TWO,
        {**AXIS, "last": np.array([2]), "one": np.float32(1), "fill": np.float32(1e4)},
        lambda n: padding(n, np.float32),
    ),
    "T5, bias and mask": (
        [node("Unsqueeze", "m axis", "r"), node("Add", "bias r", "w"), node("Add", "s w", "t")],
        TWO,
        {**AXIS, "bias": np.float32(4 * np.sin(np.arange(LENGTH**2)).reshape(LENGTH, LENGTH))},
        lambda n: np.where(padding(n, bool), np.float32(0), np.float32(-1e9)),
    ),
    "two masks": (
        [node("Unsqueeze", "m axis", "r"), node("Add", "s r", "a"), node("Add", "a future", "t")],
        TWO,
        {**AXIS, "future": causal(-1e4)},
        lambda n: np.where(padding(n, bool), np.float32(0), np.float32(-1e4)),
    ),
}


@pytest.mark.parametrize("kind", FROM_INPUT)
def test_a_mask_from_an_input(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    nodes, shape, constants, make = FROM_INPUT[kind]
    model = attention(rng, nodes, {"m": shape}, constants)
    data = [{"x": normal(rng, 8, LENGTH, WIDTH), "m": make(8)} for _ in range(4)]
    walk(model, data, data[:1], tmp_path, floor=FLOOR)


@pytest.mark.parametrize("kind", ["rows, infinite", "BERT, int", "what is hidden, float", "filled"])
def test_a_mask_that_hides_nothing_while_calibrating(kind: str, tmp_path: Path) -> None:
    """Sentences one at a time need no padding; those that come later, in batches, do."""
    rng = np.random.default_rng(7)
    nodes, shape, constants, make = FROM_INPUT[kind]
    model = attention(rng, nodes, {"m": shape}, constants)
    masks = make(8)
    clear = np.repeat(masks[:, :1], LENGTH, 1)
    data = [{"x": normal(rng, 8, LENGTH, WIDTH), "m": clear} for _ in range(4)]
    walk(model, data, [data[0], {**data[0], "m": masks}], tmp_path, floor=FLOOR)


def alibi() -> np.ndarray:
    """Slope 1/2 a position, as for the first of two heads."""
    return np.float32(-np.abs(np.subtract.outer(np.arange(LENGTH), np.arange(LENGTH))) / 2)


BIASES = {
    "ALiBi": (ADD, {"m": alibi()}, []),
    "T5": (ADD, {"m": np.float32(5 * np.sin(np.arange(LENGTH**2)).reshape(LENGTH, LENGTH))}, []),
    "from the input": (
        [node("MatMul", "x wb", "b"), node("Add", "s b", "t")],
        {"wb": np.float32(np.cos(np.arange(WIDTH * LENGTH)).reshape(WIDTH, LENGTH) / 4)},
        [],
    ),
    "ALiBi and mask in one": (ADD, {"m": alibi() + causal(-np.inf)}, ["s_mul", "t_add", "p_softmax"]),
}


@pytest.mark.parametrize("kind", BIASES)
def test_a_bias_is_no_mask(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    nodes, constants, in_float = BIASES[kind]
    model = attention(rng, nodes, {}, constants)
    data = [{"x": normal(rng, 8, LENGTH, WIDTH)} for _ in range(4)]
    assert floats(walk(model, data, data[:1], tmp_path, floor=FLOOR)) == in_float


def gated(choice: onnx.NodeProto, constants: dict[str, object]) -> onnx.ModelProto:
    """What makes masks elsewhere makes half of a sum here."""
    return graph(
        [
            node("Conv", "x w", "c", pads=[1] * 4),
            node("Greater", "c zero", "up"),
            choice,
            node("Add", "c z", "s"),
            node("Conv", "s v", "y", pads=[1] * 4),
        ],
        {"x": ["N", 3, 8, 8]},
        {"y": ["N", 8, 8, 8]},
        {
            "w": weight(np.random.default_rng(4), 8, 3, 3, 3),
            "v": weight(np.random.default_rng(5), 8, 8, 3, 3),
            "zero": np.float32(0),
            **constants,
        },
    )


@pytest.mark.parametrize(
    "source",
    [
        gated(node("Where", "up c low", "z"), {"low": np.float32(-0.2)}),
        gated(node("Cast", "up", "z", to=TensorProto.FLOAT), {}),
    ],
    ids=["Where", "Cast"],
)
def test_what_a_mask_is_made_by_makes_no_mask(source: onnx.ModelProto, tmp_path: Path) -> None:
    data = [{"x": normal(np.random.default_rng(i), 4, 3, 8, 8)} for i in range(9)]
    found = walk(source, data[:8], data[8:], tmp_path, floor=22)  # what is near 0 changes sides
    for q in found.quantized.values():
        assert "Add" not in {island.op for island in q.report.islands}


def test_the_report_names_what_stays_in_float(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    nodes, shape, constants, make = FROM_INPUT["BERT, int"]
    data = [{"x": normal(rng, 8, LENGTH, WIDTH), "m": make(8)} for _ in range(4)]
    found = walk(attention(rng, nodes, {"m": shape}, constants), data, data[:1], tmp_path, floor=FLOOR)
    report = found.quantized["default"].report
    assert report is not None
    assert [(island.node, island.reason) for island in report.islands] == [
        ("s_mul", "only float nodes read it"),
        ("f_cast", "no integer form of this op"),
        ("r_unsqueeze", "it only makes a mask"),
        ("h_sub", "no integer form of this op"),
        ("w_mul", "it only makes a mask"),
        ("t_add", "one of its inputs is a mask, not a signal"),
        ("p_softmax", "none of its inputs comes from an integer op"),
    ]


def floats(found: Walked) -> list[str]:
    report = found.quantized["default"].report
    assert report is not None
    return [island.node for island in report.islands]
