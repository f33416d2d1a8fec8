"""Data of other kinds than the model's: half floats, integers that the source itself makes floats of, nested states."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import eightbit as eb
from eightbit.graph.source.quiet import silence
from tests.small_net import images, small_net
from tests.strangers.walk import sqnr_db

with silence():
    import keras
    import tensorflow as tf

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def net() -> Any:
    with silence():
        layers = keras.layers
        parts = [
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
        ]
        return keras.Sequential([keras.Input((8, 8, 3)), *parts, layers.Dense(3)])


INTEGERS: dict[str, Callable[[np.ndarray], Any]] = {
    "uint8": lambda x: x,
    "int64": lambda x: x.astype(np.int64),
    "bool": lambda x: x > 127,
    "tensor of bytes": lambda x: torch.from_numpy(x),
    "TensorFlow's bytes": tf.constant,
    "lists of integers": lambda x: x.tolist(),
}


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_are_floats_where_keras_says_so(kind: str, net: Any, tmp_path: Path) -> None:
    given = INTEGERS[kind](PICTURES)
    floats = np.asarray(given).astype(np.float32)
    q, right = eb.quantize(net, given), eb.quantize(net, floats)
    assert q.report.params == right.report.params
    opened = eb.open(q.save(tmp_path / "q.onnx"))
    for model in (eb.load(net), q, opened):
        for call in (given, (given,), {model.inputs[0].name: given}):
            np.testing.assert_array_equal(np.asarray(model(call)), np.asarray(model(floats)))
    labels = np.asarray(net(floats)).argmax(axis=1)
    report = eb.compare(net, opened, (given, labels))
    assert report.accuracy is not None and report.accuracy.float_accuracy == 1
    assert report.outputs == eb.compare(net, q, floats).outputs


class Subclassed(keras.Model):
    """Keras casts what a model declares, and this one declares nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.head = keras.layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.head(x)


@pytest.mark.parametrize("kind", ["ONNX", "torch", "Keras, subclassed"])
def test_elsewhere_integers_are_refused(kind: str) -> None:
    x = images(8)
    if kind == "ONNX":
        model = eb.load(small_net())
    elif kind == "torch":
        model = eb.load(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), x)
    else:
        model, x = eb.load(Subclassed(), x[:, 0, 0]), x[:, 0, 0]
    said = (
        r"input '.*' has dtype int64, expected float32; preprocess it and convert with \.astype\('float32'\)"
    )
    for call in (lambda: eb.quantize(model, x.astype(np.int64)), lambda: model(x.astype(np.int64))):
        with pytest.raises(eb.EightbitError, match=said):
            call()


HALVES: dict[str, Callable[[np.ndarray], tuple[Any, np.ndarray]]] = {
    "float16": lambda x: (x.astype(np.float16), x.astype(np.float16)),
    "torch.float16": lambda x: (torch.from_numpy(x).half(), x.astype(np.float16)),
    "torch.bfloat16": lambda x: (torch.from_numpy(x).bfloat16(), torch.from_numpy(x).bfloat16().float().numpy()),
    "tf.bfloat16": lambda x: (tf.cast(x, tf.bfloat16), torch.from_numpy(x).bfloat16().float().numpy()),
    "float64": lambda x: (x.astype(np.float64), x),
    "torch.float64, with a gradient": lambda x: (torch.from_numpy(x).double().requires_grad_(), x),
}  # fmt: skip


@pytest.mark.parametrize("kind", HALVES)
def test_floats_of_any_width(kind: str) -> None:
    model = eb.load(small_net())
    given, values = HALVES[kind](images(16))
    values = values.astype(np.float32)
    q = eb.quantize(model, [(given, np.zeros(16))])
    assert q.report.params == eb.quantize(model, values).report.params
    np.testing.assert_array_equal(np.asarray(q(given)), q(values))
    assert eb.compare(model, q, given) == eb.compare(model, q, values)


class States(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.lstm, self.head = nn.Linear(3, 6), nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 5)

    def forward(self, x: Any, state: Any) -> Any:
        y, _ = self.lstm(self.up(x), state)
        return self.head(y[:, -1])


X, H, C = (
    torch.from_numpy(RNG.standard_normal(s).astype(np.float32)) for s in ((16, 7, 3), (1, 16, 4), (1, 16, 4))
)
Y = torch.from_numpy(RNG.integers(0, 5, 16))
WITH_STATES: dict[str, tuple[Any, bool]] = {
    "(x, (h, c))": ([(X, (H, C))], False),
    "(x, (h, c)), one batch": ((X, (H, C)), False),
    "(x, (h, c), y)": ([(X, (H, C), Y)], True),
    "((x, (h, c)), y)": ([((X, (H, C)), Y)], True),
    "((x, (h, c)), y), one batch": (((X, (H, C)), Y), True),
    "(x, h, c, y), flat": ([(X, H, C, Y)], True),
}
"""Data, and whether they hold labels."""


@pytest.fixture(scope="module")
def states() -> nn.Module:
    torch.manual_seed(0)
    return States().eval()


@pytest.fixture(scope="module")
def loaded(states: nn.Module) -> eb.Model:
    return eb.load(states, (X, (H, C)))


@pytest.mark.parametrize("form", WITH_STATES)
def test_states_come_in_tuples(form: str, states: nn.Module, loaded: eb.Model) -> None:
    data, labelled = WITH_STATES[form]
    model = loaded if "flat" in form else states  # a module takes what it is called with
    q = eb.quantize(model, data)
    with torch.no_grad():
        right = states(X, (H, C)).numpy()
    for found in (q(X, (H, C)), q(X, H, C), q((X, (H, C)))):
        assert sqnr_db(right, found.numpy()) > 20
    report = eb.compare(loaded, q, data)
    assert report.samples == 16
    assert (report.accuracy is not None) == labelled


def test_names_that_differ_are_named(loaded: eb.Model) -> None:
    with pytest.raises(
        eb.CalibrationError, match=r"inputs given: \['state', 'x'\]; inputs of the model: \['x', .*use"
    ):
        eb.quantize(loaded, {"x": X, "state": (H, C)})
