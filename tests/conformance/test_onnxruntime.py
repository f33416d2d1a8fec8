"""Zero differing integers between the NumPy engine in ONNX arithmetic and ONNX Runtime, row by row.

Each row is run as it is written, and once more from its float graph on: loaded, prepared, quantized.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import eightbit as eb
from eightbit.deploy.sessions import OnnxRuntime, integer_tensors, optimized_ops, run_island
from eightbit.graph.run import FloatSession
from eightbit.integer.engine import run
from eightbit.integer.lower import lower
from tests.conformance.cases import ROWS, Row
from tests.strangers.walk import sqnr_db

DRAWS = 4  # random scales, zero points, weights and codes a row


def test_rows_have_distinct_names() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_engine_equals_onnxruntime(row: Row) -> None:
    rng = np.random.default_rng(zlib.crc32(row.name.encode()))
    for _ in range(DRAWS):
        graph, feeds = row.build(rng)
        qdq = graph.model()
        assert row.kernel in {op for op, _ in optimized_ops(qdq)}
        expected = integer_tensors(qdq, feeds)
        found = run(lower(qdq), feeds, island=run_island, keep=True)
        assert expected
        for name, codes in expected.items():
            np.testing.assert_array_equal(found[name], codes, err_msg=name)
        for name, output in OnnxRuntime(qdq).run(feeds).items():  # all optimizations, as users run it
            np.testing.assert_array_equal(found[name], output, err_msg=name)


CARRIED = (
    "Split",
    "Gather",
    "Tile",
    "Expand",
    "DepthToSpace",
    "SpaceToDepth",
    "Resize",
    "ReduceMax",
    "GlobalMaxPool",
)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.name.split(",")[0].split()[0] in CARRIED and "other" not in row.name],
    ids=lambda row: row.name,
)
def test_what_carries_codes_does_so_in_onnxruntime(row: Row) -> None:
    """From the float graph on: no QuantizeLinear is left but that of the input."""
    graph, feeds = row.build(np.random.default_rng(0))
    q = eb.quantize(eb.load(graph.float_proto()), [feeds], eb.Recipe.plain())
    assert not eb.inspect(q).islands
    ops = [op for op, _ in optimized_ops(q.ir)]
    assert ops.count("QuantizeLinear") == len(feeds)


FLOOR_DB = 20
SMALL_PROBABILITIES = {"Softmax 1000": 5}  # most of a thousand classes lie below one code of 1/255


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_whole_road_gives_equal_integers(row: Row) -> None:
    """The row's graph as somebody would have brought it: preparation and placement have their say."""
    graph, feeds = row.build(np.random.default_rng(zlib.crc32(row.name.encode())))
    model = eb.load(graph.float_proto())
    finite = {name: np.where(np.isfinite(x), x, 0).astype(np.float32) for name, x in feeds.items()}
    q = eb.quantize(model, [finite], eb.Recipe.plain())
    found = run(q.program, feeds, island=run_island, keep=True)
    for name, codes in integer_tensors(q.ir, feeds).items():
        np.testing.assert_array_equal(found[name], codes, err_msg=name)
    outputs = OnnxRuntime(q.ir).run(feeds)
    for name, output in outputs.items():
        np.testing.assert_array_equal(found[name], output, err_msg=name)
    right = FloatSession(model.ir).run(finite)
    quantized = OnnxRuntime(q.ir).run(finite)
    for name, output in right.items():
        assert sqnr_db(output, quantized[name]) >= SMALL_PROBABILITIES.get(row.name, FLOOR_DB)
