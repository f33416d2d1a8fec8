"""PyTorch and Keras models compute the same as graphs, and their nodes carry the authors' names."""

import sys
import warnings
from typing import Any

import numpy as np
import pytest

from eightbit.errors import LoadError, MissingExtra
from eightbit.graph.prepare.fold import prepare
from eightbit.graph.run import FloatSession
from eightbit.graph.source.load import load_graph
from tests.graph.graphs import ops

# The frameworks sum a few hundred float32 products of size about 1 in another order: some 1e-6 of the output.
TOLERANCE: dict[str, float] = {"rtol": 0, "atol": 5e-6}


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def block(torch: Any) -> Any:
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, wide: int, out: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(wide, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
            self.conv2, self.bn2 = (
                nn.Conv2d(out, out, 3, padding=2, dilation=2, groups=out),
                nn.BatchNorm2d(out),
            )
            self.down, self.relu = nn.Conv2d(wide, out, 1), nn.ReLU()
            for bn in (self.bn1, self.bn2):
                bn.running_mean.uniform_(-1, 1)
                bn.running_var.uniform_(0.5, 2)

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(torch.nn.functional.pad(x, (1, 0, 0, 1)))))
            return self.relu(self.bn2(self.conv2(y))[:, :, :-1, :-1] + self.down(x))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer1 = nn.Sequential(Block(3, 8), Block(8, 8))
            self.act, self.drop, self.fc = nn.SiLU(), nn.Dropout(0.5), nn.Linear(16, 5)

        def forward(self, x: Any) -> Any:
            x = self.act(self.layer1(x))
            x = torch.cat([x, nn.functional.hardswish(x)], 1)
            return self.fc(self.drop(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))).softmax(-1)

    torch.manual_seed(0)
    return Net()


def test_torch_network_computes_the_same_before_and_after_prepare(torch: Any, capfd: Any) -> None:
    net = block(torch).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_graph(net, torch.randn(1, 3, 8, 8))
    assert net.training
    assert capfd.readouterr() == ("", "")
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        expected = net.eval()(x).numpy()
    prepared = prepare(model)
    for graph in (model, prepared):
        (got,) = FloatSession(graph).run({"x": x.numpy()}).values()
        np.testing.assert_allclose(got, expected, **TOLERANCE)
    assert not {"BatchNormalization", "Pad", "Dropout", "ReduceMean", "Identity"} & set(ops(prepared))
    names = [str(n.name) for n in prepared.graph]
    assert {"layer1.0.conv1", "layer1.0.conv2", "layer1.1.down", "fc", "layer1.0.relu"} <= set(names)
    assert len(set(names)) == len(names)
    again = load_graph(net, torch.randn(2, 3, 8, 8))
    assert [n.name for n in again.graph] == [n.name for n in model.graph]


def test_the_order_in_which_a_module_keeps_its_weights_changes_nothing(torch: Any) -> None:
    net, x = block(torch), torch.randn(4, 3, 8, 8)
    expected = prepare(load_graph(net, x))
    net.to(memory_format=torch.channels_last)
    strides = [p.stride() for p in net.parameters()]
    found = prepare(load_graph(net, x))
    assert ops(found) == ops(expected)
    feeds = {"x": x.numpy()}
    np.testing.assert_array_equal(
        *(next(iter(FloatSession(graph).run(feeds).values())) for graph in (found, expected))
    )
    assert [p.stride() for p in net.parameters()] == strides


def test_graph_weights_do_not_share_memory_with_the_module(torch: Any) -> None:
    net = torch.nn.Linear(3, 2)
    model = load_graph(net, torch.ones(1, 3))
    before = FloatSession(model).run({"input": np.ones((1, 3), np.float32)})
    with torch.no_grad():
        net.weight.zero_()
    after = FloatSession(model).run({"input": np.ones((1, 3), np.float32)})
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_torch_errors_say_what_to_do(torch: Any) -> None:
    with pytest.raises(LoadError, match="a torch module needs an example input"):
        load_graph(torch.nn.ReLU())
    with pytest.raises(LoadError, match="PyTorch could not export Linear"):
        load_graph(torch.nn.Linear(3, 2), torch.ones(1, 4))


def test_missing_onnxscript_names_the_extra(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        MissingExtra, match=r"onnxscript is not installed; run: pip install 'eightbit\[torch\]'"
    ):
        load_graph(torch.nn.ReLU(), torch.ones(1, 3))


@pytest.mark.slow
def test_bert_runs_at_any_batch_and_sequence_length(torch: Any) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=100
    )
    torch.manual_seed(0)
    net = transformers.BertModel(config).eval()
    ids, mask = torch.randint(0, 100, (3, 11)), torch.ones(3, 11, dtype=torch.int64)
    mask[0, 5:] = 0
    model = load_graph(net, {"input_ids": ids[:1, :7], "attention_mask": mask[:1, :7]})
    prepared = prepare(model)
    with torch.no_grad():
        out = net(ids, mask)
    for graph in (model, prepared):
        got = list(
            FloatSession(graph).run({"input_ids": ids.numpy(), "attention_mask": mask.numpy()}).values()
        )
        for array, expected in zip(got, (out[0], out[1]), strict=True):
            np.testing.assert_allclose(array, expected.numpy(), **TOLERANCE)
    # Gemms work on rows; what leads back to sequences is read off the input, once a width, and shared.
    computed = {
        n.inputs[1] for n in prepared.graph if n.op_type == "Reshape" and not n.inputs[1].is_initializer()
    }
    assert {v.producer().op_type for v in computed} == {"Concat"}
    assert len(computed) == 2
    assert not any(n.op_type == "MatMul" and n.inputs[1].is_initializer() for n in prepared.graph)
    assert "encoder.layer.1.attention.self.query" in {n.name for n in prepared.graph}


@pytest.mark.slow
def test_keras_network_keeps_one_transpose_and_its_layer_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    keras = pytest.importorskip("keras")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(8, 3, use_bias=False, name="stem")(layers.ZeroPadding2D(1)(image))
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="stem_bn")(x))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", name="depth")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="depth_bn")(x))
    y = layers.Conv2D(8, 1, name="point")(x)
    x = layers.MaxPooling2D()(layers.Concatenate()([layers.Add()([x, y]), y]))
    x = layers.Dense(10, activation="softmax", name="head")(layers.GlobalAveragePooling2D()(x))
    net = keras.Model(image, x)
    for name in ("stem_bn", "depth_bn"):
        bn = net.get_layer(name)
        bn.set_weights([np.random.default_rng(0).uniform(0.5, 2, w.shape) for w in bn.get_weights()])
    model = load_graph(net)
    prepared = prepare(model)
    data = np.random.default_rng(1).random((3, 32, 32, 3), np.float32)
    expected = np.asarray(net(data))
    for graph in (model, prepared):
        (got,) = FloatSession(graph).run({"image": data}).values()
        np.testing.assert_allclose(got, expected, **TOLERANCE)
    assert ops(prepared)[0] == "Transpose"
    assert ops(prepared).count("Transpose") == 1
    assert {"Mul", "BatchNormalization", "Squeeze", "MatMul"} & set(ops(prepared)) == set()
    assert {"stem", "depth", "point", "head"} <= {str(n.name) for n in prepared.graph}


def test_a_pass_of_the_keras_exporter_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    keras = pytest.importorskip("keras")
    tf2onnx = pytest.importorskip("tf2onnx.optimizer")
    tried = []

    class Broken(tf2onnx.UpsampleOptimizer):
        def optimize(self, graph, iteration):
            tried.append(iteration)
            raise ValueError("this pass cannot")

    monkeypatch.setitem(tf2onnx._optimizers, "remove_redundant_upsample", Broken)
    net = keras.Sequential([keras.Input((6,), name="x"), keras.layers.Dense(3, name="dense")])
    x = np.random.default_rng(2).random((5, 6), np.float32)
    (got,) = FloatSession(load_graph(net)).run({"x": x}).values()
    np.testing.assert_allclose(got, np.asarray(net(x)), **TOLERANCE)
    assert len(tried) > 1
