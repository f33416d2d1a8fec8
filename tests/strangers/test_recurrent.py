"""Recurrent layers, of which a model may read any output and leave out the others, the first included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.strangers.graphs import graph, node, normal, weight
from tests.strangers.walk import walk

STEPS, FEATURES, HIDDEN = 7, 6, 8
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
READ = ("s", "_ h", "s h", "_ _ c", "_ h c", "s _ c", "s h c")
"""Of the steps, the last state and the LSTM's last cell: those that the model reads."""
CASES = [
    *((op, read, 1) for op in GATES for read in READ if op == "LSTM" or "c" not in read),
    *(("LSTM", read, 2) for read in READ[:3]),
]


def after_conv(
    rng: np.random.Generator, op: str, outputs: str, directions: int = 1, **attributes: object
) -> onnx.ModelProto:
    """Conv over time, the recurrent layer on its features, and a Gemm on each output that is read."""
    gates, read = GATES[op], [name for name in outputs.split() if name != "_"]
    kind = "bidirectional" if directions == 2 else "forward"
    width, nodes, weights = directions * HIDDEN, [], {}
    for name in read:
        keep = [0, -1] if name != "s" else [-1, width]  # (T, D, N, H) to rows; (D, N, H) to (N, D * H)
        nodes += [
            node("Transpose", f"{name}", f"{name}t", perm=[1, 0, 2] if name != "s" else [2, 0, 1, 3]),
            node("Reshape", f"{name}t {name}shape", f"{name}r"),
            node("Gemm", f"{name}r {name}w", f"{name}y", transB=1),
        ]
        weights |= {f"{name}shape": np.array(keep), f"{name}w": weight(rng, 3, width)}
    return graph(
        [
            node("Conv", "x k", "f", pads=[1, 1]),
            node("Relu", "f", "p"),
            node("Transpose", "p", "t", perm=[2, 0, 1]),
            node(op, "t w r b", outputs, hidden_size=HIDDEN, direction=kind, **attributes),
            *nodes,
        ],
        {"x": ["N", 3, STEPS]},
        {f"{name}y": [None, 3] for name in read},
        {
            "k": weight(rng, FEATURES, 3, 3),
            "w": weight(rng, directions, gates * HIDDEN, FEATURES),
            "r": weight(rng, directions, gates * HIDDEN, HIDDEN, gain=0.5),
            "b": normal(rng, directions, 2 * gates * HIDDEN) / 10,
            **weights,
        },
    )


@pytest.mark.parametrize(("op", "read", "directions"), CASES)
def test_outputs_may_be_left_out(op: str, read: str, directions: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    model = after_conv(rng, op, read, directions)
    data = [{"x": normal(rng, 8, 3, STEPS)} for _ in range(5)]
    walk(model, data, data[:1], tmp_path, floor=25)
