"""HardSwish between codes: a Clip of codes and a product, whole steps to the knee, and float where neither can be."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.arith.affine import dequantize, quantize, sqnr_db
from eightbit.deploy.sessions import optimized_ops
from eightbit.graph.coded import code_tensors
from eightbit.graph.run import FloatSession
from eightbit.integer.program import Lookup, Mul
from eightbit.quant.choose.recipe import Activations, Layer, Recipe
from eightbit.quant.quantize import quantize_graph
from tests.graph.graphs import normal
from tests.quant.test_placement import SPAN, network

SPELLED = {
    "op": "h = HardSwish (a)",
    "gate": "g = HardSigmoid <alpha=0.16666667, beta=0.5> (a) h = Mul (a, g)",
    "clip": "b = Add (a, three) c = Clip (b, zero, six) d = Mul (a, c) h = Div (d, six)",
    "gate first": "b = Add (three, a) c = Clip (b, zero, six) d = Div (c, six) h = Mul (d, a)",
    "scaled": "g = HardSwish (a) h = Mul (g, half)",
}
NUMBERS = {"zero": 0, "half": 0.5, "three": 3, "six": 6, "minus": -1}
CONSTANTS = {name: np.float32(number) for name, number in NUMBERS.items()}
CONSTANTS["w"] = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
"""`w` passes channels through."""


def quantized(body, recipe=None, data=SPAN, **constants):
    """The quantized model, without the self-check, and its parameters."""
    made, _, params = quantize_graph(
        network(body, **CONSTANTS | constants), data, recipe or Recipe(equalize=False)
    )
    return eb.QuantizedModel(made), params


def in_one_product(q):
    """Whether no float node but borders is left of a HardSwish, and its codes are cut off by a Clip."""
    ops = [node.op_type for node in q.ir.graph]
    return "Clip" in ops and not {"HardSwish", "HardSigmoid", "Div", "Add"}.intersection(ops)


@pytest.mark.parametrize("recipe", [Recipe(equalize=False), Recipe.plain()], ids=["default", "plain"])
@pytest.mark.parametrize("body", SPELLED.values(), ids=SPELLED)
def test_hard_swish_is_one_product_of_codes_with_one_rounding(body, recipe):
    q, params = quantized(f"a = Conv (x, w) {body} y = Conv (h, w)", recipe)
    assert in_one_product(q)
    assert not q.program.in_float
    table = next(op for op in q.program.ops if isinstance(op, Lookup))
    x = dequantize(np.arange(256), params["a"])
    exact = x * np.clip(x / 6 + 0.5, 0, 1) * (0.5 if "half" in body else 1)
    off = table.table.astype(int) + 128 - quantize(exact, params["h"])
    assert np.abs(off).max() <= 1  # a tie goes either way
    assert (off != 0).mean() < 0.02
    np.testing.assert_array_equal(q(SPAN), q.run(SPAN, engine="numpy"))


def test_three_is_a_whole_number_of_steps_and_the_range_a_little_wider():
    _, params = quantized("a = Conv (x, w) h = HardSwish (a) y = Conv (h, w)")
    steps = 3 / params["a"].scale
    assert steps == pytest.approx(np.round(steps), rel=1e-6)
    lo, hi = dequantize([0, 255], params["a"])
    assert lo == pytest.approx(-3, abs=1e-5)
    assert 11.9 < hi < 12.3


def test_onnx_runtime_runs_it_in_integer_kernels():
    q, _ = quantized("a = Conv (x, w) h = HardSwish (a) y = Conv (h, w)")
    ops = [op for op, _ in optimized_ops(q.ir)]
    assert ops.count("QLinearMul") == 1
    assert not {"Mul", "HardSigmoid"}.intersection(ops)


def test_others_may_read_the_same_tensor():
    body = "a = Conv (x, w) h = HardSwish (a) m = MaxPool <kernel_shape=[1,1]> (a) s = Concat <axis=1> (h, m)"
    q, params = quantized(f"{body} y = Conv (s, v)", v=np.ones((1, 8, 1, 1), np.float32))
    assert in_one_product(q)
    lo, _ = dequantize([0, 255], params["a"])
    assert lo < -11  # the pool reads what lies below -3
    np.testing.assert_array_equal(q(SPAN), q.run(SPAN, engine="numpy"))


@pytest.mark.parametrize(
    ("why", "body", "recipe", "data"),
    [
        ("its range ends far above -3", "h = HardSwish (a)", Recipe(equalize=False), np.abs(SPAN) / 12),
        ("three is two steps of it", "h = HardSwish (a)", Recipe(equalize=False), SPAN * 40),
        ("16 bits", "h = HardSwish (a)", Recipe(activations=Activations(bits=16)), SPAN),
        (
            "16 bits behind it",
            "h = HardSwish (a)",
            Recipe(overrides={"h": Layer(activations=Activations(bits=16))}, equalize=False),
            SPAN,
        ),
        ("4 bits", "h = HardSwish (a)", Recipe(activations=Activations(bits=4)), SPAN),
        ("its knee is elsewhere", "g = HardSigmoid (a) h = Mul (a, g)", Recipe(equalize=False), SPAN),
        (
            "it is negative",
            "g = HardSwish (a) h = Mul (g, minus)",
            Recipe(equalize=False),
            SPAN,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_stays_a_function_in_float_where_no_gate_has_codes(why, body, recipe, data):
    q, _ = quantized(f"a = Conv (x, w) {body} y = Conv (h, w)", recipe, data)
    ops = {node.op_type for node in q.ir.graph}
    assert ops & {"HardSwish", "HardSigmoid"}
    assert q.program.in_float


def test_symmetric_codes_keep_their_zero_in_the_middle():
    recipe = Recipe(activations=Activations(symmetric=True), equalize=False)
    q, params = quantized("a = Conv (x, w) h = HardSwish (a) m = MaxPool <kernel_shape=[1,1]> (a) "
                          "s = Add (h, m) y = Conv (s, w)", recipe)  # fmt: skip
    assert params["a"].zero_point == 128
    assert "HardSwish" not in {node.op_type for node in q.ir.graph}
    np.testing.assert_array_equal(q(SPAN), q.run(SPAN, engine="numpy"))


def test_a_gate_is_no_tensor_of_the_float_graph():
    q, _ = quantized("a = Conv (x, w) h = HardSwish (a) y = Conv (h, w)")
    assert [name for name, _, _ in code_tensors(q.ir.graph)] == ["x", "a", "h", "y"]
    model = eb.Model(network("a = Conv (x, w) h = HardSwish (a) y = Conv (h, w)", **CONSTANTS))
    assert {row.name for row in eb.compare(model, q, SPAN).layers} == {"x", "a", "h", "y"}


def test_a_gate_that_others_read_too_is_an_operation_of_its_own():
    q, _ = quantized("a = Conv (x, w) h = HardSwish (a) y = Conv (h, w)")
    made = q.ir.clone()
    (opened,) = [node.outputs[0] for node in made.graph if str(node.outputs[0].name).endswith("_gate_dq")]
    made.graph.outputs.append(opened)
    other = eb.QuantizedModel(made)
    assert [op.kind for op in other.program.ops if isinstance(op, Lookup)] == ["Gate", "Gate+Mul"]
    assert not any(isinstance(op, Mul) for op in other.program.ops)
    for mine, runtime in zip(other.run(SPAN, engine="numpy"), other(SPAN), strict=True):
        np.testing.assert_array_equal(mine, runtime)


def test_the_answers_are_those_of_the_float_network():
    w = normal(4, 4, 1, 1)
    body = "a = Conv (x, w) h = HardSwish (a) b = Conv (h, w) i = HardSwish (b) y = Conv (i, w)"
    q, _ = quantized(body, w=w, data=SPAN / 4)
    exact = FloatSession(network(body, w=w)).run({"x": SPAN / 4})["y"]
    assert sqnr_db(exact, q(SPAN / 4)) > 30


def test_silu_is_a_product_of_codes():
    """One rounding more than the function has: by 1/510 of x at most."""
    body = "a = Conv (x, w) g = Sigmoid (a) h = Mul (a, g) y = Conv (h, w)"
    q, params = quantized(body)
    (table,) = [op for op in q.program.ops if isinstance(op, Lookup)]
    assert table.kind == "Sigmoid+Mul" and not q.program.in_float
    x = dequantize(np.arange(256), params["a"])
    off = np.abs(table.table.astype(int) + 128 - quantize(x / (1 + np.exp(-x)), params["h"]))
    assert off.max() <= 1 + np.abs(x).max() / 510 / params["h"].scale
    np.testing.assert_array_equal(q(SPAN), q.run(SPAN, engine="numpy"))
    error = FloatSession(network(body, **CONSTANTS)).run({"x": SPAN})["y"] - q(SPAN)
    assert np.abs(error).max() < 0.2


def test_the_scale_of_what_silu_reads_is_nobody_elses_business():
    """Whole steps to 3 are for HardSwish."""
    _, params = quantized("a = Conv (x, w) g = Sigmoid (a) h = Mul (a, g) y = Conv (h, w)", Recipe.plain())
    assert float(params["a"].scale) == pytest.approx(24 / 255, rel=1e-6)


def test_lengths_are_no_functions_of_codes():
    """Shapes go through the same ops; asking such a tree for its values as floats died."""
    body = (
        "a = Conv (x, w) h = HardSwish (a) f = Shape (x) l = Max (f, least) n = Min (l, most) r = Reshape (h, n) "
        "y = Conv (r, w)"
    )
    q, _ = quantized(body, least=np.array([1]), most=np.array([2**40]))
    assert "Clip" in {node.op_type for node in q.ir.graph}
    np.testing.assert_array_equal(q(SPAN), q.run(SPAN, engine="numpy"))


@pytest.mark.parametrize(
    "swish", ["h = HardSwish (x)", "g = Sigmoid (x) h = Mul (x, g)", "f = Tan (x) h = HardSwish (f)"]
)
def test_a_function_of_what_is_in_float_stays_there(swish):
    """The input becomes codes for the layer beside it, and the function reads it as it is."""
    other = "f" if "Tan" in swish else "x"
    q, _ = quantized(f"{swish} a = Conv (h, w) b = Conv ({other}, w) y = Add (a, b)")
    np.testing.assert_array_equal(q(SPAN / 12), q.run(SPAN / 12, engine="numpy"))


def test_a_function_that_float_ops_read_as_well_stays_there():
    q, _ = quantized("a = Conv (x, w) h = HardSwish (a) b = Conv (h, w) c = Tan (h) y = Mul (b, c)")
    assert "HardSwish" in {node.op_type for node in q.ir.graph}
    np.testing.assert_array_equal(q(SPAN / 12), q.run(SPAN / 12, engine="numpy"))
