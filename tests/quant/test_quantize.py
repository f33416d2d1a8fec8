"""The stages together: which nodes become integer, what the graph then holds, and what it computes."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import eightbit as eb
from eightbit.arith.affine import INT8, dequantize, params_from_range, quantize, sqnr_db
from eightbit.deploy.sessions import optimized_ops, run_island
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.graph.prepare.fold import prepare
from eightbit.graph.processor import this_processor
from eightbit.graph.rescale.equalize import recorded_scales
from eightbit.graph.run import FloatSession
from eightbit.integer.engine import run as run_program
from eightbit.integer.lower import lower
from eightbit.quant.choose.capable import capable
from eightbit.quant.choose.chosen import chosen
from eightbit.quant.choose.recipe import FLOAT, Activations, Layer, PerGroup, PerTensor, Recipe, Weights
from eightbit.quant.methods.calibrators import MSE, Entropy, MinMax, MovingAverage, Percentile
from eightbit.quant.methods.rounding import GPTQ, AdaRound, Nearest
from eightbit.quant.observe.calibrate import calibrate
from eightbit.quant.quantize import quantize_graph
from tests.graph.graphs import graph, normal

SIX = np.float32(6)
ZERO = np.float32(0)

RESIDUAL = """g (float[N,3,8,8] x) => (float[N,5] y) {
    a = Conv <pads=[1,1,1,1], kernel_shape=[3,3]> (x, w1, b1)
    r = Clip (a, zero, six)
    c = Conv <kernel_shape=[1,1]> (r, w2)
    s = Add (c, r)
    t = Relu (s)
    p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (t)
    m = GlobalAveragePool (p)
    f = Flatten <axis=1> (m)
    y = Gemm <transB=1> (f, w3, b3)
}"""


def named(model):
    """Every node called after its output."""
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def residual(clamp="Clip (a, zero, six)"):
    weights = {
        "w1": normal(4, 3, 3, 3),
        "b1": normal(4),
        "w2": normal(4, 4, 1, 1),
        "w3": normal(5, 4),
        "b3": normal(5),
    }
    bounds = {"zero": ZERO, "six": SIX} if "Clip" in clamp else {}
    body = RESIDUAL.replace("Clip (a, zero, six)", clamp)
    return named(prepare(graph(body, **weights, **bounds)))


DATA = normal(6, 3, 8, 8, seed=9)


def run(model, x=DATA):
    return next(iter(FloatSession(model).run({"x": x}).values()))


def test_every_node_of_a_residual_network_is_placed():
    placement = chosen(capable(residual()), Recipe())
    assert placement.layers == ("a", "c", "y")
    assert placement.integer == ("s", "m")
    assert placement.moves == ("p", "f")
    assert placement.absorbed == {"r": "a", "t": "s"}
    assert placement.islands == ()
    assert set(placement.observed) == {"c", "m", "r", "t", "x", "y"}
    assert (placement.sources["p"], placement.sources["f"]) == ("t", "m")


def test_the_graph_is_valid_runs_whole_in_integers_and_stays_near_float():
    model = residual()
    before = ir.to_proto(model).SerializeToString()
    q, _, _ = quantize_graph(model, DATA, Recipe())
    assert ir.to_proto(model).SerializeToString() == before  # the input is not changed
    onnx.checker.check_model(ir.to_proto(q), full_check=True)
    assert [o.name for o in q.graph.outputs] == ["y"]
    float_work = {"Conv", "Gemm", "Add", "Relu", "Clip", "GlobalAveragePool"}
    assert not float_work & {op for op, _ in optimized_ops(q)}
    stored = {value.dtype for value in q.graph.initializers.values()}
    assert stored <= {
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT32,
        ir.DataType.FLOAT,
        ir.DataType.INT64,
    }
    assert all(v.const_value.size <= 5 for v in q.graph.initializers.values() if v.dtype == ir.DataType.FLOAT)
    # Five layers of eight-bit noise: an SQNR of some 35 dB; a wrong scale anywhere costs 20 of them.
    error = run(q) - run(model)
    assert (error**2).sum() < 2e-3 * (run(model) ** 2).sum()


PLAIN = Recipe.plain()
COARSE = replace(PLAIN, weights=Weights(bits=3, rounding=Nearest()))


@pytest.mark.parametrize(
    ("recipe", "otherwise"),
    [
        (Recipe(), PLAIN),
        (Recipe(Weights(bits=3)), Recipe(Weights(bits=3, rounding=Nearest()))),
        (Recipe(), Recipe(activations=Activations(range=MSE(norm=1.0)))),
        (Recipe(Weights(bits=3)), Recipe(Weights(bits=3), bias_correction=False)),
        (Recipe(), Recipe(equalize=False)),
        (COARSE, PLAIN),
        (replace(PLAIN, weights=Weights(granularity=PerTensor(), rounding=Nearest())), PLAIN),
        (replace(COARSE, weights=replace(COARSE.weights, range=MSE())), COARSE),
        (replace(COARSE, weights=replace(COARSE.weights, rounding=GPTQ())), COARSE),
        (replace(COARSE, bias_correction=True), COARSE),
        (replace(PLAIN, equalize=True), PLAIN),
        (replace(PLAIN, activations=Activations(range=Percentile(90.0))), PLAIN),
        (replace(PLAIN, activations=Activations(range=MSE(norm=1.0))), PLAIN),
        (replace(PLAIN, activations=Activations(range=MinMax(), symmetric=True)), PLAIN),
        (replace(PLAIN, overrides={"c": FLOAT}), PLAIN),
    ],
    ids=str,
)
def test_every_option_changes_the_output_and_not_too_much(recipe, otherwise):
    model = residual("Relu (a)")
    y, other = (run(quantize_graph(model, DATA, r)[0]) for r in (recipe, otherwise))
    assert (y != other).any()
    assert ((y - run(model)) ** 2).sum() < 0.2 * (run(model) ** 2).sum()


def test_what_a_recipe_leaves_open_depends_on_the_data_and_the_processor():
    here = this_processor()
    assert Recipe().settled(has_data=True) == Recipe(
        Weights(rounding=GPTQ()), bias_correction=True, processor=here
    )
    assert Recipe().settled(has_data=False) == Recipe(
        Weights(rounding=Nearest()), bias_correction=False, processor=here
    )
    chosen = Recipe(Weights(rounding=AdaRound()), bias_correction=False, processor="any")
    assert chosen.settled(has_data=True) == chosen.settled(has_data=False) == chosen


def test_equalized_tensors_are_named_in_the_graph_and_its_file(tmp_path):
    model = residual("Relu (a)")
    q = eb.quantize(eb.Model(model), DATA, replace(PLAIN, equalize=True))
    scales = recorded_scales(q.ir)
    assert set(scales) == {"a", "r", "c", "s", "t", "p", "m", "f"}
    plain = eb.quantize(eb.Model(model), DATA, PLAIN)
    assert recorded_scales(plain.ir) == {}
    again = recorded_scales(eb.open(q.save(tmp_path / "q.onnx")).ir)
    assert again.keys() == scales.keys()
    for name, scale in scales.items():
        np.testing.assert_array_equal(again[name], scale)


def test_an_override_leaves_its_nodes_in_float_and_the_report_says_so():
    q, placement, _ = quantize_graph(residual(), DATA, Recipe(overrides={"c*": FLOAT}))
    assert [(i.node, i.op, i.reason) for i in placement.islands] == [
        ("c", "Conv", "the recipe keeps it in float")
    ]
    assert ("Conv", "c") in optimized_ops(q)


@pytest.mark.parametrize("name", ["a", "c", "s", "y"])
def test_a_node_kept_in_float_is_float_in_every_engine(name):
    """ONNX Runtime quantizes float layers between DQ and Q by itself; the graph must not let it."""
    model = residual()
    q, _, _ = quantize_graph(model, DATA, Recipe(overrides={name: FLOAT}))
    kinds = {op for op, _ in optimized_ops(q)}
    assert {"a": "Conv", "c": "Conv", "s": "Add", "y": "Gemm"}[name] in kinds
    engine = run_program(lower(q), {"x": DATA}, island=run_island)
    np.testing.assert_array_equal(engine["y"], run(q))


def test_a_layer_gets_its_own_weights_and_the_last_pattern_decides():
    overrides = {"c": Layer(Weights(bits=3, rounding=Nearest())), "a": FLOAT, "*": Layer(Weights(bits=4))}
    q = eb.quantize(eb.Model(residual()), DATA, replace(PLAIN, overrides=overrides))
    widest = {op.name: int(np.abs(op.weight).max()) for op in q.program.ops if hasattr(op, "weight")}
    assert not q.report.islands and set(widest.values()) == {7}
    reverse = dict(reversed(overrides.items()))
    q = eb.quantize(eb.Model(residual()), DATA, replace(PLAIN, overrides=reverse))
    widest = {op.name: int(np.abs(op.weight).max()) for op in q.program.ops if hasattr(op, "weight")}
    assert "a" in {island.node for island in q.report.islands}
    assert widest.pop("c") == 3 and set(widest.values()) == {7}


def test_a_tensor_gets_its_own_range():
    """By the name of the node that writes it, of the node whose clamp it is, or of the graph's input."""
    narrow = Layer(activations=Activations(range=Percentile(80.0)))
    plain = eb.quantize(eb.Model(residual()), DATA, PLAIN).report.params
    for pattern, tensor in (("x", "x"), ("y", "y"), ("a", "r"), ("r", "r")):
        q = eb.quantize(eb.Model(residual()), DATA, replace(PLAIN, overrides={pattern: narrow}))
        changed = {name for name, p in q.report.params.items() if p != plain[name]}
        assert changed == {tensor} and q.report.params[tensor].scale < plain[tensor].scale
    even = Layer(activations=Activations(range=MinMax(), symmetric=True))
    q = eb.quantize(eb.Model(residual("Relu (a)")), DATA, replace(PLAIN, overrides={"a": even}))
    assert q.report.params["a"].zero_point == 128  # the clamp stays, since these codes reach below 0
    x = DATA[:4] if isinstance(DATA, np.ndarray) else next(iter(DATA))
    np.testing.assert_array_equal(q(x), q.run(x, engine="numpy"))


def test_what_an_override_leaves_open_is_settled_like_the_rest():
    layer = Layer(Weights(bits=4))
    recipe = replace(PLAIN, overrides={"c": layer})
    assert (
        recipe.settled(True).for_layer("c", "Conv").weights.rounding == GPTQ()
        and recipe.settled(True).needs_moments
    )
    assert recipe.settled(False).for_layer("c", "Conv").weights.rounding == Nearest()
    assert recipe.settled(True).for_layer("d", "Conv").weights == PLAIN.weights


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda: Layer(), "changes nothing"),
        (lambda: Layer(activations=Activations(dynamic=True)), "for a whole recipe"),
        (lambda: Recipe(overrides={"a": Layer(Weights(granularity=PerGroup()))}), "has no integer kernel"),
        (
            lambda: Recipe(activations=FLOAT, overrides={"a": Layer(activations=Activations())}),
            "'a' chooses activ",
        ),
    ],
)
def test_overrides_that_cannot_be_are_refused(wrong, complaint):
    with pytest.raises(QuantizationError, match=complaint):
        wrong()


def test_an_override_that_matches_nothing_is_an_error():
    with pytest.raises(
        QuantizationError, match=r"override 'classifier\*' matches no node; the graph has a, "
    ):
        quantize_graph(residual(), DATA, Recipe(overrides={"classifier*": FLOAT}))


def test_ops_without_an_integer_form_are_listed_islands():
    body = """g (float[N,3,8,8] x) => (float[N,4,8,8] y) {
        a = Conv <kernel_shape=[1,1]> (x, w1)
        e = Cos (a)
        h = Mul (a, e)
        y = Conv <kernel_shape=[1,1]> (h, w2)
    }"""
    model = prepare(graph(body, w1=normal(4, 3, 1, 1), w2=normal(4, 4, 1, 1)))
    q, placement, _ = quantize_graph(model, DATA, Recipe())
    assert [(i.op, i.reason) for i in placement.islands] == [("Cos", "no integer form of this op")]
    error = run(q) - run(model)
    assert (error**2).sum() < 5e-3 * (run(model) ** 2).sum()


def test_a_clamp_is_absorbed_only_where_saturation_does_its_work():
    def clamps(bounds, recipe=None, extra=""):
        body = f"""g (float[N,3,8,8] x) => (float[N,4,8,8] y{", float[N,4,8,8] z" if extra else ""}) {{
            a = Conv <kernel_shape=[1,1]> (x, w1)
            y = {bounds}
            {extra}
        }}"""
        consts = {"one": np.float32(1), "zero": ZERO, "six": SIX}
        used = {k: v for k, v in consts.items() if k in body}
        return chosen(
            capable(prepare(graph(body, w1=normal(4, 3, 1, 1), **used))), recipe or Recipe()
        ).absorbed

    assert clamps("Relu (a)")
    assert clamps("Clip (a, zero, six)")
    assert not clamps("Clip (a, one, six)")  # zero must have a code, and lies below the clamp
    assert not clamps("Relu (a)", extra="z = Sigmoid (a)")  # the unclamped value is needed too
    assert not clamps("Relu (a)", Recipe(activations=Activations(symmetric=True)))  # codes reach below zero


@pytest.mark.parametrize("clamp", ["Relu (a)", "Clip (a, one, six)"])
def test_clamps_that_stay_compute_what_float_computes(clamp):
    body = f"""g (float[N,3,8,8] x) => (float[N,4,8,8] y) {{
        a = Conv <kernel_shape=[1,1]> (x, w1)
        r = {clamp}
        y = Add (r, a)
    }}"""
    consts = {"one": np.float32(1), "six": SIX} if "one" in clamp else {}
    model = prepare(graph(body, w1=normal(4, 3, 1, 1), **consts))
    q, placement, _ = quantize_graph(model, DATA, Recipe())
    assert not placement.absorbed
    # Steps of some 0.03 at each of three quantizers.
    np.testing.assert_allclose(run(q), run(model), rtol=0, atol=0.15)


def test_constant_operands_are_quantized_by_their_own_range():
    body = """g (float[N,3,8,8] x) => (float[N,3,8,8] y) {
        m = Mul (x, gain)
        y = Add (m, offset)
    }"""
    model = named(graph(body, gain=np.float32([[[2.0]], [[-1.0]], [[0.5]]]), offset=np.float32(3.0)))
    q, placement, _ = quantize_graph(model, DATA, Recipe())
    assert len(placement.integer) == 2
    assert {"gain_q", "offset_q"} <= set(q.graph.initializers)
    assert {op for op, _ in optimized_ops(q)} == {
        "QuantizeLinear",
        "QLinearMul",
        "QLinearAdd",
        "DequantizeLinear",
    }
    np.testing.assert_allclose(run(q), run(model), rtol=0, atol=0.15)


def test_one_tensor_for_many_readers_has_one_scale():
    body = """g (float[N,3,8,8] x) => (float[N,4,8,8] y) {
        a = Conv <kernel_shape=[1,1]> (x, w1)
        b = Conv <kernel_shape=[1,1]> (x, w1)
        y = Add (a, b)
    }"""
    q, _, _ = quantize_graph(prepare(graph(body, w1=normal(4, 3, 1, 1))), DATA, Recipe())
    pairs = [n for n in q.graph if n.op_type == "QuantizeLinear" and n.inputs[0].name == "x"]
    assert len(pairs) == 1
    np.testing.assert_allclose(run(q), run(graph(body, w1=normal(4, 3, 1, 1))), rtol=0, atol=0.3)


def test_sigmoid_and_softmax_have_the_range_of_their_formula():
    body = "g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Sigmoid (x) }"
    _, _, params = quantize_graph(named(graph(body)), DATA, Recipe())
    assert params["y"].scale == np.float32(1 / 255)
    assert params["y"].zero_point == 0


def test_calibration_is_one_answer_for_every_split():
    model, names = residual(), ("x", "r", "y")
    for choice in (MinMax(), MovingAverage(), Percentile(99), MSE(steps=10), Entropy(steps=10)):
        whole = calibrate(model, names, DATA, choice)
        halves = calibrate(model, names, [DATA[:1], DATA[1:5], (DATA[5:], "label")], choice)
        merged = [calibrate(model, names, part, choice) for part in (DATA[4:], DATA[:4])]
        for name in names:
            limits = {
                choice.limits(state, Activations().itype, False)
                for state in (whole[name], halves[name], merged[0][name].merge(merged[1][name]))
            }
            assert len(limits) == 1


def test_calibration_reports_its_progress():
    seen = []
    calibrate(residual(), ("x",), DATA, MinMax(), progress=lambda stage, done: seen.append((stage, done)))
    assert seen == [("calibrate", n) for n in range(1, 7)]


def test_data_that_can_be_read_once_serve_recipes_that_read_twice():
    model = residual()
    recipe = Recipe(Weights(rounding=GPTQ()))
    once, twice = (
        quantize_graph(model, data, recipe)[0] for data in ((d for d in [DATA[:3], DATA[3:]]), DATA)
    )
    np.testing.assert_array_equal(run(once), run(twice))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe.plain(), r"input 'x', calibration sample 0: found NaN or Inf .*; remove them from the data"),
        (Recipe(activations=FLOAT), r"tensor 'x', which layer 'a' reads, takes a value that is NaN or Inf"),
    ],
)
def test_infinities_in_a_signal_name_the_input(recipe, said):
    """A mask may hold them; a tensor that becomes codes, or whose moments round weights, may not."""
    model = named(
        graph(
            "g (float[N,3] x) => (float[N,2] y) { a = MatMul (x, w) y = Relu (a) }",
            w=np.ones((3, 2), np.float32),
        )
    )
    with pytest.raises(CalibrationError, match=said):
        quantize_graph(model, np.array([[1, -np.inf, 2]], np.float32), recipe)


def test_an_overflow_inside_the_network_names_the_tensor():
    body = "g (float[N,3] x) => (float[N,3] y) { a = Mul (x, big) b = Mul (a, big) y = Add (b, x) }"
    model = named(graph(body, big=np.full(3, 3e38, np.float32)))
    with pytest.raises(CalibrationError, match=r"tensor 'a', calibration sample 0: found NaN or Inf"):
        quantize_graph(model, np.full((1, 3), 1e5, np.float32), Recipe())


def test_a_graph_with_nothing_to_quantize_says_what_it_holds():
    with pytest.raises(
        QuantizationError, match=r"nothing in this graph can be quantized: 1 nodes, .* \(Erf\)"
    ):
        quantize_graph(
            named(graph("g (float[N,3] x) => (float[N,3] y) { y = Erf (x) }")), normal(1, 3), Recipe()
        )


def test_masks_stay_in_float_and_scores_leave_the_integers_without_rounding():
    body = """g (float[N,6,8] x, bool[N,6,6] m) => (float[N,6,8] y) {
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        t = Transpose <perm=[0,2,1]> (k)
        s = MatMul (q, t)
        mask = Where (m, zero, low)
        a = Add (s, mask)
        p = Softmax (a)
        y = MatMul (p, k)
    }"""
    model = named(graph(body, wq=normal(8, 8), wk=normal(8, 8), zero=ZERO, low=np.float32(-3e38)))
    data = {"x": normal(4, 6, 8), "m": np.tril(np.ones((4, 6, 6), bool))}
    q, placement, params = quantize_graph(model, data, Recipe())
    reasons = {i.node: i.reason for i in placement.islands}
    assert reasons["a"] == "one of its inputs is a mask, not a signal"
    assert reasons["p"] == "none of its inputs comes from an integer op"
    assert "s" not in params
    assert ("MatMulIntegerToFloat") in {op for op, _ in optimized_ops(q)}
    float_y, int_y = (FloatSession(g).run(data)["y"] for g in (model, q))
    assert ((int_y - float_y) ** 2).sum() < 1e-2 * (float_y**2).sum()


def residual_stream():
    """Two additions that only a LayerNorm reads."""
    body = """g (float[N,6,8] x) => (float[N,6,8] y) {
        a = MatMul (x, w1)
        b = Add (a, b1)
        s = Add (b, x)
        n = LayerNormalization <axis=-1> (s, one)
        c = MatMul (n, w2)
        d = Add (c, b2)
        t = Add (d, n)
        y = LayerNormalization <axis=-1> (t, one)
    }"""
    weights = {
        "w1": normal(8, 8, seed=1),
        "w2": normal(8, 8, seed=2),
        "b1": normal(8, seed=3),
        "b2": normal(8, seed=4),
    }
    return named(prepare(graph(body, **weights, one=np.ones(8, np.float32))))


def test_sums_with_outliers_that_only_float_reads_stay_in_float():
    calm, wild = normal(8, 6, 8), normal(8, 6, 8)
    wild[3, 2, 5] = 2000
    for data, kept in ((calm, []), (wild, ["s"])):
        _, placement, _ = quantize_graph(
            residual_stream(), data, Recipe(activations=Activations(range=MinMax()))
        )
        assert not [i for i in placement.islands if "outliers" in i.reason]  # extremes alone do not tell
        q, placement, _ = quantize_graph(
            residual_stream(), data, Recipe(activations=Activations(range=Percentile(99)))
        )
        strained = [i for i in placement.islands if i.reason.startswith("outliers: codes would keep")]
        assert [i.node for i in strained] == kept
        assert [op for op, _ in optimized_ops(q)].count("QLinearAdd") == 2 - len(kept)


def test_a_sum_stays_in_float_where_its_codes_would_keep_less_than_28_db():
    """The threshold against the noise itself, outlier by outlier: the decision is taken from a histogram."""
    recipe = Recipe(
        activations=Activations(range=Percentile(100), symmetric=False), smooth=False, equalize=False
    )
    kept_db, stays = [], []
    for outlier in np.geomspace(40, 100, 12):
        data = normal(64, 6, 8)
        data[3, 2, 5] = outlier
        model = residual_stream()
        s = FloatSession(model, ["s"]).run({"x": data})["s"]
        codes = params_from_range(float(s.min()), float(s.max()), INT8)
        kept_db.append(sqnr_db(s, dequantize(quantize(s, codes), codes)))
        _, placement, _ = quantize_graph(model, data, recipe)
        stays.append("s" in {i.node for i in placement.islands if i.reason.startswith("outliers")})
    # Bins of the histogram, and noise taken as uniform: a tenth of a dB.
    clear = [(db < 28, stay) for db, stay in zip(kept_db, stays, strict=True) if abs(db - 28) > 0.1]
    assert all(below == stay for below, stay in clear), list(zip(kept_db, stays, strict=True))
    assert {stay for _, stay in clear} == {False, True}


def test_smooth_is_a_choice_and_must_be_a_fraction():
    model, data = residual_stream(), normal(8, 6, 8)
    outputs = [
        FloatSession(quantize_graph(model, data, Recipe(smooth=alpha))[0]).run({"x": data})["y"]
        for alpha in (False, 0.5, True)
    ]
    assert (outputs[0] != outputs[1]).any()
    assert (outputs[1] != outputs[2]).any()
    with pytest.raises(QuantizationError, match=r"smooth=1\.5\): give True, False, or a number from 0 to 1"):
        Recipe(smooth=1.5)
