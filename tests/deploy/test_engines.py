"""One list of engines: what each takes, what it says where it is not installed, and OpenVINO beside the others."""

from __future__ import annotations

import sys
import zlib

import numpy as np
import pytest
import torch

import eightbit as eb
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.engines import ENGINES, installed
from eightbit.deploy.openvino_session import coded_once
from eightbit.deploy.sessions import OnnxRuntime
from tests.conformance.cases import ROWS
from tests.small_net import images, small_net


@pytest.fixture(scope="module")
def q() -> eb.QuantizedModel:
    return eb.quantize(small_net(), images(64), eb.Recipe.plain())


def test_every_engine_that_is_installed_runs_each_of_its_arithmetics(q: eb.QuantizedModel) -> None:
    x = images(40, seed=1)
    step = float(q.program.tensors[q.program.ops[-1].inputs[0]].scale)
    assert {engine.name for engine in installed()} >= {"onnxruntime", "numpy"}
    for engine in installed():
        for arithmetic in engine.arithmetics or (None,):
            found = q.run(x, engine=engine.name, arithmetic=arithmetic)
            expected = q.run(x, engine="numpy", arithmetic=arithmetic or Arithmetic.ONNX)
            differences = np.rint(
                (found - expected) / step
            )  # of codes, which an engine without a name may have
            assert np.abs(differences).max() <= (0 if arithmetic else 1), engine.name
        if engine.start_float is not None:
            np.testing.assert_allclose(
                engine.start_float(eb.load(small_net()).ir, 1).run({"image": x})["logits"],
                eb.load(small_net())(x),
                atol=1e-4,  # float32 sums in another order
            )


@pytest.mark.parametrize(
    ("name", "without", "said"),
    [
        ("openvino", "openvino", r"openvino is not installed; run: pip install 'eightbit\[openvino\]'"),
        (
            "litert",
            "ai_edge_litert",
            r"ai_edge_litert is not installed; run: pip install 'eightbit\[litert\]'",
        ),
        ("tflm", "tflite_micro", r"tflite_micro is not installed; run: pip install 'eightbit\[tflm\]'"),
        ("native", None, "needs a C compiler, and no cc, gcc or clang was found"),
    ],
)
def test_what_is_not_installed_is_named(
    q: eb.QuantizedModel, monkeypatch: pytest.MonkeyPatch, name: str, without: str | None, said: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CC", raising=False)
    if without is not None:
        monkeypatch.setitem(sys.modules, without, None)
    assert name not in {engine.name for engine in installed()}
    with pytest.raises(eb.EightbitError, match=said):
        q.run(images(1), engine=name)


def test_openvino_has_no_arithmetic_to_choose(q: eb.QuantizedModel) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(eb.EngineError, match="'openvino' has no 'onnx' arithmetic; it rounds in its own way"):
        q.run(images(1), engine="openvino", arithmetic="onnx")
    with pytest.raises(eb.EngineError, match="threads=0: give 1 to"):
        ENGINES["openvino"].start(q, None, 0)


SUMS = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")


PADDED_MEANS = {
    *("AveragePool random include 1", "AveragePool same include 1", "AveragePool half include 1"),
    *("AveragePool 3D include 1", "AveragePool whole image, padded 1"),
}


class Heads(torch.nn.Module):
    """A product, its rows moved as attention moves them, and a second product; what was moved is an output too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 12), torch.nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        heads = self.first(x).reshape(-1, 5, 4, 3).transpose(1, 2)
        return self.second(heads), heads


def test_openvino_is_handed_a_graph_that_writes_codes_once() -> None:
    x = np.random.default_rng(0).normal(size=(16, 5, 8)).astype(np.float32)
    q = eb.quantize(Heads(), x, eb.Recipe.plain())
    once, written = coded_once(q.ir), q.ir
    quantized = [sum(node.op_type == "QuantizeLinear" for node in graph.graph) for graph in (written, once)]
    assert quantized == [9, 3]  # as it was; of the input and of each product
    for graph in (written, once):
        found = OnnxRuntime(graph, threads=1).run({"x": x})
        for name, expected in zip(("linear_1", "transpose"), q.run(x, engine="numpy"), strict=True):
            np.testing.assert_array_equal(found[name], expected)


@pytest.mark.slow
def test_openvino_runs_the_conformance_table_within_two_codes() -> None:
    """Layers with weights within one code in a thousand; what rounds in float between codes moves by one, Clip by two.

    A mean over padding would be wrong by up to 198 codes, and is refused.
    """
    pytest.importorskip("openvino")
    refused = set()
    for row in ROWS:
        graph, feeds = row.build(np.random.default_rng(zlib.crc32(row.name.encode())))
        q = eb.QuantizedModel(graph.model())
        try:
            runner = ENGINES["openvino"].start(q, None, 1)
        except eb.EngineError as cause:
            refused.add((row.name, "averages its padding" in str(cause)))
            continue
        found, expected = runner.run(feeds), q.run(feeds, engine="numpy")
        writers = {name: op for op in q.program.ops for name in op.outputs}
        for output, right in zip(q.outputs, as_tuple(expected), strict=True):
            info = q.program.tensors.get(writers[output.name].inputs[0])
            step = 1.0 if info is None else float(info.scale)
            off = np.abs(np.rint((found[output.name].astype(np.float64) - right) / step))
            assert off.max() <= (2 if row.kernel == "Clip" else 1), row.name
            assert row.kernel not in SUMS or np.mean(off > 0) <= 0.001, row.name
    # OpenVINO reads no Split by `num_outputs` whose last part is shorter, and says so.
    assert refused == {(name, True) for name in PADDED_MEANS} | {("Split last, uneven", False)}


def as_tuple(result: object) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)  # type: ignore[return-value]
