"""One stranger's model down the whole road, held at every step to what it must give.

`walk` loads, quantizes by the default and the plain recipe, runs both engines, saves and opens. It fails unless

1. the float graph gives the own result of the file, as ONNX Runtime computes it (modules bring their own results),
   to 1e-4 of the peak, with equal dtypes and shapes;
2. the NumPy engine and ONNX Runtime give equal arrays, outputs in float included;
3. each float output keeps `floor` dB of the float model's, over all test feeds together;
4. a saved file opens and gives the same arrays;
5. every node that runs in float is in the report.

`refused` is for the other right answer: one line of the EightbitError family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import eightbit as eb
from eightbit.integer.program import FloatIsland

Arrays = tuple[np.ndarray, ...]
RECIPES: dict[str, Callable[[], eb.Recipe]] = {"default": eb.Recipe, "plain": eb.Recipe.plain}
FLOAT_TOLERANCE = 1e-4
"""Of an output's peak: float32 products that are taken in another order, or folded into one, move the last digits."""
OTHER_FLOATS = ("float16", "bfloat16", "float64")
PLUMBING = {"QuantizeLinear", "DequantizeLinear", "Sum", "Shape", "Constant"}
"""Ops that this package puts between float and codes, or that only ask for a length."""


@dataclass(frozen=True)
class Walked:
    """What a walk leaves behind, for whatever else a test wants to know: `db[recipe][output]` is the SQNR."""

    model: eb.Model
    quantized: Mapping[str, eb.QuantizedModel]
    db: Mapping[str, tuple[float, ...]]


def walk(
    source: Any,
    calibration: Any,
    feeds: Sequence[Any],
    folder: Path,
    *,
    floor: float | Sequence[float | None],
    recipes: Sequence[str] = ("default", "plain"),
    example: Any = None,
    expected: Sequence[Arrays] | None = None,
) -> Walked:
    """Take `source` down the road; `feeds` are test inputs, each what the model takes (a dict, or a tuple).

    `floor`: dB that every float output must keep, or one number an output, with None for an output of which nothing is
    asked (codes of it, or integers that flip). `expected`: the right outputs of each feed, for sources that ONNX
    Runtime cannot run itself. Files are written into `folder` only.
    """
    right = [run_original(source, f) for f in feeds] if expected is None else list(expected)
    model = eb.load(source, example)
    for feed, outputs in zip(feeds, right, strict=True):
        assert_same_function(outputs, arrays(call(model, feed)))
    quantized, db = {}, {}
    for name in recipes:
        q = eb.quantize(model, calibration, RECIPES[name]())
        found = [arrays(call(q, feed)) for feed in feeds]
        for feed, outputs in zip(feeds, found, strict=True):
            assert_equal(outputs, arrays(call(q, feed, engine="numpy")), f"{name}: engines")
        db[name] = tuple(sqnr_db(*pair) for pair in _by_output(right, found))
        floors = [floor] * len(db[name]) if isinstance(floor, int | float) else floor
        for kept, least in zip(db[name], floors, strict=True):
            assert least is None or kept >= least, f"{name}: outputs keep {db[name]} dB, floors {floors}"
        opened = eb.open(q.save(folder / f"{name}.onnx"))
        for feed, outputs in zip(feeds, found, strict=True):
            assert_equal(outputs, arrays(call(opened, feed)), f"{name}: saved and opened")
        assert not unlisted(model, q), f"{name}: in float, and not in the report: {unlisted(model, q)}"
        quantized[name] = q
    return Walked(model, quantized, db)


def refused(call: Callable[[], Any], kind: type[eb.EightbitError]) -> str:
    """The message with which `call` is refused: one line of `kind`, to be compared with the one it must be."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message and "\n" not in message, message
    return message


def run_original(source: onnx.ModelProto | str | Path, feed: Mapping[str, np.ndarray]) -> Arrays:
    """The file's own result: ONNX Runtime on the file as it is, without optimization."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = source.SerializeToString() if isinstance(source, onnx.ModelProto) else str(source)
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return tuple(session.run(None, dict(feed)))


def call(model: Any, feed: Any, **kw: Any) -> Any:
    """Run `model` on a feed: a dict is one argument, a tuple one for each input."""
    run = model.run if kw else model
    return run(*feed, **kw) if isinstance(feed, tuple) else run(feed, **kw)


def arrays(result: Any) -> Arrays:
    """The outputs of a run as a tuple of arrays, whether there are one or more."""
    parts = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(part) for part in parts)


def assert_same_function(right: Arrays, found: Arrays) -> None:
    """The float graph's outputs against the file's own, to FLOAT_TOLERANCE of the peak; NaN and Inf in equal places.

    Types that are coarser than that are held to one of their own steps. What is half or double precision in the file
    may be float32.
    """
    assert len(right) == len(found)
    for r, f in zip(right, found, strict=True):
        assert r.shape == f.shape
        assert r.dtype == f.dtype or (r.dtype.name in OTHER_FLOATS and f.dtype == np.float32)
        if r.dtype.kind != "f":
            np.testing.assert_array_equal(r, f)
            continue
        peak = np.abs(r[np.isfinite(r)]).max(initial=0.0)
        np.testing.assert_allclose(f, r, rtol=0, atol=max(FLOAT_TOLERANCE, np.finfo(r.dtype).eps) * peak)


def assert_equal(a: Arrays, b: Arrays, what: str) -> None:
    """Equal to the last bit, with equal dtypes and shapes."""
    assert [(x.dtype, x.shape) for x in a] == [(x.dtype, x.shape) for x in b], what
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=what)


def sqnr_db(right: np.ndarray, found: np.ndarray) -> float:
    """10 log10 of the signal's power over that of the difference; Inf for equal arrays."""
    if np.array_equal(right, found):
        return np.inf
    signal, noise = right.astype(np.float64), right.astype(np.float64) - found.astype(np.float64)
    power = float((noise**2).sum())
    return float(10 * np.log10(max((signal**2).sum(), 1e-300) / power))


def unlisted(model: eb.Model, q: eb.QuantizedModel) -> dict[str, str]:
    """Nodes of the float graph that run in float in `q` and are not in its report, with their ops."""
    assert q.report is not None
    ops = {str(node.name): node.op_type for node in model.ir.graph}
    listed = {island.node for island in q.report.islands}
    in_float = {n for op in q.program.ops if isinstance(op, FloatIsland) for n in op.nodes}
    return {
        name: ops[name] for name in sorted(in_float - listed) if name in ops and ops[name] not in PLUMBING
    }


def _by_output(right: Sequence[Arrays], found: Sequence[Arrays]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each output over all feeds, flat: (right, found)."""
    return [
        (np.concatenate([r[i].ravel() for r in right]), np.concatenate([f[i].ravel() for f in found]))
        for i in range(len(right[0]))
    ]
