"""Layers that share a kernel: the file holds it once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import eightbit as eb
from tests.strangers.graphs import graph, node, normal, weight
from tests.strangers.walk import walk

DEPTH = 9


def test_a_kernel_shared_by_nine_convolutions_is_written_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = []
    for i in range(DEPTH):
        nodes += [
            node("Conv", f"x{i} w", f"c{i}", pads=[1] * 4),
            node("Add", f"c{i} x{i}", f"a{i}"),
            node("Tanh", f"a{i}", f"x{i + 1}"),
        ]
    model = graph(
        nodes, {"x0": ["N", 32, 6, 6]}, {f"x{DEPTH}": ["N", 32, 6, 6]}, {"w": weight(rng, 32, 32, 3, 3)}
    )
    data = [{"x0": normal(rng, 2, 32, 6, 6)} for _ in range(3)]
    found = walk(model, data, data[:1], tmp_path, floor=15, recipes=("plain",))
    float_size = found.model.save(tmp_path / "float.onnx").stat().st_size
    assert (tmp_path / "plain.onnx").stat().st_size < 0.5 * float_size
    opened = eb.open(tmp_path / "plain.onnx")
    assert any(row.kind == "weight" for row in eb.inspect(opened).tensors)
    assert len([op for op in opened.program.ops if type(op).__name__ == "Conv"]) == DEPTH
