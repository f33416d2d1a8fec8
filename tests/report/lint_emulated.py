"""Which layers of the graphs made for lint saturate on the processor that this runs on; an emulator runs it.

    qemu-x86_64 -cpu Haswell python -m tests.report.lint_emulated

Each graph runs in a session of ONNX Runtime that asks for nothing. A layer saturated if its codes are not those that
the NumPy engine makes of the codes that went in; where a layer's sums leave as float, the outputs tell. Printed is one
line of JSON, `{graph: [layers]}`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

import eightbit as eb
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.graph.run import to_bytes
from eightbit.integer.engine import prepare
from eightbit.integer.program import Conv, DynamicGemm, Gemm, GemmToFloat, canonical
from tests.report.lint_graphs import CASES, Feeds


def saturated(q: eb.QuantizedModel, feeds: Feeds) -> list[str]:
    """The layers of one model that a session without any setting computes wrongly."""
    layers = [op.name for op in q.program.ops if isinstance(op, Conv | Gemm | GemmToFloat | DynamicGemm)]
    found, codes = [], {name: canonical(array) for name, array in by_default(q, feeds).items()}
    for op, kernel in zip(q.program.ops, prepare(q.program, Arithmetic.ONNX), strict=True):
        if (
            not isinstance(op, Conv | Gemm)
            or kernel is None
            or not {op.inputs[0], op.outputs[0]} <= set(codes)
        ):
            continue
        if np.any(kernel(codes[op.inputs[0]]) != codes[op.outputs[0]]):
            found.append(op.name)
    inside = {op.name for op in q.program.ops if isinstance(op, GemmToFloat | DynamicGemm)}
    if inside and outputs_differ(q, feeds):
        found += inside
    return [name for name in layers if name in found]


def outputs_differ(q: eb.QuantizedModel, feeds: Feeds) -> bool:
    """Whether such a session gives other outputs than exact ones, by more than the last digits of float sums."""
    session = ort.InferenceSession(to_bytes(q.ir), providers=["CPUExecutionProvider"])
    right = q(feeds)
    return not np.allclose(
        session.run(None, feeds)[0], right, rtol=1e-5, atol=1e-5 * float(np.abs(right).max())
    )


def by_default(q: eb.QuantizedModel, feeds: Feeds) -> dict[str, np.ndarray]:
    """Every tensor of codes, as the graph that such a session makes of the model computes it."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        options.log_severity_level = 4
        ort.InferenceSession(to_bytes(q.ir), options, providers=["CPUExecutionProvider"])
        proto = onnx.load(options.optimized_model_filepath)
    made = {name for node in proto.graph.node for name in node.output}
    names = [name for name in q.program.tensors if name in made]
    if not names:
        return {}
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, feeds), strict=True))


if __name__ == "__main__":
    print(json.dumps({case.name: saturated(*case.build()) for case in CASES}))
