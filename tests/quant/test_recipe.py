"""A recipe checks itself when it is made, cannot be changed afterwards, and says what it takes."""

import copy
import math
import pickle
import re
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from decimal import Decimal

import numpy as np
import pytest

import eightbit as eb
from eightbit.arith.affine import INT8, IntType, QuantParams
from eightbit.graph.model import constant
from eightbit.quant.choose.recipe_file import parse_recipe
from eightbit.quant.choose.recipe_text import recipe_text
from eightbit.quant.quantize import quantize_graph
from tests.small_net import images, small_net

PATTERNED = eb.Recipe(
    overrides={"op:Conv": eb.Layer(weights=eb.Weights(bits=4)), "class*": eb.FLOAT}, smooth=0.5
)


class Loose:
    """A range that cannot be hashed, so that a recipe which held it could not."""

    __hash__ = None

    def state(self): ...

    def limits(self, state, itype, symmetric): ...

    def row_limits(self, rows, itype): ...


TURN = eb.GPTQ(in_turn=True)
WRONG = [
    # of the issue
    (lambda: eb.Recipe(overrides={"body": eb.Weights(bits=2)}), "overrides['body']=Weights(bits=2", "Layer(weights="),
    (lambda: eb.Recipe(overrides={"body": "float"}), "overrides['body']='float'", "give FLOAT or Layer("),
    (lambda: eb.Weights(granularity="per-tensor"), "granularity='per-tensor'", "PerTensor()"),
    (lambda: eb.Weights(granularity=eb.PerTensor), "PerTensor is a class", "give PerTensor()"),
    (lambda: eb.AdaRound(rate=math.nan), "AdaRound(rate=nan)", "a number above 0"),
    # whole recipes
    (lambda: eb.Recipe(weights=4), "Recipe(weights=4)", "give Weights()"),
    (lambda: eb.Recipe(weights=eb.Weights), "Weights is a class", "give Weights()"),
    (lambda: eb.Recipe(weights=eb.FLOAT), "Recipe(weights=FLOAT)", "give Weights()"),
    (lambda: eb.Recipe(weights=eb.Activations()), "Recipe(weights=Activations(", "give Weights()"),
    (lambda: eb.Recipe(activations="float"), "activations='float'", "give Activations() or FLOAT"),
    (lambda: eb.Recipe(activations=None), "activations=None", "give Activations() or FLOAT"),
    (lambda: eb.Recipe(bias_correction="yes"), "bias_correction='yes'", "give True or False or None"),
    (lambda: eb.Recipe(bias_correction=1), "bias_correction=1", "give True or False or None"),
    (lambda: eb.Recipe(equalize="false"), "equalize='false'", "give True or False"),
    (lambda: eb.Recipe(equalize=None), "equalize=None", "give True or False"),
    (lambda: eb.Recipe(smooth=None), "smooth=None", "a number from 0 to 1"),
    (lambda: eb.Recipe(smooth=math.nan), "smooth=nan", "a number from 0 to 1"),
    (lambda: eb.Recipe(smooth=-0.1), "smooth=-0.1", "a number from 0 to 1"),
    (lambda: eb.Recipe(smooth="0.5"), "smooth='0.5'", "a number from 0 to 1"),
    (lambda: eb.Recipe(activations=eb.FLOAT, smooth=0.5), "smooth=0.5", "leave `smooth` out"),
    (lambda: eb.Recipe(overrides=None), "overrides=None", "give a dict from a text"),
    (lambda: eb.Recipe(overrides=["body"]), "overrides=['body']", "give a dict from a text"),
    (lambda: eb.Recipe(overrides={0: eb.FLOAT}), "overrides key=0", "give a text as a key"),
    (lambda: eb.Recipe(overrides={"body": None}), "overrides['body']=None", "give FLOAT or Layer("),
    (lambda: eb.Recipe(overrides={"body": eb.Layer}), "Layer is a class", "give FLOAT or Layer("),
    (lambda: eb.Recipe(overrides={"body": 4}), "overrides['body']=4", "give FLOAT or Layer("),
    (
        lambda: eb.Recipe(eb.Weights(rounding=TURN), bias_correction=False).settled(True),
        "makes up for means by biases",
        "bias_correction=True",
    ),
    (lambda: eb.Recipe(eb.Weights(rounding=TURN), eb.Activations(dynamic=True)), "have no codes", "in_turn=False"),
    (
        lambda: eb.Recipe(overrides={"body": eb.Layer(weights=eb.Weights(rounding=TURN))}),
        "in turn, or none",
        "in the recipe's own weights",
    ),
    # weights
    (lambda: eb.Weights(bits=4.0), "Weights(bits=4.0)", "an integer from 2 to 16"),
    (lambda: eb.Weights(bits="4"), "Weights(bits='4')", "an integer from 2 to 16"),
    (lambda: eb.Weights(bits=True), "Weights(bits=True)", "an integer from 2 to 16"),
    (lambda: eb.Weights(bits=None), "Weights(bits=None)", "an integer from 2 to 16"),
    (lambda: eb.Weights(bits=32), "Weights(bits=32)", "an integer from 2 to 16"),
    (lambda: eb.Weights(bits=[4]), "Weights(bits=[4])", "an integer from 2 to 16"),
    (lambda: eb.Weights(granularity=None), "granularity=None", "PerTensor(), PerChannel() or PerGroup()"),
    (lambda: eb.Weights(granularity=32), "granularity=32", "PerTensor(), PerChannel() or PerGroup()"),
    (lambda: eb.Weights(range="mse"), "range='mse'", "MinMax(), "),
    (lambda: eb.Weights(range=eb.MSE), "MSE is a class", "MinMax(), "),
    (lambda: eb.Weights(range=(0, 1)), "range=(0, 1)", "MinMax(), "),
    (lambda: eb.Weights(range=Loose()), "range=<", "MinMax(), "),
    (lambda: eb.Weights(rounding="gptq"), "rounding='gptq'", "Nearest(), GPTQ(), AdaRound() or None"),
    (lambda: eb.Weights(rounding=eb.GPTQ), "GPTQ is a class", "Nearest(), GPTQ(), AdaRound() or None"),
    (lambda: eb.Weights(rounding=eb.MSE()), "rounding=MSE(", "Nearest(), GPTQ(), AdaRound() or None"),
    (lambda: eb.Weights(bits=16, range=eb.Entropy()), "codes of int16", "use MSE() instead"),
    # activations
    (lambda: eb.Activations(bits=9), "Activations(bits=9)", "8 or 16"),
    (lambda: eb.Activations(bits=8.0), "Activations(bits=8.0)", "8 or 16"),
    (lambda: eb.Activations(symmetric=1), "symmetric=1", "give True or False"),
    (lambda: eb.Activations(dynamic="no"), "dynamic='no'", "give True or False"),
    (lambda: eb.Activations(range=None), "range=None", "MinMax(), "),
    (lambda: eb.Activations(range=99.9), "range=99.9", "Percentile()"),
    (lambda: eb.Activations(bits=16, range=eb.Entropy()), "codes of uint16", "use MSE() instead"),
    # layers
    (lambda: eb.Layer(weights=4), "Layer(weights=4)", "give Weights(), FLOAT or None"),
    (lambda: eb.Layer(weights="float"), "weights='float'", "give Weights(), FLOAT or None"),
    (lambda: eb.Layer(activations=eb.FLOAT), "activations=FLOAT", "give Activations() or None"),
    (lambda: eb.Layer(eb.Activations()), "Layer(weights=Activations(", "give Weights(), FLOAT or None"),
    # methods
    (lambda: eb.PerGroup(0), "PerGroup(size=0)", "an integer of at least 2"),
    (lambda: eb.PerGroup(32.0), "PerGroup(size=32.0)", "an integer of at least 2"),
    (lambda: eb.Percentile(math.nan), "keep=nan", "above 0 and at most 100"),
    (lambda: eb.Percentile(100.1), "keep=100.1", "above 0 and at most 100"),
    (lambda: eb.Percentile("99"), "keep='99'", "above 0 and at most 100"),
    (lambda: eb.Percentile(Decimal(99)), "keep=Decimal('99')", "above 0 and at most 100"),
    (lambda: eb.MSE(steps=50.0), "MSE(steps=50.0)", "an integer of at least 2"),
    (lambda: eb.MSE(norm=math.inf), "MSE(norm=inf)", "above 0 and at most 10"),
    (lambda: eb.MSE(norm=0), "MSE(norm=0)", "above 0 and at most 10"),
    (lambda: eb.MSE(norm=50), "MSE(norm=50)", "above 0 and at most 10"),
    (lambda: eb.Entropy(steps=1), "Entropy(steps=1)", "an integer of at least 2"),
    (lambda: eb.GPTQ(damping=-1), "GPTQ(damping=-1)", "a number above 0"),
    (lambda: eb.GPTQ(damping=math.inf), "GPTQ(damping=inf)", "a number above 0"),
    (lambda: eb.GPTQ(block=0), "GPTQ(block=0)", "an integer of at least 1"),
    (lambda: eb.GPTQ(block=1.5), "GPTQ(block=1.5)", "an integer of at least 1"),
    (lambda: eb.AdaRound(iterations=9), "AdaRound(iterations=9)", "an integer of at least 10"),
    (lambda: eb.AdaRound(iterations=1e3), "AdaRound(iterations=1000.0)", "an integer of at least 10"),
    (lambda: eb.AdaRound(penalty=-0.1), "AdaRound(penalty=-0.1)", "a number of at least 0"),
    (lambda: eb.AdaRound(penalty=math.nan), "AdaRound(penalty=nan)", "a number of at least 0"),
    # targets, and the types of codes
    (lambda: eb.Target(drop=math.nan), "Target(drop=nan)", "a number from 0 to 1"),
    (lambda: eb.Target(size="small"), "Target(size='small')", "a number from 0 to 2"),
    (lambda: eb.Target(bits=True), "Target(bits=True)", "a number from 2 to 16"),
    (lambda: eb.Target(agreement=99), "Target(agreement=99)", "a number from 0 to 1"),
    (lambda: IntType(8.0, signed=True), "IntType(bits=8.0)", "an integer"),
    (lambda: IntType(8, signed="yes"), "IntType(signed='yes')", "True or False"),
    (lambda: QuantParams(1.0, 0, "int8"), "itype='int8'", "IntType(...)"),
    (lambda: QuantParams(np.ones(2), np.zeros(2, int), INT8, axis=0.5), "axis=0.5", "an integer or None"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "found", "remedy"), WRONG)
def test_a_wrong_setting_is_one_line_with_the_remedy(wrong, found, remedy):
    with pytest.raises(eb.QuantizationError, match=re.escape(found)) as caught:
        wrong()
    said = str(caught.value)
    assert remedy in said and "\n" not in said and len(said) < 400


def test_rounding_in_turn_asks_for_data():
    with pytest.raises(eb.CalibrationError, match="layer after layer; give calibration data"):
        eb.Recipe(eb.Weights(rounding=TURN)).settled(False)


@pytest.mark.parametrize("wrong", ["plain", {}, eb.Recipe, eb.Recipe.plain, eb.Weights(), 0, False])
def test_what_is_no_recipe_is_refused_wherever_one_is_asked_for(wrong):
    model = eb.load(small_net())
    for call in (
        lambda: eb.quantize(model, images(4), wrong),
        lambda: eb.sensitivity(model, images(4), wrong),
        lambda: eb.tune(model, images(4), target=eb.Target(bits=8), recipe=wrong),
    ):
        with pytest.raises(eb.QuantizationError, match=r"^recipe=.*give Recipe\(\), Recipe\.plain\(\)"):
            call()


def test_other_arguments_are_checked_alike():
    model = eb.load(small_net())
    with pytest.raises(eb.QuantizationError, match=r"target=0\.01: give Target\(\.\.\.\)"):
        eb.tune(model, images(4), target=0.01)
    with pytest.raises(eb.QuantizationError, match="samples=0: give an integer of at least 1"):
        eb.sensitivity(model, images(4), samples=0)
    with pytest.raises(eb.QuantizationError, match=r"choice=8: give Weights\(\)"):
        eb.quantize_weights(np.ones((2, 2), np.float32), 8)


def public_values():
    """One value of every public dataclass."""
    model = eb.load(small_net())
    q = eb.quantize(model, images(4))
    report = eb.compare(model, q, images(4))
    tuned = eb.tune(model, images(4), target=eb.Target(bits=8))
    made = {
        eb.Layer: eb.Layer(weights=eb.FLOAT),
        eb.Target: eb.Target(bits=8),
        eb.Comparison: report,
        eb.Explanation: eb.explain(model, q, images(4), report),
        eb.Certificate: eb.certify(q, images(2)),
        eb.Lint: eb.lint(q, "cortex-m"),
        eb.Tuned: tuned,
    }
    kinds = [value for value in map(eb.__dict__.get, eb.__all__) if is_dataclass(value)]
    return [made[kind] if kind in made else kind() for kind in kinds]


def test_every_field_of_every_public_dataclass_refuses_what_is_of_no_kind():
    class Stranger:
        pass

    [getattr(eb, name) for name in eb.__all__]
    values = public_values()
    assert len(values) == 29
    values += [values[-1].sensitivity, eb.inspect(values[-1].model), values[-1].model.report, INT8]
    for value in values:
        for field in fields(value):
            with pytest.raises(eb.EightbitError, match=rf"^{type(value).__name__}\({field.name}="):
                replace(value, **{field.name: Stranger()})


@pytest.mark.parametrize(
    "value", [eb.Recipe(), PATTERNED, eb.Recipe.plain(), PATTERNED.settled(True), eb.Target(bits=8)], ids=str
)
def test_values_hash_pickle_and_copy(value):
    for other in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value), replace(value)):
        assert other == value and hash(other) == hash(value)
    assert {value: 1}[value] == 1


def test_a_recipe_cannot_be_changed():
    overrides = {"op:Conv": eb.FLOAT}
    recipe = eb.Recipe(overrides=overrides)
    overrides["stem"] = eb.FLOAT
    assert recipe == eb.Recipe(overrides={"op:Conv": eb.FLOAT})
    with pytest.raises(TypeError, match="does not support item assignment"):
        recipe.overrides["stem"] = eb.FLOAT
    with pytest.raises(FrozenInstanceError):
        recipe.smooth = False


def test_a_recipe_prints_as_it_is_written():
    text = repr(PATTERNED)
    assert "'class*': FLOAT" in text and "overrides={'op:Conv': Layer(weights=Weights(bits=4" in text
    names = {name: getattr(eb, name) for name in eb.__all__}
    assert eval(text, names) == PATTERNED


def test_what_python_calls_equal_and_is_not_stays_apart():
    assert eb.Recipe(smooth=True) != eb.Recipe(smooth=1.0) and eb.Recipe(smooth=False) != eb.Recipe(smooth=0)
    assert eb.Recipe(smooth=1) == eb.Recipe(smooth=1.0) and eb.Recipe() != "recipe"
    assert eb.Recipe(smooth=1).alpha == 1.0 and eb.Recipe(smooth=True).alpha == 0.85


def test_numbers_of_numpy_are_pythons():
    recipe = eb.Recipe(eb.Weights(bits=np.int64(4), range=eb.Percentile(np.float32(50))), equalize=np.False_)
    plain = eb.Recipe(eb.Weights(bits=4, range=eb.Percentile(50.0)), equalize=False)
    assert recipe == plain and recipe_text(recipe) == recipe_text(plain)
    assert type(recipe.weights.bits) is int and recipe.equalize is False


def bits(recipe: eb.Recipe, data=None) -> dict[str, int]:
    """Bits of each layer's weights; 32 for one that stays in float."""
    q = eb.quantize(eb.load(small_net()), images(8) if data is None else data, recipe)
    weights = {op.name: op.weight.astype(int) for op in q.program.ops if hasattr(op, "weight")}
    widths = {name: int(np.abs(weight).max() + 1).bit_length() for name, weight in weights.items()}
    return {name: widths.get(name, 32) for name in ("stem", "body", "classifier")}


def narrow(width: int) -> eb.Layer:
    return eb.Layer(weights=eb.Weights(bits=width, rounding=eb.Nearest()))


def test_ops_are_chosen_by_type_and_the_last_match_decides():
    def of(**overrides):
        return bits(
            replace(eb.Recipe.plain(), overrides={k.replace("_", ":"): v for k, v in overrides.items()})
        )

    assert of(op_Conv=narrow(4)) == {"stem": 4, "body": 4, "classifier": 8}
    assert of(op_Conv=narrow(4), body=eb.FLOAT) == {"stem": 4, "body": 32, "classifier": 8}
    assert of(body=eb.FLOAT, op_Conv=narrow(4)) == {"stem": 4, "body": 4, "classifier": 8}
    assert of(**{"op_[CG]*": narrow(3), "s*": narrow(5)}) == {"stem": 5, "body": 3, "classifier": 3}


def test_ops_left_in_float_are_listed():
    q = eb.quantize(eb.load(small_net()), images(8), eb.Recipe(overrides={"op:Gemm": eb.FLOAT}))
    assert [(i.node, i.reason) for i in q.report.islands] == [("classifier", "the recipe keeps it in float")]


def test_ops_choose_what_they_write():
    recipe = replace(
        eb.Recipe.plain(),
        overrides={"op:Add": eb.Layer(activations=eb.Activations(bits=16, range=eb.MinMax()))},
    )
    q = eb.quantize(eb.load(small_net()), images(8), recipe)
    wide = {name for name, p in q.report.params.items() if p.itype.bits == 16}
    assert wide == {"r2"}  # the Relu saturates where the sum does
    x = images(2, seed=1)
    np.testing.assert_array_equal(q(x), q.run(x, engine="numpy"))


def test_an_op_type_means_no_input_of_the_graph():
    layer = eb.Layer(activations=eb.Activations(range=eb.Percentile(80.0)))
    every = eb.quantize(
        eb.load(small_net()), images(8), replace(eb.Recipe.plain(), overrides={"op:*": layer})
    )
    plain = eb.quantize(eb.load(small_net()), images(8), eb.Recipe.plain())
    changed = {name for name, p in every.report.params.items() if p != plain.report.params[name]}
    assert "image" not in changed and {"r1", "c2"} <= changed


def test_ops_are_chosen_where_weights_alone_are_quantized():
    recipe = eb.Recipe(eb.Weights(), eb.FLOAT, overrides={"op:Conv": narrow(4), "op:Gemm": eb.FLOAT})
    for data in (None, images(8)):
        q = eb.quantize(eb.load(small_net()), data, recipe)
        largest = {
            n: np.abs(constant(v).astype(int)).max()
            for n, v in q.ir.graph.initializers.items()
            if n.endswith("_q")
        }
        assert largest == {"w1_q": 7, "w2_q": 7}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"op:Linear": eb.FLOAT}, "'op:Linear' matches no node; the ops of the graph are Conv, Relu, Add, "),
        ({"op:conv": eb.FLOAT}, "'op:conv' matches no node; the ops of the graph are Conv, "),
        ({"Conv": eb.FLOAT}, "'Conv' matches no node; the graph has stem, "),
        ({"Conv": eb.FLOAT}, "for every Conv write 'op:Conv'"),
        ({"skip": narrow(4)}, "no node that it matches has any that can be codes: skip; choose activations"),
        ({"op:Relu": narrow(4)}, "'op:Relu' chooses weights, and no node that it matches has any that"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("base", [eb.Recipe(), eb.Recipe(activations=eb.FLOAT)], ids=["static", "weights"])
def test_a_pattern_that_means_nothing_is_refused(base, overrides, said):
    model = eb.load(small_net())
    with pytest.raises(eb.QuantizationError, match=re.escape(said)):
        quantize_graph(model.ir, images(8), replace(base, overrides=overrides))


def test_ops_in_a_recipe_file():
    table = {"overrides": {"op:Conv": {"weights": {"bits": 4}}, "class*": "float"}, "smooth": 0.5}
    assert parse_recipe(table) == PATTERNED


def test_smoothing_by_a_number_needs_data():
    recipe = eb.Recipe(activations=eb.Activations(dynamic=True), smooth=0.5)
    with pytest.raises(eb.CalibrationError, match=r"smooth=0\.5 .*; give calibration data"):
        eb.quantize(eb.load(small_net()), None, recipe)
