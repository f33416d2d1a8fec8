"""Narrow weights in files: small, the same integers when opened, and integer kernels for whoever opens them."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import eightbit as eb
from eightbit.deploy.sessions import optimized_ops
from eightbit.errors import QuantizationError
from eightbit.graph.packing import packed, packed_widths
from eightbit.graph.prepare.fold import prepare
from eightbit.graph.run import to_bytes
from eightbit.graph.save import file_bytes
from eightbit.graph.source.load import load_graph
from eightbit.quant.choose.recipe import FLOAT, PerGroup, Recipe, Weights
from tests.graph.graphs import graph, normal

BODY = """g (float[N,8,6,6] x) => (float[N,10] y) {
    a = Conv <pads=[1,1,1,1], kernel_shape=[3,3]> (x, w1, b1)
    r = Relu (a)
    m = GlobalAveragePool (r)
    f = Flatten <axis=1> (m)
    y = Gemm <transB=1> (f, w2, b2)
}"""
DATA = np.abs(normal(8, 8, 6, 6, seed=9))


def float_model():
    weights = {"w1": normal(33, 8, 3, 3), "b1": normal(33), "w2": normal(10, 33), "b2": normal(10)}
    return eb.Model(prepare(graph(BODY, **weights)))


def quantized(bits, **options):
    return eb.quantize(float_model(), DATA, Recipe(Weights(bits=bits), **options))


def codes_of(model):
    values = model.graph.initializers.items()
    return {name: v.const_value.numpy() for name, v in values if name.endswith("_q")}


@pytest.mark.parametrize("bits", range(2, 9))
def test_opening_what_was_saved_gives_the_same_integers(bits, tmp_path):
    q = quantized(bits)
    back = eb.open(q.save(tmp_path / "q.onnx"))
    assert codes_of(back.ir).keys() == codes_of(q.ir).keys()
    for name, codes in codes_of(q.ir).items():
        assert codes_of(back.ir)[name].dtype == codes.dtype
        np.testing.assert_array_equal(codes_of(back.ir)[name], codes)
    np.testing.assert_array_equal(back(DATA), q(DATA))
    np.testing.assert_array_equal(back.run(DATA, engine="numpy"), q(DATA))
    assert len(file_bytes(back.ir)) == (tmp_path / "q.onnx").stat().st_size


@pytest.mark.parametrize(("bits", "width"), [(2, 2), (3, 4), (4, 4), (5, 8), (8, 8)])
def test_the_file_holds_as_many_bits_as_the_codes_need(bits, width, tmp_path):
    q = quantized(bits)
    path = q.save(tmp_path / "q.onnx")
    kinds = {2: onnx.TensorProto.INT2, 4: onnx.TensorProto.INT4, 8: onnx.TensorProto.INT8}
    stored = {t.name: t for t in onnx.load(path).graph.initializer}
    (name,) = (n for n in stored if n.startswith("w1_q"))
    assert stored[name].data_type == kinds[width]
    assert len(stored[name].raw_data) == 33 * 8 * 9 * width // 8
    onnx.checker.check_model(onnx.load(path), full_check=True)
    rows = {row.name: row for row in eb.inspect(q).tensors}
    assert (rows["w1"].bits, rows["b1"].bits) == (width, 32)
    assert sum(eb.inspect(q).bytes.values()) == path.stat().st_size


@pytest.mark.parametrize("bits", [2, 4])
def test_onnx_runtime_alone_runs_the_file_on_integer_kernels(bits, tmp_path):
    q = quantized(bits)
    path = q.save(tmp_path / "q.onnx")
    kinds = [op for op, _ in optimized_ops(load_graph(path))]
    assert kinds.count("QLinearConv") == 1
    assert kinds.count("QGemm") == 1
    assert not {"Conv", "Gemm", "Cast"} & set(kinds)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": DATA})[0], q(DATA))


@pytest.mark.parametrize("bits", [2, 4])
def test_weight_only_files_in_groups(bits, tmp_path):
    recipe = Recipe(Weights(bits=bits, granularity=PerGroup(16)), activations=FLOAT)
    q = eb.quantize(float_model(), None, recipe)
    path = q.save(tmp_path / "q.onnx")
    # Scales take 4 bytes for 16 codes.
    assert path.stat().st_size < len(file_bytes(float_model().ir)) * (bits + 2 + 4) / 32
    np.testing.assert_array_equal(eb.open(path)(DATA), q(DATA))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": DATA})[0], q(DATA))


def test_packing_leaves_the_graph_in_memory_as_it_is():
    q = quantized(4)
    small = packed(q.ir)
    assert small is not q.ir
    assert all(v.dtype.bitwidth >= 8 for v in q.ir.graph.initializers.values())
    eight = quantized(8)
    assert packed(eight.ir) is eight.ir  # nothing to pack


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(("saved", "worth"), [(9, False), (120, False), (132, True), (240, True)])
def test_weights_are_packed_where_that_saves_more_than_the_cast_around_them_costs(bits, saved, worth):
    """Bytes that the codes take less, against some 80 of a node and its names, and as much again for good measure."""
    inputs = saved * 8 // (8 - bits) // 4
    body = f"g (float[N,{inputs}] x) => (float[N,4] y) {{ y = Gemm (x, w) }}"
    model = eb.Model(prepare(graph(body, w=normal(inputs, 4))))
    q = eb.quantize(model, normal(4, inputs), Recipe(Weights(bits=bits)))
    assert bool(packed_widths(q.ir)) == worth
    whole = len(to_bytes(q.ir))
    assert len(to_bytes(packed(q.ir))) <= whole - (40 if worth else 0)


def test_an_old_opset_holds_no_four_bit_tensors():
    q = quantized(4)
    q.ir.opset_imports[""] = 20
    assert packed_widths(q.ir) == {}


def test_codes_shared_by_two_layers_are_packed_once(tmp_path):
    body = "g (float[N,40] x) => (float[N,40] y) { a = Gemm (x, w) y = Gemm (a, w) }"
    q = eb.quantize(eb.Model(prepare(graph(body, w=normal(40, 40)))), normal(4, 40), Recipe(Weights(bits=4)))
    back = eb.open(q.save(tmp_path / "q.onnx"))
    np.testing.assert_array_equal(back(normal(4, 40)), q(normal(4, 40)))


def test_a_width_outside_the_codes_is_an_error():
    with pytest.raises(QuantizationError, match="from 2 to 16"):
        Weights(bits=1)
