"""Zeros where they were asked for, and still there after rounding, equalization, files and training."""

from dataclasses import replace

import numpy as np
import pytest

import eightbit as eb
from eightbit.errors import QuantizationError
from eightbit.graph.model import constant
from eightbit.pruning.sparsity import Sparsity, masks
from eightbit.quant.write.weights_file import encoded_layers, weights_bytes
from tests.graph.graphs import normal, parse
from tests.pruning.architectures import ARCHITECTURES
from tests.small_net import images, small_net

SPARSE = {"sparsity": 0.7}
ALONE = {"activations": eb.FLOAT}


def weights(model):
    """The float weights of all layers by node."""
    layers = [n for n in model.ir.graph if n.op_type in ("Conv", "Gemm", "MatMul")]
    return {str(n.name): w for n in layers if (w := constant(n.inputs[1])) is not None}


def zeros(arrays):
    """The share of zeros among all numbers of some arrays."""
    return sum((a == 0).sum() for a in arrays.values()) / sum(a.size for a in arrays.values())


def assert_zeros_are_codes(model, q):
    """Every zero of the float model's layers is a zero code, and most other weights are none."""
    codes = {name: layer.weight for name, (_, layer) in encoded_layers(q.ir).items()}
    for name, array in weights(model).items():
        assert not codes[name][array == 0].any(), name
    assert zeros(codes) < zeros(weights(model)) + 0.25


@pytest.mark.parametrize("share", [0.0, 0.5, 0.93])
def test_the_least_of_all_or_of_each_layer_go(share):
    scores = {"a": normal(6, 4, 3, 3, seed=1) ** 2, "b": 10 + normal(50, seed=2) ** 2}
    inputs = {"a": 1, "b": 0}
    found = masks(scores, inputs, Sparsity(share))
    flat = np.concatenate([x.ravel() for x in scores.values()])
    kept = np.concatenate([x.ravel() for x in found.values()])
    assert (~kept).sum() == round(share * flat.size)
    assert not share or flat[kept].min() > flat[~kept].max()
    found = masks(scores, inputs, Sparsity(share, each_layer=True))
    assert [(~x).sum() for x in found.values()] == [round(share * x.size) for x in scores.values()]


def test_adaptive_weights_count_as_parts_of_their_own_layer():
    """By the definition, one by one; a layer's scale does not matter, and no layer is emptied."""
    scores = {"a": np.abs(normal(6, 4, 3, 3, seed=1)), "b": np.abs(normal(50, seed=2))}
    parts = {
        n: np.array([s**2 / (x[x >= s] ** 2).sum() for s in x.ravel()]).reshape(x.shape)
        for n, x in scores.items()
    }
    how, inputs = Sparsity(0.9, adaptive=True), {"a": 1, "b": 0}
    found, expected = masks(scores, inputs, how), masks(parts, inputs, Sparsity(0.9))
    scaled = masks({"a": scores["a"], "b": 1e-3 * scores["b"]}, inputs, how)
    for name in scores:
        np.testing.assert_array_equal(found[name], expected[name])
        np.testing.assert_array_equal(found[name], scaled[name])
    assert not masks({"a": scores["a"], "b": 1e-3 * scores["b"]}, inputs, Sparsity(0.9))["b"].any()
    gone = np.where(found["a"], scores["a"], -np.inf)
    left = masks({"a": gone, "b": scores["b"]}, inputs, how)
    assert not left["a"][~found["a"]].any()  # what is gone stays gone


@pytest.mark.parametrize(("pattern", "n", "m"), [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8)])
@pytest.mark.parametrize("axis", [0, 1])
def test_of_neighbours_along_the_input_the_largest_stay(pattern, n, m, axis):
    scores = np.moveaxis(normal(5, 16, 3, 3) ** 2, 1, axis)
    found = masks({"a": scores, "odd": normal(3, 3)}, {"a": axis, "odd": 1}, Sparsity(pattern=pattern))
    assert found["odd"].all()
    parts = [np.moveaxis(x, axis, -1).reshape(5, 3, 3, -1, m) for x in (found["a"], scores)]
    assert (parts[0].sum(axis=-1) == n).all()
    kept, gone = (np.where(mask, parts[1], fill) for mask, fill in ((parts[0], np.inf), (~parts[0], -np.inf)))
    assert (kept.min(axis=-1) >= gone.max(axis=-1)).all()


def test_what_cannot_be_is_said():
    for wrong in ({"pattern": "4:2"}, {"pattern": "2/4"}, {"share": 1.0}, {"begin": 0.6, "end": 0.5}):
        with pytest.raises(QuantizationError, match="give"):
            Sparsity(**wrong)
    for wrong in ({"each_layer": True}, {"pattern": "2:4"}, {"method": "movement"}):
        with pytest.raises(QuantizationError, match="leave out each_layer, pattern and method"):
            Sparsity(adaptive=True, **wrong)
    model = eb.load(small_net())
    with pytest.raises(
        QuantizationError, match=r"'7:9' fits no layer: 9 divides .* of none; they are 'stem': 3"
    ):
        eb.prune(model, pattern="7:9")
    with pytest.raises(QuantizationError, match="needs training"):
        eb.prune(model, sparsity=Sparsity(method="movement"))
    with pytest.raises(QuantizationError, match="give one of them"):
        eb.prune(model, sparsity=0.5, pattern="2:4")
    with pytest.raises(QuantizationError, match=r'macs=0.5, branches=1, sparsity=0.9 or pattern="2:4"'):
        eb.prune(model)


def test_the_schedule_rises_as_a_cubic():
    s = Sparsity(0.8, begin=0.2, end=0.6)
    assert [s.at(t) for t in (0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0, 0, 0.8 * 7 / 8, 0.8, 0.8])


@pytest.mark.parametrize("name", ["residual", "depthwise", "transformer"])
@pytest.mark.parametrize("choice", [{"sparsity": 0.8}, {"pattern": "2:4"}, {"sparsity": 0.6, "macs": 0.7}])
def test_a_graph_has_the_zeros_that_were_asked_for(name, choice):
    build, inputs = ARCHITECTURES[name]
    model, data = eb.load(build()), inputs(64)
    for compensate in (False, True):
        pruned = eb.prune(model, data, **choice, compensate=compensate)
        if "sparsity" in choice:
            assert zeros(weights(pruned)) == pytest.approx(choice["sparsity"], abs=0.01)
        else:
            halves = [w for w in weights(pruned).values() if (w == 0).any()]
            assert halves and all(np.mean(w == 0) == 0.5 for w in halves)
        assert weights(model).keys() == weights(pruned).keys()


def test_the_weights_that_are_left_make_up_for_the_others():
    build, inputs = ARCHITECTURES["residual"]
    model, data = eb.load(build()), inputs(256)
    new = normal(64, 3, 8, 8, seed=7)
    errors = [
        np.square(eb.prune(model, data, sparsity=0.6, compensate=each)(new) - model(new)).sum()
        for each in (True, False)
    ]
    assert errors[0] < 0.6 * errors[1]


RECIPES = {
    "default": eb.Recipe(),
    "nearest": eb.Recipe.plain(),
    "GPTQ, 4 bits": eb.Recipe(eb.Weights(bits=4, rounding=eb.GPTQ()), bias_correction=True),
    "AdaRound, 4 bits": eb.Recipe(eb.Weights(bits=4, rounding=eb.AdaRound(iterations=40))),
    "weights alone": eb.Recipe(eb.Weights(bits=4, rounding=eb.GPTQ()), **ALONE, bias_correction=True),
    "groups": eb.Recipe(eb.Weights(bits=4, granularity=eb.PerGroup(4), rounding=eb.GPTQ()), **ALONE),
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["residual", "transformer"])
def test_zeros_are_zero_codes_however_they_are_rounded(name, recipe, tmp_path):
    build, inputs = ARCHITECTURES[name]
    data = inputs(48)
    pruned = eb.prune(eb.load(build()), data, **SPARSE)
    pruned = eb.load(pruned.save(tmp_path / "pruned.onnx"))  # and a file keeps them
    assert_zeros_are_codes(pruned, eb.quantize(pruned, data, RECIPES[recipe]))


@pytest.mark.parametrize("rounding", [eb.Nearest(), eb.GPTQ(), eb.AdaRound(iterations=40)])
def test_rounding_knows_zeros_from_weights(rounding):
    rows, zeros, x = normal(2, 4, 6), normal(2, 4, 6, seed=1) > 0, normal(2, 6, 90, seed=2)
    x[:, 2] = 0  # an input that is always zero
    codes = rounding.codes(rows, np.float32(0.2), eb.Weights(bits=4).itype, x @ x.transpose(0, 2, 1), zeros)
    assert not codes[zeros].any()
    assert np.count_nonzero(codes[~zeros]) > 10


def test_a_layer_pruned_elsewhere_keeps_its_zeros_and_a_few_by_chance_are_free():
    w, data = normal(16, 16, seed=1), normal(64, 1, seed=2) + 0.05 * normal(64, 16, seed=3)
    data[:, 15] *= (
        0.8  # inputs are much alike, and the errors of all end up in this one, the last in GPTQ's order
    )
    text = "g (float[N,16] x) => (float[N,16] y) { y = Gemm <transB = 1> (x, w) }"
    recipe, filled = eb.Recipe(eb.Weights(bits=3, rounding=eb.GPTQ())), []
    for rows in (slice(0, 10), slice(10, 16)):
        w[rows, 15 if not filled else slice(0, 8)] = 0  # 10 of 256, then 58
        (_, layer), *_ = encoded_layers(eb.quantize(eb.load(parse(text, w=w)), data, recipe).ir).values()
        filled.append(np.count_nonzero(layer.weight[w == 0]))
    assert filled[0] > 0
    assert filled[1] == 0


def test_training_and_refining_leave_the_zeros():
    model, data = eb.load(small_net()), images(64)
    pruned = eb.prune(model, data, **SPARSE)
    module = eb.trainable(pruned, data)
    before = {name: layer.weight for name, (_, layer) in encoded_layers(eb.quantize(module).ir).items()}
    eb.fit(module, data, eb.Training(epochs=3, batch=16, rate=0.05), teacher=model)
    after = eb.quantize(module)
    assert_zeros_are_codes(pruned, after)
    changed = [(layer.weight != before[name]).mean() for name, (_, layer) in encoded_layers(after.ir).items()]
    assert max(changed) > 0.1
    assert_zeros_are_codes(pruned, eb.refine(model, data, eb.quantize(pruned, data)))


@pytest.mark.parametrize(
    ("choice", "bits", "most"),
    [({"sparsity": 0.9}, 8, 0.35), ({"pattern": "2:4"}, 8, 0.66), ({"sparsity": 0.9}, 4, 0.5)],
)
def test_the_file_of_weights_leaves_zeros_out_and_gives_them_back(choice, bits, most, tmp_path):
    text = """g (float[N,64] x) => (float[N,64] y) { a = Gemm <transB = 1> (x, w1) r = Relu (a)
    b = Gemm <transB = 1> (r, w2) s = Relu (b) y = Gemm <transB = 1> (s, w3) }"""
    arrays = {"w1": normal(512, 64, seed=1), "w2": normal(512, 512, seed=2), "w3": normal(64, 512, seed=3)}
    model, data = eb.load(parse(text, **arrays)), normal(8, 64)
    recipe = replace(eb.Recipe.plain(), weights=eb.Weights(bits=bits, rounding=eb.Nearest()))
    pruned = eb.prune(model, **choice)
    dense, sparse = (eb.quantize(m, data, recipe) for m in (model, pruned))
    path = eb.save_weights(sparse, tmp_path / "w.safetensors")
    assert path.stat().st_size <= most * len(weights_bytes(dense.ir))
    assert eb.inspect(sparse).sparse_bytes == path.stat().st_size
    assert "zeros" in str(eb.inspect(sparse)) and eb.inspect(dense).sparse_bytes is None
    back = encoded_layers(eb.load_weights(pruned, path).ir)
    for name, (_, layer) in encoded_layers(sparse.ir).items():
        np.testing.assert_array_equal(back[name][1].weight, layer.weight)
