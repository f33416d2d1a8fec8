"""ONNX's own node cases, all of them, through the whole road: load, run in float, quantize, run in both engines.

A case counts if ONNX Runtime runs it. Its float graph must give the result of ONNX Runtime on the file; where a part
of it can be quantized, both engines must give equal arrays. What is refused must be refused for the reason listed here.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

import eightbit as eb
from tests.strangers.walk import arrays, assert_equal, assert_same_function

CHUNKS = 24
RUNNABLE = 1548
"""Cases that ONNX Runtime 1.32 runs from NumPy arrays; the others use types or ops that it lacks."""
EQUAL = "equal"

SEQUENCE = "export the model with typed tensor inputs"
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            "test_identity_sequence",
            "test_identity_opt",
            "test_loop13_seq",
            "test_loop16_seq_none",
            "test_sequence_insert_at_back",
            "test_sequence_insert_at_front",
            *(
                f"test_sequence_map_{kind}{form}"
                for kind in (
                    "identity_1_sequence",
                    "identity_2_sequences",
                    "identity_1_sequence_1_tensor",
                    "add_2_sequences",
                    "add_1_sequence_1_tensor",
                    "extract_shapes",
                )
                for form in ("", "_expanded")
            ),
        ),
        SEQUENCE,
    ),
    "test_scan_sum": "is a Scan of opset 8, which has a batch axis",
}
"""Cases that load or run with an error, and what it says."""
UNQUANTIZED = re.compile(
    "^nothing in this graph can be quantized|no value was seen|calibration sample 0: found NaN or Inf"
)
"""What `quantize` may say of a case: most hold one node of an op that stays in float."""


@cache
def cases() -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators overflow on purpose
        return tuple(load_model_tests(kind="node"))


def test_onnxruntime_runs_as_many_cases_as_are_counted_on() -> None:
    """Else every case could come to be skipped."""
    assert sum(original(case) is not None for case in cases()) >= RUNNABLE


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_case_is_equal_or_refused_for_its_reason(chunk: int) -> None:
    wrong = {}
    for case in cases()[chunk::CHUNKS]:
        ran = original(case)
        if ran is None:
            continue
        found, right = outcome(case.model, *ran), REFUSED.get(case.name, EQUAL)
        if found != right and not (right != EQUAL and right in found):
            wrong[case.name] = found
    assert wrong == {}


def original(case: Any) -> tuple[dict[str, Any], list[Any]] | None:
    """Feeds, and ONNX Runtime's outputs of the file as it is; None if it does not run it."""
    names = [value.name for value in case.model.graph.input]
    feeds = dict(zip(names, (as_input(value) for value in case.data_sets[0][0]), strict=False))
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(
            case.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return feeds, session.run(None, feeds)
    except Exception:  # ONNX Runtime raises its own classes, and its binding to Python RuntimeError
        return None


def outcome(proto: onnx.ModelProto, feeds: dict[str, Any], right: list[Any]) -> str:
    """EQUAL, or what went wrong."""
    try:
        model = eb.load(proto)
        found = model(feeds)
    except eb.EightbitError as error:
        return str(error)
    except Exception as error:
        return f"untyped, in float: {error!r}"
    try:
        for mine, theirs in zip(found if isinstance(found, tuple) else (found,), right, strict=True):
            assert_same_function(flat(theirs), flat(mine))
    except AssertionError as error:
        return f"another function: {error}"
    try:
        q = eb.quantize(model, [feeds], eb.Recipe.plain())
    except eb.EightbitError as error:
        return EQUAL if UNQUANTIZED.search(str(error)) else f"not quantized: {error}"
    except Exception as error:
        return f"untyped, in quantize: {error!r}"
    try:
        assert_equal(arrays(q(feeds)), arrays(q.run(feeds, engine="numpy")), "engines")
    except Exception as error:
        return f"quantized: {error!r}"
    return EQUAL


def as_input(value: Any) -> Any:
    if isinstance(value, onnx.SequenceProto):
        return numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return numpy_helper.to_optional(value)
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def flat(result: Any) -> tuple[np.ndarray, ...]:
    """An output as a tuple of arrays: a sequence holds any number of them, an empty optional none."""
    if isinstance(result, list):
        return tuple(np.asarray(part) for part in result)
    return () if result is None else (np.asarray(result),)
