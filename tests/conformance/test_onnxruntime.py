"""Zero differing integers between the NumPy engine in ONNX arithmetic and ONNX Runtime, row by row."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from eightbit.deploy.sessions import OnnxRuntime, integer_tensors, optimized_ops, run_island
from eightbit.integer.engine import run
from eightbit.integer.lower import lower
from tests.conformance.cases import ROWS, Row

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
