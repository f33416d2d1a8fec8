"""Layers that share a weight: the file holds it once, whatever was done to it on the way, and runs as it would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import eightbit as eb
from eightbit.deploy.sessions import optimized_ops
from tests.strangers.graphs import Feeds, graph, node, normal, weight
from tests.strangers.walk import arrays, assert_equal, call, sqnr_db

DEPTH = 6
RECIPES = {
    "default": eb.Recipe(),
    "plain": eb.Recipe.plain(),
    "four bits": eb.Recipe(weights=eb.Weights(bits=4)),
    "weights alone": eb.Recipe(activations=eb.FLOAT),
}


def convolutions(
    between: Callable[[int], list[onnx.NodeProto]], width: int = 32
) -> tuple[onnx.ModelProto, list[Feeds]]:
    """One kernel and one bias in every convolution; `between(i)` leads from `c{i}` to `x{i + 1}`."""
    rng = np.random.default_rng(0)
    nodes = []
    for i in range(DEPTH):
        nodes += [node("Conv", f"x{i} w b", f"c{i}", pads=[1] * 4), *between(i)]
    shape = ["N", width, 6, 6]
    constants = {"w": weight(rng, width, width, 3, 3), "b": normal(rng, width)}
    model = graph(nodes, {"x0": shape}, {f"x{DEPTH}": shape}, constants)
    return model, [{"x0": normal(rng, 2, width, 6, 6)} for _ in range(4)]


def residuals() -> tuple[onnx.ModelProto, list[Feeds]]:
    return convolutions(lambda i: [node("Add", f"c{i} x{i}", f"a{i}"), node("Tanh", f"a{i}", f"x{i + 1}")])


def chain() -> tuple[onnx.ModelProto, list[Feeds]]:
    """What equalization would rescale, channel by channel, in each convolution otherwise."""
    return convolutions(lambda i: [node("Relu", f"c{i}", f"x{i + 1}")])


def narrow() -> tuple[onnx.ModelProto, list[Feeds]]:
    """Kernels whose codes are far fewer bytes than the floats were."""
    return convolutions(lambda i: [node("Relu", f"c{i}", f"x{i + 1}")], width=12)


def transformer() -> tuple[onnx.ModelProto, list[Feeds]]:
    """One layer run over and over, as in ALBERT: what SmoothQuant would rescale otherwise."""
    rng = np.random.default_rng(1)
    nodes = []
    for i in range(DEPTH):
        nodes += [
            node("LayerNormalization", f"x{i} g o", f"n{i}"),
            node("MatMul", f"n{i} w", f"a{i}"),
            node("Add", f"a{i} b", f"h{i}"),
            node("Relu", f"h{i}", f"r{i}"),
            node("MatMul", f"r{i} v", f"m{i}"),
            node("Add", f"m{i} c", f"s{i}"),
            node("Add", f"s{i} x{i}", f"x{i + 1}"),
        ]
    constants = {
        "g": np.abs(normal(rng, 64)) + 0.1, "o": normal(rng, 64), "w": weight(rng, 64, 256), "b": normal(rng, 256),
        "v": weight(rng, 256, 64), "c": normal(rng, 64),
    }  # fmt: skip
    shape = ["N", "S", 64]
    model = graph(nodes, {"x0": shape}, {f"x{DEPTH}": shape}, constants)
    return model, [{"x0": normal(rng, 2, 5, 64)} for _ in range(4)]


def sizes(path: Path) -> list[int]:
    """Numbers in the large constants of a file."""
    found = [int(np.prod(t.dims)) for t in onnx.load(path).graph.initializer]
    return [size for size in found if size >= 1024]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("case", "weights", "ratio"),
    [
        (residuals, 1, 0.6),
        (chain, 1, 0.6),
        (narrow, 1, 2.0),
        (transformer, 2, 0.6),
    ],  # the rest: nodes and scales
)
def test_a_shared_weight_is_in_the_file_once(
    case: Callable[[], tuple[onnx.ModelProto, list[Feeds]]],
    weights: int,
    ratio: float,
    recipe: str,
    tmp_path: Path,
) -> None:
    source, data = case()
    model = eb.load(source)
    q = eb.quantize(model, data, RECIPES[recipe])
    file = q.save(tmp_path / "int8.onnx")
    large = model.save(tmp_path / "float.onnx")
    assert len(sizes(file)) == len(sizes(large)) == weights
    assert file.stat().st_size < ratio * large.stat().st_size
    assert sum(eb.inspect(file).bytes.values()) == sum(eb.inspect(q).bytes.values()) == file.stat().st_size
    opened = eb.open(file)
    assert optimized_ops(opened.ir) == optimized_ops(q.ir)  # nothing fuses otherwise
    for feed in data:
        found = arrays(q(feed))
        assert_equal(found, arrays(opened(feed)), "opened")
        assert_equal(found, arrays(call(opened, feed, engine="numpy")), "engines")
    floor = 12 if recipe == "four bits" else 28
    assert sqnr_db(*(np.stack([arrays(m(feed))[0] for feed in data]) for m in (model, q))) > floor
