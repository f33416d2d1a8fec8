"""Test graphs in ONNX text syntax, with random weights, and the check that two graphs compute the same."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper, parser

from eightbit.data.specs import specs
from eightbit.graph.prepare.fold import infer_shapes
from eightbit.graph.run import FloatSession


def parse(body: str, *, opset: int = 21, **weights: np.ndarray) -> onnx.ModelProto:
    """A model proto from a graph in text, e.g. "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"."""
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {body}')
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def graph(body: str, *, opset: int = 21, **weights: np.ndarray) -> ir.Model:
    """The same as an `onnx_ir.Model` with shapes inferred."""
    model = ir.from_proto(parse(body, opset=opset, **weights))
    infer_shapes(model)
    return model


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def assert_same(before: ir.Model, after: ir.Model, batch: int = 3) -> None:
    """Both pass the checker and give the same outputs on random input, free axes set to `batch`."""
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    feeds = {s.name: normal(*[d or batch for d in s.shape], seed=i) for i, s in enumerate(specs(before))}
    expected, got = (
        FloatSession(before, optimize=False).run(feeds),
        FloatSession(after, optimize=False).run(feeds),
    )
    assert list(expected) == list(got)
    for name, array in expected.items():
        # Folding rounds each product once and reorders float32 sums of up to a few hundred terms of size
        # about 1: errors of some 1e-6 of the largest output. A wrong fold is off by 1e-2 or more.
        np.testing.assert_allclose(
            got[name], array, rtol=0, atol=5e-6 * max(1.0, float(np.abs(array).max(initial=0.0)))
        )
