"""Embedding tables: which are found, what their codes keep, and that float rows come of nothing but codes."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import eightbit as eb
from eightbit.arith.affine import sqnr_db
from eightbit.deploy.sessions import OnnxRuntime, integer_tensors, run_island
from eightbit.errors import EngineError, LoadError
from eightbit.graph.embeddings import code_table
from eightbit.graph.model import constant
from eightbit.graph.packing import packed_widths
from eightbit.graph.run import FloatSession, to_bytes
from eightbit.integer import program as p
from eightbit.integer.engine import run
from eightbit.integer.lower import lower
from eightbit.quant.choose.recipe import FLOAT, Activations, Layer, Recipe, Weights
from eightbit.quant.quantize import quantize_graph
from tests.graph.graphs import graph, normal

ROWS, WIDTH = 300, 32
BODY = """g (int64[N,T] ids) => (float[N,T,5] y) {
    rows = Gather (words, ids)
    kinds = Gather (small, one)
    sum = Add (rows, kinds)
    n = LayerNormalization <axis=-1> (sum, gain)
    y = MatMul (n, w)
}"""
STATIC, DYNAMIC = Recipe(), Recipe(activations=Activations(dynamic=True))
ALONE = Recipe(activations=FLOAT)


def table() -> np.ndarray:
    """Rows of very different sizes, the last one of zeros."""
    rows = normal(ROWS, WIDTH) * np.exp(normal(ROWS, 1, seed=1))
    rows[-1] = 0
    return rows


def net() -> ir.Model:
    weights = {
        "words": table(),
        "small": normal(3, WIDTH, seed=2),
        "one": np.array([1]),
        "gain": np.ones(WIDTH, np.float32),
        "w": normal(WIDTH, 5, seed=3),
    }
    model = graph(BODY, **weights)
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def ids(seed: int, *shape: int) -> dict[str, np.ndarray]:
    return {"ids": np.random.default_rng(seed).integers(-ROWS, ROWS, shape)}


def quantized(recipe: Recipe) -> ir.Model:
    return quantize_graph(net(), [ids(seed, 1, 9) for seed in range(8)], recipe)[0]


@pytest.mark.parametrize("recipe", [STATIC, DYNAMIC, ALONE, Recipe.plain()])
def test_large_tables_become_codes_and_small_ones_stay(recipe):
    qdq, placement, _ = quantize_graph(net(), [ids(0, 1, 9)], recipe)
    assert placement.tables == ("rows",)
    assert "rows" not in {island.node for island in placement.islands}
    assert "kinds" in {island.node for island in placement.islands}
    onnx.checker.check_model(ir.to_proto(qdq), full_check=True)
    initializers = qdq.graph.initializers
    assert "words" not in initializers
    assert initializers["words_q"].dtype == ir.DataType.INT8
    assert initializers["words_s"].shape == (ROWS, 1)
    assert len(to_bytes(qdq)) < 0.45 * len(to_bytes(net()))


def test_a_row_keeps_its_own_scale():
    found = FloatSession(quantized(ALONE), ["rows"], optimize=False)
    picked = found.run({"ids": np.arange(ROWS)[None]})["rows"][0]
    scale = np.abs(table()).max(1) / 127
    error = np.abs(picked - table()).max(1)
    # Half a step, and float32 roundings of code, scale and product: 1e-5 of a step.
    assert (error <= (0.5 + 1e-5) * scale).all()
    one_scale = np.abs(table()).max() / 127
    plain = np.rint(table() / one_scale) * one_scale
    assert sqnr_db(table(), picked) > sqnr_db(table(), plain) + 6


@pytest.mark.parametrize("recipe", [STATIC, DYNAMIC, ALONE])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7)])
def test_the_engine_and_onnx_runtime_have_no_differing_number(recipe, shape):
    qdq = quantized(recipe)
    program = lower(qdq)
    assert [type(op) for op in program.ops].count(p.Embedding) == 1
    feeds = ids(5, *shape)
    found = run(program, feeds, island=run_island, keep=True)
    for name, expected in OnnxRuntime(qdq).run(feeds).items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
    if recipe is STATIC:
        expected = integer_tensors(qdq, feeds)
        assert expected
        for name, codes in expected.items():
            np.testing.assert_array_equal(found[name], codes, err_msg=name)
    rows = FloatSession(qdq, ["rows"], optimize=False).run(feeds)["rows"]
    op = next(op for op in program.ops if isinstance(op, p.Embedding))
    np.testing.assert_array_equal(op.table[feeds["ids"]] * op.scale[feeds["ids"]][..., None], rows)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("words_s", np.full((ROWS, 1), 0.01, np.float32)),  # a look-up, as it should be
        ("words_s", np.full((ROWS, WIDTH), 0.01, np.float32)),  # a scale a number
        ("words_s", np.full((ROWS + 7, 1), 0.01, np.float32)),  # rows without codes
        ("words_s", np.full((ROWS,), 0.01, np.float32)),
        ("words_s", np.full((ROWS, 1, 1), 0.01, np.float32)),
        ("words_q", np.zeros((ROWS, WIDTH), np.int32)),
        ("words_q", np.zeros((ROWS, WIDTH, 1), np.int8)),
    ],
    ids=lambda a: a if isinstance(a, str) else f"{a.dtype}{a.shape}",
)
def test_only_a_table_with_one_scale_a_row_is_a_lookup(name, array):
    model = quantized(ALONE)
    model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    found = [node.name for node in model.graph if code_table(node) is not None]
    assert found == (["rows"] if array.shape == (ROWS, 1) else [])


def test_an_id_outside_the_table_is_an_error_in_both_engines():
    qdq = quantized(STATIC)
    feeds = {"ids": np.array([[0, ROWS]])}
    with pytest.raises(EngineError, match=f"rows: id {ROWS} in 'ids'; the table has {ROWS} rows"):
        run(lower(qdq), feeds, island=run_island)
    with pytest.raises(EngineError, match="could not run"):
        OnnxRuntime(qdq).run(feeds)


def test_two_lookups_in_one_table_share_its_codes():
    body = """g (int64[N] a, int64[N] b) => (float[N,5] y) {
        r = Gather (words, a) s = Gather (words, b) t = Add (r, s) y = MatMul (t, w)
    }"""
    model = graph(body, words=table(), w=normal(WIDTH, 5))
    for node in model.graph:
        node.name = node.outputs[0].name
    qdq, placement, _ = quantize_graph(model, None, DYNAMIC)
    assert placement.tables == ("r", "s")
    assert sorted(qdq.graph.initializers)[-3:] == ["w_z", "words_q", "words_s"]
    feeds = {"a": np.array([1, 2]), "b": np.array([2, 1])}
    np.testing.assert_array_equal(
        run(lower(qdq), feeds, island=run_island)["y"], OnnxRuntime(qdq).run(feeds)["y"]
    )


def test_an_override_keeps_a_table_in_float_or_gives_it_other_bits():
    kept, placement, _ = quantize_graph(net(), [ids(0, 1, 9)], Recipe(overrides={"rows": FLOAT}))
    assert placement.tables == ()
    assert {i.node: i.reason for i in placement.islands}["rows"] == "the recipe keeps it in float"
    assert "words" in kept.graph.initializers
    feeds = ids(5, 2, 7)
    found = run(lower(kept), feeds, island=run_island)
    np.testing.assert_array_equal(found["y"], OnnxRuntime(kept).run(feeds)["y"])
    narrow = quantized(Recipe(overrides={"rows": Layer(weights=Weights(bits=4))}))
    codes = constant(narrow.graph.initializers["words_q"])
    assert (codes.min(), codes.max()) == (-7, 7)


def test_four_bits_are_packed_in_the_file(tmp_path: Path):
    q = eb.QuantizedModel(quantized(Recipe(Weights(bits=4), FLOAT)))
    assert packed_widths(q.ir)["words_q"] == 4
    again = eb.open(q.save(tmp_path / "packed.onnx"))
    feeds = ids(1, 2, 5)
    assert (tmp_path / "packed.onnx").stat().st_size < len(to_bytes(q.ir)) - 0.4 * ROWS * WIDTH
    np.testing.assert_array_equal(again(feeds), q(feeds))
    assert any(isinstance(op, p.Embedding) for op in again.program.ops)


def test_tables_are_saved_and_loaded_with_the_other_weights(tmp_path: Path):
    q = eb.QuantizedModel(quantized(ALONE))
    file = eb.save_weights(q, tmp_path / "weights.safetensors")
    again = eb.load_weights(eb.Model(net()), file)
    feeds = ids(1, 2, 5)
    np.testing.assert_array_equal(again(feeds), q(feeds))
    other = net()
    other.graph.initializers["words"].const_value = ir.tensor(normal(ROWS - 1, WIDTH), name="words")
    with pytest.raises(
        LoadError, match=r"layer 'rows' has a weight of shape \(299, 32\) in the model, \(300, 32\)"
    ):
        eb.load_weights(eb.Model(other), file)
