"""Codes and weights of 16 bits in the engine: exact sums in int64, and ONNX Runtime's float32 to within rounding."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import pytest

import eightbit as eb
from eightbit.arith.affine import INT8, INT16, dequantize, sqnr_db
from eightbit.arith.fixedpoint import Arithmetic, requantize_a
from eightbit.deploy.sessions import IntegerTensors, OnnxRuntime, run_island
from eightbit.errors import EngineError, QuantizationError
from eightbit.integer import program as p
from eightbit.integer.engine import run
from eightbit.integer.engine.accumulate import accumulate, exact_weight
from eightbit.integer.lower import lower
from tests.conformance.builder import Graph, scale_of
from tests.small_net import images, small_net

WIDTHS = [(INT16, np.int8), (INT8, np.int16), (INT16, np.int16)]
TYPES = {8: np.uint8, 16: np.uint16}


def codes_of(rng: np.random.Generator, dtype: type | np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """All codes, the extremes often."""
    limits = np.iinfo(dtype)
    found = rng.integers(limits.min, limits.max + 1, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([limits.min + 1, limits.max], shape), found).astype(
        dtype
    )


@pytest.mark.parametrize(("x_type", "w_type"), WIDTHS)
@pytest.mark.parametrize("depth", [1, 4096, 70_000])
def test_products_are_exact(x_type, w_type, depth):
    """At the extremes a sum of 70,000 products reaches 2^46; int64 is the judge."""
    rng = np.random.default_rng(depth)
    weight = codes_of(rng, w_type, (3, depth))
    weight[0] = np.iinfo(w_type).max
    x = codes_of(rng, x_type.dtype, (depth, 2))
    x[:, 0] = x_type.qmin
    bias = rng.integers(-(2**31), 2**31, 3).astype(np.int32)
    exact = exact_weight(weight, bias, -7, largest=-x_type.qmin)
    columns = np.concatenate([x, np.ones((int(exact.ones), 2), x.dtype)]).astype(exact.dtype)
    expected = bias[:, None] + weight.astype(np.int64) @ (x.astype(np.int64) + 7)
    np.testing.assert_array_equal(accumulate(exact, columns), expected)


@pytest.mark.parametrize(("x_type", "w_type"), WIDTHS)
@pytest.mark.parametrize("y_type", [INT8, INT16])
@pytest.mark.parametrize("group", [1, 2, 6])
def test_convolutions_are_family_a_on_exact_accumulators(x_type, w_type, y_type, group):
    """Dense, grouped and depthwise, padded and strided, against loops in int64."""
    rng = np.random.default_rng(group)
    x = codes_of(rng, x_type.dtype, (2, 6, 7, 5))
    w = codes_of(rng, w_type, (12, 6 // group, 3, 3))
    bias = rng.integers(-(2**24), 2**24, 12).astype(np.int32)
    s_w = rng.uniform(1e-3, 2e-3, 12).astype(np.float32)
    infos = {
        "x": p.TensorInfo(np.float32(0.02), 5, x_type),
        "y": p.TensorInfo(
            np.float32(np.abs(w.astype(float)).sum((1, 2, 3)).max() * x_type.qmax / 9e6), -3, y_type
        ),
    }
    op = p.Conv("c", ("x",), ("y",), w, bias, s_w, (2, 1), (1, 1, 1, 1), (1, 1), group)
    program = p.Program((), ("y",), (op,), infos, {"x": x})
    padded = np.pad(x.astype(np.int64) - 5, ((0, 0), (0, 0), (1, 1), (1, 1)))
    acc = np.empty((2, 12, 4, 5), np.int64)
    for o, i, j in product(range(12), range(4), range(5)):
        first = o // (12 // group) * (6 // group)
        part = padded[:, first : first + 6 // group, 2 * i : 2 * i + 3, j : j + 3]
        acc[:, o, i, j] = bias[o] + (part * w[o].astype(np.int64)).sum((1, 2, 3))
    m = (np.float32(0.02) * s_w / infos["y"].scale).reshape(-1, 1, 1)
    expected = requantize_a(acc, m, -3, y_type)
    found = run(program, {})["y"]
    assert found.dtype == y_type.dtype
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 50


def test_a_product_of_two_activations_is_exact():
    rng = np.random.default_rng(0)
    a, b = codes_of(rng, np.int16, (2, 3, 500)), codes_of(rng, np.int8, (2, 500, 4))
    infos = {
        "a": p.TensorInfo(np.float32(1e-4), 77, INT16),
        "b": p.TensorInfo(np.float32(1e-2), 9),
        "y": p.TensorInfo(np.float32(3e-2), 0, INT16),
    }
    program = p.Program((), ("y",), (p.MatMul("m", ("a", "b"), ("y",)),), infos, {"a": a, "b": b})
    acc = (a.astype(np.int64) - 77) @ (b.astype(np.int64) - 9)
    m = np.float32(1e-4) * np.float32(1e-2) / np.float32(3e-2)
    np.testing.assert_array_equal(run(program, {})["y"], requantize_a(acc, m, 0, INT16))


def both(g: Graph, output: str, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The codes `output` in the engine and in ONNX Runtime."""
    qdq = g.model()
    found = run(lower(qdq), feeds, island=run_island, keep=True)
    return found[output], IntegerTensors(qdq, threads=1).run(feeds)[output]


def operand(g: Graph, rng: np.random.Generator, name: str, bits: int) -> tuple[str, np.ndarray]:
    """An input that carries random codes exactly, and its feed."""
    zero = int(rng.integers(0, 2**bits))
    scale = scale_of(rng) / 2 ** (bits - 8)
    codes = rng.integers(0, 2**bits, (2, 4, 6, 6))
    floats = (codes - zero).astype(np.float32) * np.float32(scale)
    return g.input(name, list(codes.shape), scale, zero, TYPES[bits]), floats


@pytest.mark.parametrize("op", ["Add", "Mul"])
@pytest.mark.parametrize("bits", [b for b in product((8, 16), repeat=3) if 16 in b])
def test_sums_and_products_of_tensors_equal_onnx_runtime(op, bits):
    """Element by element the float32 formula is the same: no differences at all."""
    for seed in range(5):
        rng, g = np.random.default_rng(seed), Graph()
        (a, fa), (b, fb) = (operand(g, rng, name, n) for name, n in zip("ab", bits, strict=False))
        g.node(op, [a, b], ["y"])
        largest = np.abs(fa + fb if op == "Add" else fa * fb).max()
        step = 0.8 * largest / 2 ** (bits[2] - 1)  # some saturate
        g.output(g.pair("y", "y", step, 2 ** (bits[2] - 1), TYPES[bits[2]]))
        engine, runtime = both(g, "y_q", {"a": fa, "b": fb})
        assert engine.dtype == (np.int8 if bits[2] == 8 else np.int16)
        np.testing.assert_array_equal(engine, runtime)
        assert len(np.unique(engine)) > 10


@pytest.mark.parametrize(("before", "after"), [(16, 16), (16, 8), (8, 16)])
@pytest.mark.parametrize(
    ("op", "attributes", "shape"),
    [
        ("MaxPool", {"kernel_shape": [3, 3], "pads": [1] * 4}, [2, 4, 6, 6]),
        ("AveragePool", {"kernel_shape": [3, 3], "strides": [3, 3]}, [2, 4, 2, 2]),
        ("GlobalAveragePool", {}, [2, 4, 1, 1]),
        ("Sigmoid", {}, [2, 4, 6, 6]),
        ("HardSwish", {}, [2, 4, 6, 6]),
        ("Softmax", {"axis": 1}, [2, 4, 6, 6]),
        ("Transpose", {"perm": [0, 2, 3, 1]}, [2, 6, 6, 4]),
        ("Concat", {"axis": 1}, [2, 8, 6, 6]),
    ],
)
def test_other_operations_come_within_a_code_of_onnx_runtime(op, attributes, shape, before, after):
    """There the float32 sums and functions are taken, whose last bit may turn a code; an 8-bit step is never missed."""
    rng, g = np.random.default_rng(1), Graph()
    x, feed = operand(g, rng, "x", before)
    g.node(op, [x, x] if op == "Concat" else [x], ["y"], **attributes)
    last = 1 / 2**after if op in ("Sigmoid", "Softmax") else 1.3 * scale_of(rng) / 2 ** (after - 8)
    g.output(g.pair("y", "y", last, 2 ** (after - 1), TYPES[after]))
    engine, runtime = both(g, "y_q", {"x": feed})
    assert engine.dtype == runtime.dtype and engine.shape == tuple(shape)
    assert np.abs(engine.astype(int) - runtime).max() <= 1
    assert (engine != runtime).mean() < (0.01 if after == 8 else 0.2)


@pytest.fixture(scope="module")
def model() -> eb.Model:
    return eb.load(small_net())


RECIPES = {
    "activations": eb.Recipe(activations=eb.Activations(bits=16)),
    "symmetric": eb.Recipe(activations=eb.Activations(bits=16, symmetric=True)),
    "weights": eb.Recipe(weights=eb.Weights(bits=16)),
    "both": eb.Recipe(weights=eb.Weights(bits=12), activations=eb.Activations(bits=16)),
    "one tensor": eb.Recipe(overrides={"stem": eb.Layer(activations=eb.Activations(bits=16))}),
    "one layer": eb.Recipe(overrides={"body": eb.Layer(weights=eb.Weights(bits=16))}),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_network_runs_alike_in_both_engines_and_saves(recipe, model, tmp_path):
    q = eb.quantize(model, images(64), recipe)
    q = eb.open(q.save(tmp_path / "wide.onnx"))
    assert not any(isinstance(op, p.FloatIsland) for op in q.program.ops)
    x = images(32, seed=1)
    ours, theirs = q.run(x, engine="numpy"), q(x)
    step = max(float(info.scale) for name, info in q.program.tensors.items() if name.startswith("logits"))
    assert (
        np.abs(ours - theirs).max() <= 2.5 * step
    )  # a code turned in an 8-bit tensor moves the logits by a few


def test_more_bits_mean_less_noise(model):
    """Each twice as fine for a bit more; the plain recipe, so that nothing is clipped or made up for."""
    x, plain = images(64), eb.Recipe.plain()
    exact = model(x)

    def kept(bits: int, codes: int) -> float:
        recipe = replace(
            plain,
            weights=replace(plain.weights, bits=bits),
            activations=replace(plain.codes, bits=codes),
        )
        return sqnr_db(exact, eb.quantize(model, x, recipe)(x))

    assert kept(8, 16) > kept(8, 8) + 1
    assert kept(16, 16) > kept(12, 16) + 15 > kept(8, 16) + 30
    assert kept(16, 16) > 75


def test_only_onnx_arithmetic_has_sixteen_bits(model):
    q = eb.quantize(model, images(8), RECIPES["one tensor"])
    with pytest.raises(
        EngineError, match=r"_q' has codes of 16 bits, which TFLITE arithmetic has no rule for"
    ):
        run(q.program, {"image": images(1)}, arithmetic=Arithmetic.TFLITE)
    q = eb.quantize(model, images(8), RECIPES["one layer"])
    with pytest.raises(EngineError, match="'body' has codes of 16 bits"):
        run(q.program, {"image": images(1)}, arithmetic=Arithmetic.SINGLE)


def test_the_histogram_of_wide_codes_keeps_its_shape(model):
    """The error of codes far narrower than a bin is a twelfth of a step squared, and clipping what lies beyond."""
    from eightbit.quant.methods.calibrators import MSE, code_error

    x = np.linspace(-1, 1, 2001)
    weight = np.ones_like(x)
    s = 2 / (2**16 - 1)
    assert code_error(x, weight, -1, 1, INT16, False) == pytest.approx(2001 * s**2 / 12, rel=1e-3)
    clipped = code_error(x, weight, -0.5, 0.5, INT16, False)
    assert clipped == pytest.approx(float((np.maximum(np.abs(x) - 0.5, 0) ** 2).sum()), rel=1e-3)
    state = MSE().state()
    state.update(np.random.default_rng(0).standard_normal(20_000).astype(np.float32))
    lo, hi = MSE().limits(state, INT16, False)
    assert lo <= 0.95 * state.extremes.lo and hi >= 0.95 * state.extremes.hi


def test_dynamic_layers_and_other_widths_are_refused():
    with pytest.raises(QuantizationError, match="to 8 bits"):
        eb.Activations(bits=16, dynamic=True)
    with pytest.raises(
        QuantizationError, match=r"Activations\(bits=12\): give an integer equal to .* 8 or 16"
    ):
        eb.Activations(bits=12)
    with pytest.raises(QuantizationError, match="MatMulInteger, whose weights have 8 bits"):
        eb.Recipe(weights=eb.Weights(bits=9), activations=eb.Activations(dynamic=True))


def test_weights_of_sixteen_bits_alone_run_and_round_trip(model, tmp_path):
    recipe = eb.Recipe(weights=eb.Weights(bits=16), activations=eb.FLOAT)
    q = eb.quantize(model, images(16), recipe)
    x = images(16, seed=1)
    assert sqnr_db(model(x), q(x)) > 80
    path = eb.save_weights(q, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(eb.load_weights(model, path)(x), q(x))


def test_a_tensor_of_sixteen_bits_is_listed_with_its_noise(model):
    q = eb.quantize(model, images(16), RECIPES["one tensor"])
    rows = {row.name: row for row in eb.inspect(q).tensors}
    wide = [row for row in rows.values() if row.bits == 16]
    assert [row.dtype for row in wide] == ["uint16"]
    errors = {e.name: e.sqnr_db for e in eb.compare(model, q, images(16)).layers}
    narrow = {e.name: e.sqnr_db for e in eb.compare(model, eb.quantize(model, images(16)), images(16)).layers}
    assert errors[wide[0].name] > narrow[wide[0].name] + 0.5


def test_a_layer_in_float_may_write_sixteen_bits(model):
    """The Relu behind the stem carries its output to two readers in integers; the stem itself is an island."""
    wide = eb.Layer(weights=eb.FLOAT, activations=eb.Activations(bits=16))
    q = eb.quantize(
        model,
        images(16),
        eb.Recipe(overrides={"stem": wide, "relu1": eb.Layer(activations=wide.activations)}),
    )
    assert "stem" in {island.node for island in q.report.islands}
    bits = {row.name: row.bits for row in eb.inspect(q).tensors if row.kind == "activation"}
    assert bits["r1"] == 16 and set(bits.values()) == {8, 16}
    x = images(8, seed=1)
    np.testing.assert_allclose(q.run(x, engine="numpy"), q(x), atol=0.05)


def test_dequantized_codes_are_onnx_runtimes():
    """uint16 at the border of the graph, int16 inside: the same numbers."""
    g = Graph()
    rng = np.random.default_rng(0)
    x, feed = operand(g, rng, "x", 16)
    g.output(x)
    qdq = g.model()
    program = lower(qdq)
    found = run(program, {"x": feed}, keep=True)
    np.testing.assert_array_equal(found["x_dq"], OnnxRuntime(qdq).run({"x": feed})["x_dq"])
    np.testing.assert_array_equal(dequantize(found["x_q"], program.tensors["x_q"].params), found["x_dq"])
    assert found["x_q"].dtype == np.int16
    assert onnx.TensorProto.UINT16 in {t.data_type for t in g.inits}
