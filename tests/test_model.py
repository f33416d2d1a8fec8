"""What `load`, `open` and `quantize` take, and what they say of the rest."""

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import eightbit as eb
from tests.small_net import images, small_net


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model = eb.load(small_net())
    dynamic = eb.Recipe(activations=eb.Activations(dynamic=True))
    for name, recipe in (
        ("static", eb.Recipe()),
        ("dynamic", dynamic),
        ("weights", eb.Recipe(activations=eb.FLOAT)),
    ):
        eb.quantize(model, images(4), recipe).save(folder / f"{name}.onnx")
    model.save(folder / "float.onnx")
    return folder


@pytest.mark.parametrize("name", ["static", "dynamic", "weights"])
def test_load_of_an_int8_file_says_to_open_it(files, name):
    path = files / f"{name}.onnx"
    with pytest.raises(
        eb.LoadError, match=rf"{re.escape(str(path))} is quantized already: .*use eightbit\.open"
    ):
        eb.load(path)
    with pytest.raises(eb.LoadError, match="this ModelProto is quantized already"):
        eb.load(onnx.load(path))
    for call in (
        lambda: eb.quantize(path, images(4)),
        lambda: eb.compare(path, path, images(4)),
        lambda: eb.sensitivity(path, images(4)),
    ):
        with pytest.raises(eb.LoadError, match=r"use eightbit\.open"):
            call()
    assert eb.open(path).inputs[0].name == "image"


def test_open_of_a_float_file_says_to_load_it(files):
    with pytest.raises(eb.LoadError, match=r"float\.onnx is a float model, .*use eightbit\.load"):
        eb.open(files / "float.onnx")
    with pytest.raises(eb.LoadError, match=r"this ModelProto is a float model, .*use eightbit\.load"):
        eb.open(onnx.load(files / "float.onnx"))


def test_open_takes_a_proto(files):
    path, x = files / "static.onnx", images(2)
    np.testing.assert_array_equal(eb.open(onnx.load(path))(x), eb.open(path)(x))


def twice(graph):
    """One name for two tensors."""
    graph[1].outputs[0].name = graph[0].outputs[0].name


def without_codes(graph):
    """A quantized model in which nothing is."""
    for node in graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.op_type = "Identity"
            node.attributes.clear()
            node.resize_inputs(1)


@pytest.mark.parametrize(
    ("spoil", "quantized", "said"),
    [
        (twice, True, "single static assignment"),
        (twice, False, "single static assignment"),
        (without_codes, True, "float model"),
    ],
)
def test_a_file_that_would_not_open_is_not_written(files, tmp_path, spoil, quantized, said):
    model = eb.open(files / "static.onnx") if quantized else eb.load(files / "float.onnx")
    path = tmp_path / "kept.onnx"
    path.write_bytes(b"what was there")
    spoil(model.ir.graph)
    with pytest.raises(
        eb.ExportError, match=rf"kept\.onnx is not written, .*{said}.*report the model"
    ) as caught:
        model.save(path)
    assert "\n" not in str(caught.value)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"what was there"]


def test_a_graph_by_hand_gets_the_names_that_it_lacks():
    proto = small_net()
    for node in proto.graph.node:
        node.name = ""
    graph = ir.from_proto(proto)
    model = eb.Model(graph)
    assert [node.name for node in model.ir.graph] == ["c1", "r1", "c2", "a", "r2", "p", "g", "f", "logits"]
    assert not any(node.name for node in graph.graph)  # the caller's stays as it was
    q = eb.quantize(model, images(8))
    assert q.report.islands == () and q(images(2)).shape == (2, 5)
    assert eb.Model(model.ir).ir is model.ir
