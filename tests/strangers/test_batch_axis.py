"""Free axes that are no batch, batches that lie elsewhere, inputs without one: samples are counted once and whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto

import eightbit as eb
from eightbit.cli import main
from tests.strangers.graphs import Feeds, graph, node, normal, weight
from tests.strangers.walk import arrays, call, run_original, walk

RNG = np.random.default_rng


@dataclass(frozen=True)
class Case:
    """A model and how its data come; `samples` is what `compare` counts in one test batch."""

    model: onnx.ModelProto
    draw: Callable[[np.random.Generator], Feeds]
    samples: int
    floor: float = 25.0


def waveform(name: str | None) -> Case:
    """A recording (length,), cut into windows by a strided convolution; one answer a recording."""
    rng = RNG(0)
    model = graph(
        [
            node("Reshape", "x shape", "xr"),
            node("Conv", "xr w1 b1", "c", strides=[32]),
            node("Relu", "c", "r"),
            node("Conv", "r w2", "c2", pads=[1, 1]),
            node("ReduceMean", "c2", "g", axes=[2], keepdims=0),
            node("Gemm", "g w3", "y", transB=1),
        ],
        {"x": [name]},
        {"y": [1, 2]},
        {"shape": np.array([1, 1, -1]), "w1": weight(rng, 16, 1, 64), "b1": normal(rng, 16) / 10,
         "w2": weight(rng, 8, 16, 3), "w3": weight(rng, 2, 8)},
    )  # fmt: skip
    return Case(model, lambda r: {"x": normal(r, 1600 + 32 * int(r.integers(4)))}, 1, 20.0)


def frames(names: tuple[str | None, str | None]) -> Case:
    """A recording as (time, mels), convolved over time without a batch axis; one answer a frame."""
    rng = RNG(1)
    model = graph(
        [
            node("Transpose", "x", "xt", perm=[1, 0]),
            node("Unsqueeze", "xt zero", "xu"),
            node("Conv", "xu w1 b1", "c", pads=[1, 1]),
            node("Relu", "c", "r"),
            node("Conv", "r w2", "c2", pads=[2, 2]),
            node("Squeeze", "c2 zero", "s"),
            node("Transpose", "s", "y", perm=[1, 0]),
        ],
        {"x": [names[0], 12]},
        {"y": [names[1], 6]},
        {
            "zero": np.array([0]),
            "w1": weight(rng, 16, 12, 3),
            "b1": normal(rng, 16) / 10,
            "w2": weight(rng, 6, 16, 5),
        },
    )
    return Case(model, lambda r: {"x": normal(r, int(r.integers(20, 40)), 12)}, 1)


def dense_graph(names: tuple[str, str]) -> Case:
    """Two layers of a graph network on (nodes, features) and a dense adjacency (nodes, nodes)."""
    rng = RNG(2)
    model = graph(
        [
            node("MatMul", "x w1", "h1"),
            node("MatMul", "a h1", "m1"),
            node("Relu", "m1", "r1"),
            node("MatMul", "r1 w2", "h2"),
            node("MatMul", "a h2", "y"),
        ],
        {"x": [names[0], 8], "a": [names[1], names[1]]},
        {"y": [names[0], 3]},
        {"w1": weight(rng, 8, 16), "w2": weight(rng, 16, 3)},
    )

    def draw(r: np.random.Generator) -> Feeds:
        n = int(r.integers(9, 15))
        a = (r.random((n, n)) < 0.3) + np.eye(n)
        return {"x": normal(r, n, 8), "a": (a / a.sum(axis=1, keepdims=True)).astype(np.float32)}

    return Case(model, draw, 1, 20.0)


def sparse_graph() -> Case:
    """Messages along edges (2, E): gathered at their sources, added up at their targets."""
    rng = RNG(3)
    model = graph(
        [
            node("MatMul", "x w1", "h1"),
            node("Split", "edges", "src dst", axis=0),
            node("Squeeze", "src zero", "s"),
            node("Transpose", "dst", "t", perm=[1, 0]),
            node("Gather", "h1 s", "messages"),
            node("ScatterND", "h1 t messages", "m", reduction="add"),
            node("Relu", "m", "r"),
            node("MatMul", "r w2", "y"),
        ],
        {"x": ["nodes", 8], "edges": ([2, "edges"], TensorProto.INT64)},
        {"y": ["nodes", 3]},
        {"zero": np.array([0]), "w1": weight(rng, 8, 16), "w2": weight(rng, 16, 3)},
    )

    def draw(r: np.random.Generator) -> Feeds:
        n = int(r.integers(9, 15))
        return {"x": normal(r, n, 8), "edges": r.integers(0, n, (2, 3 * n))}

    return Case(model, draw, 1, 20.0)


def attention(shape: list[str | int | None], batch: int, *, fixed: bool = False) -> Case:
    """Self-attention over axis 0 of (sequence, batch, features), PyTorch's default, and a layer on what comes out."""
    rng = RNG(4)
    n: str | int | None = shape[1]
    model = graph(
        [
            *(node("MatMul", f"x w{k}", k) for k in "qkv"),
            node("Transpose", "q", "qt", perm=[1, 0, 2]),
            node("Transpose", "k", "kt", perm=[1, 2, 0]),
            node("Transpose", "v", "vt", perm=[1, 0, 2]),
            node("MatMul", "qt kt", "s"),
            node("Softmax", "s", "p", axis=-1),
            node("MatMul", "p vt", "o"),
            node("MatMul", "o wo", "h"),
            node("Transpose", "h", "y", perm=[1, 0, 2]),
        ],
        {"x": shape},
        {"y": [shape[0], n, 4]},
        {**{f"w{k}": weight(rng, 8, 8, gain=0.5) for k in "qkv"}, "wo": weight(rng, 8, 4)},
    )
    return Case(
        model, lambda r: {"x": normal(r, 10 if fixed else int(r.integers(8, 12)), batch, 8)}, batch, 20.0
    )


def lstm(names: dict[str, str | None], batch: int = 5) -> Case:
    """An LSTM with its first states as inputs: the batch on axis 1 of the states, on axis 0 of everything else."""
    rng = RNG(5)
    b = names.get
    model = graph(
        [
            node("MatMul", "x w1", "e"),
            node("Transpose", "e", "et", perm=[1, 0, 2]),
            node("LSTM", "et w r bias _ h0 c0", "seq hn cn", hidden_size=6),
            node("Squeeze", "seq one", "s"),
            node("Transpose", "s", "st", perm=[1, 0, 2]),
            node("MatMul", "st w2", "y"),
        ],
        {"x": [b("x"), b("t"), 8], "h0": [1, b("h"), 6], "c0": [1, b("c"), 6]},
        {"y": [b("x"), b("t"), 3], "hn": [1, b("h"), 6], "cn": [1, b("c"), 6]},
        {"w1": weight(rng, 8, 8), "w": weight(rng, 1, 24, 8) * 4, "r": weight(rng, 1, 24, 6) * 4,
         "bias": normal(rng, 1, 48) / 10, "one": np.array([1]), "w2": weight(rng, 6, 3)},
    )  # fmt: skip

    def draw(r: np.random.Generator) -> Feeds:
        states = {k: normal(r, 1, batch, 6) for k in ("h0", "c0")}
        return {"x": normal(r, batch, int(r.integers(5, 9)), 8), **states}

    return Case(model, draw, batch, 20.0)


def with_scalar(shape: list[int]) -> Case:
    """A batch beside a temperature, one for all samples."""
    rng = RNG(6)
    model = graph(
        [
            node("Gemm", "x w1 b1", "h"),
            node("Relu", "h", "r"),
            node("Gemm", "r w2", "g"),
            node("Mul", "g t", "y"),
        ],
        {"x": ["N", 8], "t": shape},
        {"y": ["N", 3]},
        {"w1": weight(rng, 16, 8).T, "b1": normal(rng, 16) / 10, "w2": weight(rng, 3, 16).T},
    )
    return Case(model, lambda r: {"x": normal(r, 6, 8), "t": r.uniform(0.5, 2, shape).astype(np.float32)}, 6)


def with_table(rows: str | int | None) -> Case:
    """A batch beside a table of which every sample reads all rows; both have a free first axis."""
    rng = RNG(7)
    model = graph(
        [
            node("Gemm", "x w1 b1", "h"),
            node("Relu", "h", "r"),
            node("MatMul", "table w2", "k"),
            node("Transpose", "k", "kt", perm=[1, 0]),
            node("MatMul", "r kt", "y"),
        ],
        {"x": ["N", 8], "table": [rows, 4]},
        {"y": ["N", rows]},
        {"w1": weight(rng, 16, 8).T, "b1": normal(rng, 16) / 10, "w2": weight(rng, 16, 4).T},
    )
    return Case(model, lambda r: {"x": normal(r, 6, 8), "table": normal(r, 5, 4)}, 6)


def with_minus_one(case: Case) -> Case:
    """The same file with -1 for the length of its free axes, as some exporters write."""
    for value in (*case.model.graph.input, *case.model.graph.output):
        for d in value.type.tensor_type.shape.dim:
            if not d.HasField("dim_value"):
                d.dim_value = -1
    return case


CASES: dict[str, Callable[[], Case]] = {
    "waveform": lambda: waveform("num_samples"),
    "waveform, no name": lambda: waveform(None),
    "waveform named like a batch": lambda: waveform("N"),
    "frames": lambda: frames(("time", "time")),
    "frames, no names": lambda: frames((None, None)),
    "frames named like a batch": lambda: frames(("batch", "batch")),
    "graph network, dense": lambda: dense_graph(("nodes", "nodes")),
    "graph network, dense, names differ": lambda: dense_graph(("a", "b")),
    "graph network, edges": sparse_graph,
    "attention (S, N, E)": lambda: attention(["S", "N", 8], 6),
    "attention (S, N, E), no names": lambda: attention([None, None, 8], 6),
    "attention (S, N, E), one sample": lambda: attention([None, None, 8], 1),
    "attention, batch fixed at 1": lambda: attention(["S", 1, 8], 1),
    "attention, length fixed": lambda: attention([10, "N", 8], 6, fixed=True),
    "states of an LSTM": lambda: lstm({"x": "batch", "t": "seq", "h": "batch", "c": "batch"}),
    "states of an LSTM, names differ": lambda: lstm({"x": "u1", "t": "u2", "h": "u3", "c": "u4"}),
    "states of an LSTM, no names": lambda: lstm({}),
    "scalar beside the batch": lambda: with_scalar([]),
    "row beside the batch": lambda: with_scalar([1]),
    "matrix beside the batch": lambda: with_scalar([1, 3]),
    "table beside the batch": lambda: with_table("K"),
    "table beside the batch, no name": lambda: with_table(None),
    "fixed table beside the batch": lambda: with_table(5),
    "waveform of length -1": lambda: with_minus_one(waveform(None)),
    "attention (-1, -1, E)": lambda: with_minus_one(attention([None, None, 8], 6)),
    "states of an LSTM for a batch of -1": lambda: with_minus_one(lstm({})),
    "matrix beside a batch of -1": lambda: with_minus_one(with_scalar([1, 3])),
}


@pytest.mark.parametrize("name", CASES)
def test_the_road_and_the_count(name: str, tmp_path: Path) -> None:
    case = CASES[name]()
    rng = RNG(8)
    calibration, tests = [case.draw(rng) for _ in range(8)], [case.draw(rng) for _ in range(3)]
    walked = walk(case.model, calibration, tests, tmp_path, floor=case.floor)
    report = eb.compare(walked.model, walked.quantized["default"], tests)
    assert report.samples == 3 * case.samples
    assert report.outputs[0].sqnr_db >= case.floor


@pytest.mark.parametrize("name", ["waveform", "frames", "graph network, edges", "attention (S, N, E)",
                                  "attention, batch fixed at 1", "states of an LSTM, no names",
                                  "table beside the batch", "row beside the batch", "waveform of length -1",
                                  "states of an LSTM for a batch of -1"])  # fmt: skip
def test_on_the_command_line(name: str, tmp_path: Path) -> None:
    case = CASES[name]()
    rng = RNG(9)
    feeds = case.draw(rng)
    onnx.save(case.model, tmp_path / "f.onnx")
    np.savez(tmp_path / "c.npz", **case.draw(rng))
    np.savez(tmp_path / "t.npz", **feeds)
    run(tmp_path, "quantize f.onnx -c c.npz -o q.onnx")
    q = eb.open(tmp_path / "q.onnx")
    for engine in ("onnxruntime", "numpy"):
        run(tmp_path, f"run q.onnx -i t.npz -o y.npz --engine {engine}")
        with np.load(tmp_path / "y.npz") as found:
            for name_, right in zip(found.files, arrays(call(q, feeds)), strict=True):
                np.testing.assert_array_equal(found[name_], right)
    report = json.loads(run(tmp_path, "compare f.onnx q.onnx -d t.npz --json"))
    assert report["samples"] == case.samples
    same = eb.compare(tmp_path / "f.onnx", q, feeds)
    assert report["outputs"][0]["sqnr_db"] == same.outputs[0].sqnr_db
    timed = json.loads(run(tmp_path, "bench f.onnx q.onnx -d t.npz --rounds 5 --json"))
    assert timed["rounds"] == 5


def test_a_stack_of_recordings(tmp_path: Path) -> None:
    """One axis more than the model has: so many samples, also from a loader and on the command line."""
    case = waveform("num_samples")
    x = normal(RNG(10), 12, 1600)
    model = eb.load(case.model)
    stacked = eb.quantize(model, x)
    listed = eb.quantize(model, list(x))
    labelled = eb.quantize(model, [(x[:6], np.zeros(6, int)), (x[6:], np.ones(6, int))])
    assert stacked.report.params == listed.report.params == labelled.report.params
    right = np.concatenate([run_original(case.model, {"x": row})[0] for row in x])
    report = eb.compare(model, stacked, [(x, right.argmax(axis=1))])
    assert report.samples == 12
    assert report.accuracy is not None
    assert report.accuracy.float_accuracy == 1
    onnx.save(case.model, tmp_path / "f.onnx")
    np.savez(tmp_path / "x.npz", x=x)
    run(tmp_path, "quantize f.onnx -c x.npz -o q.onnx")
    run(tmp_path, "run q.onnx -i x.npz -o y.npz")
    with np.load(tmp_path / "y.npz") as found:
        np.testing.assert_array_equal(found["y"], np.stack([stacked(row) for row in x]))


def test_batches_of_one_and_batches_of_many_are_the_same_samples() -> None:
    case = attention([None, None, 8], 6)
    model = eb.load(case.model)
    batches = [case.draw(RNG(i))["x"] for i in range(6)]
    singles = [x[:, i : i + 1] for x in batches for i in range(6)]
    one, many = eb.quantize(model, singles), eb.quantize(model, batches)
    assert one.report.params == many.report.params
    assert eb.compare(model, one, singles).samples == eb.compare(model, many, batches).samples == 36


@pytest.mark.parametrize("fixed", [1, 3])
def test_a_fixed_batch_takes_data_of_any_number(fixed: int, tmp_path: Path) -> None:
    """Beside the batch: states with the batch on axis 1, a row that every sample reads."""
    rng = RNG(11)
    model = graph(
        [
            node("Gemm", "x w1 row", "h"),
            node("Squeeze", "s zero", "s2"),
            node("Add", "h s2", "a"),
            node("Relu", "a", "r"),
            node("Gemm", "r w2", "y"),
        ],
        {"x": [fixed, 8], "s": [1, fixed, 16], "row": [1, 16]},
        {"y": [fixed, 3]},
        {"w1": weight(rng, 16, 8).T, "w2": weight(rng, 3, 16).T, "zero": np.array([0])},
    )
    feeds = {"x": normal(rng, 6, 8), "s": normal(rng, 1, 6, 16), "row": normal(rng, 1, 16)}
    parts = [
        {"x": feeds["x"][i : i + fixed], "s": feeds["s"][:, i : i + fixed], "row": feeds["row"]}
        for i in range(0, 6, fixed)
    ]
    walked = walk(model, feeds, parts, tmp_path, floor=25)
    again = eb.quantize(walked.model, parts)
    assert again.report.params == walked.quantized["default"].report.params
    assert eb.compare(walked.model, again, feeds).samples == 6
    twos = (feeds for _ in range(2))  # read once
    assert eb.quantize(walked.model, twos).report.params == again.report.params
    onnx.save(model, tmp_path / "f.onnx")
    np.savez(tmp_path / "x.npz", **feeds)
    run(tmp_path, "quantize f.onnx -c x.npz -o q.onnx")
    run(tmp_path, "run q.onnx -i x.npz -o y.npz")
    with np.load(tmp_path / "y.npz") as found:
        np.testing.assert_array_equal(found["y"], np.concatenate([again(p) for p in parts]))


def test_lengths_that_fit_no_run_are_the_callers_mistake() -> None:
    rng = RNG(12)
    model = graph(
        [node("Gemm", "x w", "h"), node("Add", "h z", "y")],
        {"x": ["N", 8], "z": ["N", 3]},
        {"y": ["N", 3]},
        {"w": weight(rng, 3, 8).T},
    )
    with pytest.raises(
        eb.CalibrationError, match=r"different numbers of samples: {'x': 4, 'z': 3}; make them equal"
    ):
        eb.quantize(eb.load(model), {"x": normal(rng, 4, 8), "z": normal(rng, 3, 3)})


def run(folder: Path, words: str) -> str:
    """The command line in `folder`; what it prints."""
    files = [str(folder / w) if "." in w and not w.startswith("-") else w for w in words.split()]
    result = CliRunner().invoke(main, files)
    assert result.exit_code == 0, result.output
    return result.stdout
