"""Float islands in a .tflite: each float operator against the graph's own, between codes; refusals; whole networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

import eightbit as eb
from eightbit.deploy.engines import Engine
from eightbit.deploy.tflite.engines import LiteRT
from eightbit.deploy.tflite.prepare import net_of
from tests.graph.graphs import normal
from tests.report.lint_graphs import kept, named
from tests.small_net import images, small_net

RTOL = 1e-5
"""Of the largest output: sums in float32 are added in another order, exponentials have other last digits."""


@pytest.fixture(scope="session", autouse=True)
def litert(engine: Callable[[str], Engine]) -> None:
    engine("litert")


@dataclass(frozen=True)
class Case:
    """`t`, computed in float from `m`, which is codes; what it is written by besides DEQUANTIZE."""

    op: str
    kinds: str
    shape: tuple[int, ...] = (1, 3, 5, 6)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    def build(self) -> eb.QuantizedModel:
        """Two outputs: the codes of `m`, and `t`, in float to the end."""
        image = len(self.shape) == 4
        first = ("Conv (x, first)", normal(3, 3, 1, 1)) if image else ("MatMul (x, first)", normal(8, 8))
        text = (
            f"g ({_dims(self.shape)} x) => ({_dims(self.shape)} m, float t) {{ m = {first[0]}\n {self.op} }}"
        )
        model = named(text, first=first[1], **self.weights)
        return eb.quantize(model, normal(4, *self.shape[1:]), kept("t*", *["u*"] * self.op.startswith("u")))

    def alone(self) -> eb.Model:
        """`t` of `m`."""
        return named(f"g ({_dims(self.shape)} m) => (float t) {{ {self.op} }}", **self.weights)


def _dims(shape: tuple[int, ...]) -> str:
    return f"float[{','.join(map(str, ('N', *shape[1:])))}]"


IMAGE, ROWS = (1, 3, 5, 6), (1, 4, 8)
ints = lambda *numbers: np.array(numbers, np.int64)  # noqa: E731
f32 = lambda *numbers: np.array(numbers, np.float32)  # noqa: E731
UNARY = {
    "Relu": "RELU",
    "Sigmoid": "LOGISTIC",
    "Tanh": "TANH",
    "HardSwish": "HARD_SWISH",
    "Gelu": "GELU",
    "Exp": "EXP",
    "Abs": "ABS",
    "Neg": "NEG",
    "Floor": "FLOOR",
    "Ceil": "CEIL",
    "Round": "ROUND",
    "Sin": "SIN",
    "Cos": "COS",
    "Elu": "ELU",
    'Gelu <approximate="tanh">': "GELU",
    "LeakyRelu <alpha=0.3>": "LEAKY_RELU",
    "HardSigmoid": "MUL ADD MAXIMUM MINIMUM",
}
CASES = (
    *(Case(f"u = Neg (m)\n t = {op} (u)", f"NEG {kinds}") for op, kinds in UNARY.items()),
    Case("u = Exp (m)\n t = Log (u)", "EXP LOG"),
    Case("u = Exp (m)\n u2 = Sqrt (u)\n t = Reciprocal (u2)", "EXP SQRT DIV"),
    Case("t = Add (m, w)", "ADD", weights={"w": normal(3, 1, 1)}),
    Case("t = Sub (m, w)", "SUB", weights={"w": normal(6)}),
    Case("t = Mul (w, m)", "MUL", weights={"w": normal(5, 1)}),
    Case("t = Div (m, w)", "DIV", weights={"w": f32(3)}),
    Case("u = Abs (m)\n t = Pow (u, w)", "ABS POW", weights={"w": f32(1.5)}),
    Case("t = Pow (m, w)", "POW", weights={"w": ints(3)}),
    Case("u = Abs (m)\n t = Max (u, m)", "ABS MAXIMUM"),
    Case("t = Min (m, w)", "MINIMUM", weights={"w": normal(3, 1, 1)}),
    Case("t = PRelu (m, w)", "PRELU", weights={"w": normal(3, 1, 1)}),
    Case(
        "u = Abs (m)\n u2 = Greater (m, w)\n t = Where (u2, u, m)",
        "ABS GREATER SELECT_V2",
        weights={"w": f32(0.2)},
    ),
    Case(
        "u = Abs (m)\n t = Clip (u, lo, hi)", "ABS RELU6", weights={"lo": np.float32(0), "hi": np.float32(6)}
    ),
    Case(
        "u = Abs (m)\n t = Clip (u, lo, hi)",
        "ABS MAXIMUM MINIMUM",
        weights={"lo": np.float32(-0.5), "hi": np.float32(1)},
    ),
    Case("t = Softmax <axis=-1> (m)", "TRANSPOSE SOFTMAX TRANSPOSE"),
    Case("t = Softmax <axis=1> (m)", "SOFTMAX"),
    Case("t = MatMul (m, w)", "FULLY_CONNECTED", ROWS, {"w": normal(8, 6)}),
    Case("u = Transpose <perm=[0,2,1]> (m)\n t = MatMul (m, u)", "TRANSPOSE BATCH_MATMUL", ROWS),
    Case("t = Gemm <transB=1> (m, w, b)", "FULLY_CONNECTED", (1, 8), {"w": normal(6, 8), "b": normal(6)}),
    Case(
        "t = Conv <pads=[1,1,1,1], strides=[2,2]> (m, w, b)",
        "PAD CONV_2D",
        weights={"w": normal(4, 3, 3, 3), "b": normal(4)},
    ),
    Case("t = Conv <group=3> (m, w)", "DEPTHWISE_CONV_2D", weights={"w": normal(3, 1, 3, 3)}),
    Case(
        "t = ConvTranspose <strides=[2,2]> (m, w, b)",
        "TRANSPOSE_CONV STRIDED_SLICE",
        weights={"w": normal(3, 2, 3, 2), "b": normal(2)},
    ),
    Case(
        "t = ConvTranspose <strides=[2,2], pads=[1,0,1,1]> (m, w)",
        "TRANSPOSE_CONV STRIDED_SLICE",
        weights={"w": normal(3, 2, 3, 3)},
    ),
    Case("t = MaxPool <kernel_shape=[2,2], strides=[2,2]> (m)", "MAX_POOL_2D"),
    Case("t = MaxPool <kernel_shape=[3,3], pads=[1,1,1,1]> (m)", "MAX_POOL_2D"),
    Case("t = AveragePool <kernel_shape=[2,3]> (m)", "AVERAGE_POOL_2D"),
    Case("t = GlobalAveragePool (m)", "MEAN"),
    Case("t = ReduceMean <keepdims=0> (m, w)", "MEAN", weights={"w": ints(2, 3)}),
    Case("t = ReduceMax (m, w)", "REDUCE_MAX", weights={"w": ints(-1)}),
    Case("t = ReduceMin (m)", "REDUCE_MIN"),
    Case("t = ReduceSum (m, w)", "SUM", weights={"w": ints(1)}),
    Case("t = ReduceProd <keepdims=0> (m, w)", "REDUCE_PROD", weights={"w": ints(1, 2)}),
    Case("t = ReduceL2 <keepdims=0> (m, w)", "MUL SUM SQRT", weights={"w": ints(1)}),
    Case(
        "t = LayerNormalization (m, s, b)",
        "MEAN SQUARED_DIFFERENCE MEAN ADD RSQRT SUB MUL MUL ADD",
        ROWS,
        {"s": normal(8), "b": normal(8)},
    ),
    Case(
        "t = InstanceNormalization (m, s, b)",
        "MEAN SQUARED_DIFFERENCE MEAN ADD RSQRT SUB MUL MUL ADD",
        weights={"s": normal(3), "b": normal(3)},
    ),
    Case("u = Abs (m)\n t = Reshape (u, w)", "ABS TRANSPOSE", weights={"w": ints(0, -1)}),
    Case("u = Abs (m)\n t = Transpose <perm=[0,3,1,2]> (u)", "ABS TRANSPOSE"),
    Case("u = Abs (m)\n t = Concat <axis=1> (u, m)", "ABS CONCATENATION"),
    Case(
        "u = Abs (m)\n t = Slice (u, b, e)", "ABS STRIDED_SLICE", weights={"b": ints(0, 1), "e": ints(1, 9)}
    ),
    Case(
        "u = Abs (m)\n t = Pad (u, w, v)",
        "ABS PADV2",
        weights={"w": ints(0, 0, 1, 0, 0, 0, 2, 1), "v": f32(2)},
    ),
    Case("u = Abs (m)\n t = Gather <axis=1> (u, w)", "ABS TRANSPOSE GATHER", weights={"w": ints(2, -3)}),
    Case(
        "u = Abs (m)\n t = GatherND (u, w)",
        "ABS TRANSPOSE GATHER_ND",
        weights={"w": ints(0, -1, 0, 2).reshape(2, 2)},
    ),
    Case(
        "u, u2 = Split <axis=1> (m, w)\n t = Sub (u, u2)",
        "STRIDED_SLICE STRIDED_SLICE SUB",
        weights={"w": ints(1, 2)},
    ),
    Case("u = ReduceMean (m)\n t = Expand (u, w)", "MEAN BROADCAST_TO", weights={"w": ints(1, 3, 5, 6)}),
    Case('t = Resize <mode="nearest"> (m, , s)', "RESIZE_NEAREST_NEIGHBOR", weights={"s": f32(1, 1, 2, 3)}),
    Case('t = Resize <mode="linear"> (m, , s)', "RESIZE_BILINEAR", weights={"s": f32(1, 1, 2, 2)}),
    Case(
        'u = Resize <mode="linear", axes=[2,3], coordinate_transformation_mode="align_corners"> (m,,,n)\n t = Neg (u)',
        "RESIZE_BILINEAR NEG",
        weights={"n": ints(9, 11)},
    ),
    Case("u = Shape (m)\n u2 = Cast <to=1> (u)\n u3 = ReduceMean (u2)\n t = Mul (m, u3)", "MUL"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.op.replace("\n", ";"))
def test_every_float_operator(case: Case) -> None:
    """From the codes of `m` that LiteRT made, in both of its kernels, `t` is what ONNX Runtime computes in float."""
    q, alone = case.build(), case.alone()
    kinds = [operator.kind for operator in net_of(q.program).operators if operator.kind != "RESHAPE"]
    assert "t" in q.program.in_float and " ".join(kinds[kinds.index("DEQUANTIZE") + 1 :]) == case.kinds, kinds
    for xnnpack in (True, False):
        for seed in (1, 2):
            found = LiteRT(q.program, xnnpack=xnnpack).run({"x": normal(*case.shape, seed=seed)})
            expected = alone(found["m"])
            assert found["t"].shape == expected.shape
            np.testing.assert_allclose(found["t"], expected, rtol=0, atol=RTOL * np.abs(expected).max())


def test_what_has_no_float_operator_is_refused_by_name() -> None:
    """Every node that cannot be written is on a line of its own, with its op and what to do."""
    op = "u = Abs (m)\n u2 = Erf (u)\n u3 = Sin (u2)\n u4 = Mish (u3)\n t = Elu <alpha=0.5> (u4)"
    q = Case(op, "").build()
    with pytest.raises(eb.ExportError, match="cannot be written") as caught:
        net_of(q.program)
    said = str(caught.value).splitlines()[1:]
    assert [line.strip().split(":")[0] for line in said] == ["u2", "u4", "t"]
    assert all(
        "for which this writer has no float operator" in line and "use another" in line for line in said
    )
    assert "it is Erf," in said[0] and "it is Elu with alpha 0.5," in said[2]
    assert {f.node for f in eb.lint(q, "tflite").findings} == {"u2", "u4", "t"}


def near(q: eb.QuantizedModel, feeds: Mapping[str, np.ndarray], engine: str) -> float:
    """How near the outputs in LiteRT are to those of the NumPy engine with its islands; 1 is equal (cosine)."""
    one, other = (np.asarray(q.run(feeds, engine=name, **how)).ravel() for name, how in ((engine, {}), NUMPY))
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


NUMPY = ("numpy", {"arithmetic": "tflite"})


def test_an_encoder() -> None:
    """Attention with its softmax, two norms, GELU: all but the products of matrices may be in float."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, activation="gelu", batch_first=True)
    q = eb.quantize(eb.load(layer.eval(), torch.zeros(1, 6, 32)), normal(32, 6, 32))
    x = normal(8, 6, 32, seed=3)
    assert "LayerNormalization" in {finding.op for finding in eb.lint(q, "tflite").findings}
    assert min(near(q, {q.inputs[0].name: x}, which) for which in ("litert", "litert-builtin")) > 0.9995


def test_an_image_crosses_an_island_as_it_lies() -> None:
    """A block in float inside a network of codes: channels stay last, nothing is transposed."""
    q = eb.quantize(small_net(), images(64), kept("body"))
    kinds = [operator.kind for operator in net_of(q.program).operators]
    assert {"DEQUANTIZE", "QUANTIZE"} <= set(kinds) and "TRANSPOSE" not in kinds
    assert near(q, {q.inputs[0].name: images(16, seed=1)}, "litert") > 0.9999
