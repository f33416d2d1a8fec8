"""The inventory of a quantized graph: rows, bytes that add up, float nodes, warnings."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import eightbit as eb
from tests.graph.graphs import graph, normal, parse
from tests.small_net import images, small_net

VNNI = frozenset({"avx2", "avx512_vnni"})
OLD = frozenset({"avx2"})


@pytest.fixture(scope="module")
def q() -> eb.QuantizedModel:
    return eb.quantize(eb.load(small_net()), images(16))


def test_rows_are_the_tensors_and_their_grids(q):
    rows = {t.name: t for t in eb.inspect(q).tensors}
    params = q.report.params["image"]
    assert (rows["image"].kind, rows["image"].op, rows["image"].dtype) == ("activation", "input", "uint8")
    assert rows["image"].scale == (float(params.scale),) * 2
    assert rows["image"].zero_point == int(params.zero_point)
    assert rows["image"].shape == (None, 3, 8, 8)
    assert (rows["w1"].kind, rows["w1"].dtype, rows["w1"].channels) == ("weight", "int8", 8)
    assert rows["w1"].shape == (8, 3, 3, 3)
    assert rows["w1"].scale[0] < rows["w1"].scale[1]
    assert (rows["b1"].kind, rows["b1"].dtype, rows["b1"].bits) == ("bias", "int32", 32)
    assert rows["p"].op == "MaxPool"
    assert rows["p"].scale == rows["r2"].scale


def test_bytes_add_up_to_the_file(q, tmp_path: Path):
    found = eb.inspect(q)
    assert sum(found.bytes.values()) == q.save(tmp_path / "q.onnx").stat().st_size
    assert found.bytes["codes of weights"] == 8 * 27 + 8 * 72 + 5 * 8
    assert found.bytes["int32 biases"] == 4 * (8 + 8 + 5)
    assert found.bytes["float and other constants"] == 0
    assert found.ops == {"Add": 1, "Conv": 2, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1, "MaxPool": 1}


def test_a_file_and_its_model_look_the_same(q, tmp_path: Path):
    path = q.save(tmp_path / "q.onnx")
    assert eb.inspect(path) == eb.inspect(q)
    assert eb.inspect(str(path)) == eb.inspect(q)


def test_text_html_and_json(q):
    found = eb.inspect(q, cpu=VNNI)
    assert "Left in float: no node" in str(found)
    assert "8x3x3x3" in str(found)
    assert "?x3x8x8" in found._repr_html_()
    assert found._repr_html_() == eb.inspect(q, cpu=VNNI)._repr_html_()
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [t["name"] for t in again["tensors"]] == [t.name for t in found.tensors]


def test_html_escapes_names():
    net = small_net(helper.make_node("Tanh", ["f"], ["t"], name="<script>"))
    page = eb.inspect(eb.quantize(eb.load(net), images(4)))._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_float_nodes_are_listed_with_the_reason():
    kept = eb.quantize(eb.load(small_net()), images(4), eb.Recipe(overrides={"body": eb.FLOAT}))
    found = eb.inspect(kept, cpu=VNNI)
    assert [(i.name, i.op, i.reason) for i in found.islands] == [
        ("body", "Conv", "the recipe keeps it in float")
    ]
    assert found.bytes["float and other constants"] > 4 * 8 * 72
    assert any("'body' multiplies in float" in w for w in found.warnings)
    reopened = eb.inspect(eb.QuantizedModel(kept.ir), cpu=VNNI)
    assert [i.name for i in reopened.islands] == ["body"]


def test_saturation_is_warned_of_only_where_it_can_happen(q):
    assert eb.inspect(q, cpu=VNNI).warnings == ()
    assert eb.inspect(q, cpu=frozenset()).warnings == ()  # no x86
    (warning,) = eb.inspect(q, cpu=OLD).warnings
    assert "no VNNI" in warning
    assert "3 layers" in warning
    old = eb.quantize(eb.load(small_net()), images(16), eb.Recipe(processor="x86-avx2"))
    assert eb.inspect(old, cpu=OLD).warnings == ()
    assert "made for x86-avx2" in eb.inspect(old, cpu=VNNI).warnings[0]
    seven = eb.quantize(eb.load(small_net()), images(16), eb.Recipe(weights=eb.Weights(bits=7)))
    assert eb.inspect(seven, cpu=OLD).warnings == ()


def test_dead_tensors_are_warned_of():
    dead = eb.quantize(eb.load(small_net()), np.zeros((2, 3, 8, 8), np.float32))
    assert any("'image'" in w and "calibration" in w for w in eb.inspect(dead, cpu=VNNI).warnings)


def test_a_float_file_is_refused(tmp_path: Path):
    path = eb.load(small_net()).save(tmp_path / "net.onnx")
    with pytest.raises(eb.LoadError, match="float model"):
        eb.inspect(path)


def test_tables_and_products_that_leave_as_float_count_as_integers():
    body = """g (int64[N,T] ids) => (float[N,T,5] z) {
        rows = Gather (words, ids)
        n = LayerNormalization <axis=-1> (rows, gain)
        y = MatMul (n, w)
        z = Tanh (y)
    }"""
    words, w = normal(300, 32), normal(32, 5, seed=1)
    model = graph(body, words=words, w=w, gain=np.ones(32, np.float32))
    for node in model.graph:
        node.name = node.outputs[0].name
    ids = {"ids": np.arange(9)[None]}
    for recipe in (eb.Recipe(), eb.Recipe(activations=eb.Activations(dynamic=True))):
        found = eb.inspect(eb.quantize(eb.Model(model), [ids], recipe))
        assert [i.op for i in found.islands if i.op in ("Gather", "MatMul", "MatMulInteger")] == []
        assert "Tanh" in {i.op for i in found.islands}
        assert not found.warnings or "multiplies in float" not in " ".join(found.warnings)
        (row,) = (t for t in found.tensors if t.kind == "table")
        assert (row.name, row.dtype, row.shape, row.channels) == ("words", "int8", (300, 32), 300)
        assert found.bytes["codes of weights"] == words.size + w.size
        assert found.bytes["scales and zero points"] >= 4 * 300


def test_weights_of_dynamic_layers_are_listed():
    recipe = eb.Recipe(activations=eb.Activations(dynamic=True))
    q = eb.quantize(eb.load(small_net()), images(16), recipe)
    (row,) = [t for t in eb.inspect(q).tensors if t.kind == "weight"]
    assert (row.name, row.dtype, row.bits, row.shape) == ("w3", "int8", 8, (8, 5))
    assert row.channels == 5 and row.scale[0] < row.scale[1]


def test_layers_beside_sixteen_bits_are_warned_of():
    """Three layers: the stem writes the wide tensor, the body reads it; the classifier has nothing to do with it."""
    wide = eb.Layer(activations=eb.Activations(bits=16))
    q = eb.quantize(eb.load(small_net()), images(16), eb.Recipe(overrides={"stem": wide}))
    (warning,) = [w for w in eb.inspect(q).warnings if "16 bits" in w]
    assert warning.startswith("'stem', 'body' reads or writes codes of 16 bits")
    assert eb.inspect(q).islands == ()
    wide_weights = eb.Recipe(overrides={"classifier": eb.Layer(weights=eb.Weights(bits=16))})
    q = eb.quantize(eb.load(small_net()), images(16), wide_weights)
    assert any(w.startswith("'classifier' reads") for w in eb.inspect(q).warnings)


@pytest.mark.parametrize(("shape", "scales"), [((3,), 3), ((1, 3), 1), ((5, 1), 5), ((5, 3), 5)])
def test_biases_of_another_making(shape: tuple[int, ...], scales: int, tmp_path: Path):
    """A product with a bias for each row of the batch is no layer of ours, and no fault of the file."""
    body = """g (float[5,4] x) => (float[5,3] y) {
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        wd = DequantizeLinear (w, v)
        bd = DequantizeLinear <axis=0> (b, u)
        g = Gemm (d, wd, bd)
        h = QuantizeLinear (g, t, z)
        y = DequantizeLinear (h, t, z)
    }"""
    rng = np.random.default_rng(0)
    steps = {name: np.float32(step) for name, step in (("s", 0.1), ("t", 0.3), ("v", 0.02))}
    model = parse(
        body,
        **steps,
        z=np.uint8(128),
        w=rng.integers(-9, 9, (4, 3)).astype(np.int8),
        b=rng.integers(-99, 99, shape).astype(np.int32),
        u=np.full(scales, 0.002, np.float32) if scales > 1 else np.float32(0.002),
    )
    path = tmp_path / "foreign.onnx"
    path.write_bytes(model.SerializeToString())
    q, x = eb.open(path), normal(5, 4)
    np.testing.assert_array_equal(q(x), q.run(x, engine="numpy"))
    assert [node.op for node in eb.inspect(path).islands] == ["Gemm"] * (scales == 5)


@pytest.mark.parametrize("target", [(0, 0, 0, 0), (-1, 3, 3, 3), (2, 3, 3, 3)])
def test_weights_that_another_reshapes(target: tuple[int, ...], tmp_path: Path):
    body = """g (float[1,3,5,5] x) => (float[1,2,3,3] y) {
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        wd = DequantizeLinear (w, s)
        k = Reshape (wd, target)
        y = Conv (d, k)
    }"""
    codes = np.random.default_rng(0).integers(-9, 9, (2, 3, 3, 3)).astype(np.int8)
    path = tmp_path / "foreign.onnx"
    model = parse(body, s=np.float32(0.1), z=np.uint8(128), w=codes, target=np.array(target))
    path.write_bytes(model.SerializeToString())
    x = normal(1, 3, 5, 5)
    q = eb.open(path)
    np.testing.assert_allclose(q(x), q.run(x, engine="numpy"), atol=1e-5)
    (warning,) = eb.inspect(path).warnings
    assert "multiplies in float" in warning
