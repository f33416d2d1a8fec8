"""What `quantize` takes, everything takes: every function on a model and data, with every kind of either.

What a function finds with a bare model and data in one form is what it finds with a loaded one and arrays.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import eightbit as eb
from eightbit.data import given, replay
from eightbit.graph.source.quiet import silence
from tests.strangers.graphs import graph, node, weight

with silence():
    import keras
    import tensorflow as tf

FEATURES, CLASSES, SAMPLES = 6, 5, 24
X = np.random.default_rng(0).standard_normal((SAMPLES, FEATURES)).astype(np.float32)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))


@pytest.fixture(scope="module")
def models(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same network as everything that is taken for a model, by kind."""
    path = eb.load(module, X).save(tmp_path_factory.mktemp("models") / "net.onnx")
    with silence():
        twin = keras.Sequential(
            [keras.Input((FEATURES,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(CLASSES)]
        )
        state = [p.detach().numpy() for p in module.parameters()]
        twin.set_weights([p.T if p.ndim == 2 else p for p in state])
    return {"Model": eb.load(path), "path": path, "proto": onnx.load(path), "torch": module, "Keras": twin}


@pytest.fixture(scope="module")
def loaded(models: dict[str, Any]) -> dict[str, eb.Model]:
    return {
        kind: m if kind == "Model" else eb.load(m, X if kind == "torch" else None)
        for kind, m in models.items()
    }


@pytest.fixture(scope="module")
def labels(module: nn.Module) -> np.ndarray:
    found: np.ndarray = module(torch.from_numpy(X)).argmax(dim=1).numpy()
    found[::7] = (found[::7] + 1) % CLASSES
    return found


class Frame:
    """An array with names of columns, over which it iterates, as a table of pandas or polars does."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape = array, array.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array

    def __iter__(self) -> Any:
        return iter("abcdef")

    def __len__(self) -> int:
        return len(self.array)


class Indexed(keras.utils.PyDataset):
    """Keras' own data set: batches by number, and no end to a walk through it."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x) // 8

    def __getitem__(self, index: int) -> Any:
        part = slice(8 * (index % len(self)), 8 * (index % len(self)) + 8)
        return self.x[part], self.y[part]


class Flow:
    """Batches that begin anew when all have been there, and say how many they are, as Keras' generators do."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.batches = cycle([(x[:10], y[:10]), (x[10:], y[10:])])

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self.batches)


def loader(x: np.ndarray, y: np.ndarray) -> Any:
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    return torch.utils.data.DataLoader(dataset, batch_size=7)


LABELLED: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "pair of arrays": lambda x, y: (x, y),
    "pair in a list": lambda x, y: [x, y],
    "pair of tensors": lambda x, y: (torch.from_numpy(x), torch.from_numpy(y)),
    "pair of TensorFlow's": lambda x, y: (tf.constant(x), tf.constant(y)),
    "labels in a column": lambda x, y: (x, y[:, None]),
    "lists of numbers": lambda x, y: (x.tolist(), y.tolist()),
    "DataFrame and list": lambda x, y: (Frame(x), y.tolist()),
    "dict": lambda x, y: {"input": x, "labels": y},
    "list of pairs": lambda x, y: [(x[:5], y[:5]), (x[5:], y[5:])],
    "one sample each": lambda x, y: [(x[i : i + 1], int(y[i])) for i in range(len(x))],
    "no batch axis": lambda x, y: [(x[i], int(y[i])) for i in range(len(x))],
    "Dataset": lambda x, y: torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y)),
    "tf.data, no batch axis": lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)),
    "list of lists": lambda x, y: [[x[:5], y[:5]], [x[5:], y[5:]]],
    "inputs nested": lambda x, y: [((x[:5],), y[:5]), ((x[5:],), y[5:])],
    "generator": lambda x, y: ((x[i : i + 4], y[i : i + 4]) for i in range(0, len(x), 4)),
    "DataLoader": loader,
    "tf.data": lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)).batch(5),
    "PyDataset": Indexed,
    "Keras' generator": Flow,
}
BARE: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda x: x,
    "float64": lambda x: x.astype(np.float64),
    "tensor": torch.from_numpy,
    "DataFrame": Frame,
    "lists of numbers": lambda x: x.tolist(),
    "list of arrays": lambda x: [x[:12], x[12:]],
    "list of samples": list,
    "tuple of arrays": lambda x: (x[:12], x[12:]),
    "generator": lambda x: iter([x[:4], x[4:]]),
}


def quantize(model: Any, q: eb.QuantizedModel, data: Any, labels: Any) -> Any:
    return eb.quantize(model, data).report.params


def compare(model: Any, q: eb.QuantizedModel, data: Any, labels: Any) -> Any:
    return replace(
        eb.compare(model, q, data, labels=labels), sizes=(0, 0)
    )  # Keras' exporter numbers free axes on


def explain(model: Any, q: eb.QuantizedModel, data: Any, labels: Any) -> Any:
    found = eb.explain(model, q, data, labels=labels)
    return replace(found.comparison, sizes=(0, 0)), found.histograms


def tune(model: Any, q: eb.QuantizedModel, data: Any, labels: Any) -> Any:
    found = eb.tune(model, data, target=eb.Target(size=2.0), labels=labels)
    return [(t.recipe, t.bits, t.agreement, t.sqnr_db, t.drop) for t in found.trials]


def sensitivity(model: Any, q: eb.QuantizedModel, data: Any, labels: Any) -> Any:
    return eb.sensitivity(model, data).sources


FUNCTIONS = [quantize, compare, explain, tune, sensitivity]
Found = Callable[[Any, str, bool], Any]


@pytest.fixture(scope="module")
def right(loaded: dict[str, eb.Model], labels: np.ndarray) -> Found:
    """What a function finds with the loaded model of a kind and arrays, with or without labels."""
    known: dict[tuple[str, ...], Any] = {}
    forms = {kind: eb.quantize(model, X) for kind, model in loaded.items()}

    def find(function: Any, kind: str, with_labels: bool) -> Any:
        key = function.__name__, kind, str(with_labels)
        if key not in known:
            given = labels if with_labels else None
            known[key] = function(loaded[kind], forms[kind], X, given)
        return forms[kind], known[key]

    return find


@pytest.mark.parametrize("form", LABELLED)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_data_with_labels(function: Any, form: str, loaded: Any, labels: np.ndarray, right: Found) -> None:
    q, expected = right(function, "Model", True)
    model = loaded["Model"]
    make = LABELLED[form]
    if form == "dict":
        make = lambda x, y: {model.inputs[0].name: x, "labels": y}  # noqa: E731
    assert function(model, q, make(X, labels), None) == expected


@pytest.mark.parametrize("form", BARE)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_data_without(function: Any, form: str, loaded: Any, right: Found) -> None:
    q, expected = right(function, "Model", False)
    assert function(loaded["Model"], q, BARE[form](X), None) == expected


@pytest.mark.parametrize(
    ("kind", "form"),
    [("path", "generator"), ("proto", "pair of arrays"), ("torch", "generator"), ("Keras", "DataLoader")],
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_bare_models(
    function: Any, kind: str, form: str, models: Any, labels: np.ndarray, right: Found
) -> None:
    q, expected = right(function, kind, True)
    assert function(models[kind], q, LABELLED[form](X, labels), None) == expected


JUDGES = [compare, explain, tune]


@pytest.mark.parametrize("form", BARE)
@pytest.mark.parametrize("function", JUDGES)
def test_labels_apart(function: Any, form: str, loaded: Any, labels: np.ndarray, right: Found) -> None:
    q, expected = right(function, "Model", True)
    for apart in (labels, torch.from_numpy(labels)[:, None], labels.tolist()):
        assert function(loaded["Model"], q, BARE[form](X), apart) == expected


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda y: y[:-1], "23 labels were given for 24 samples; give one a sample"),
        (
            lambda y: y.astype(np.float32),
            r"shape \(24,\) and dtype float32; give one integer class a sample$",
        ),
        (
            lambda y: np.eye(CLASSES)[y],
            r"\(24, 5\) and dtype float64; give .* such as labels.argmax\(axis=1\)",
        ),
        (lambda y: np.where(np.arange(24) == 9, -1, y), "label -1 of sample 9 is no class .* 0 to 4; leave"),
        (lambda y: np.where(np.arange(24) > 3, 255, y), "label 255 of sample 4 is no class of the model"),
        (lambda y: np.arange(24) % CLASSES + 1, "label 5 of sample 4 is no class .*; subtract 1 from all"),
    ],
)
@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("function", JUDGES)
def test_labels_that_are_no_classes(
    function: Any, apart: bool, wrong: Any, said: str, loaded: Any, labels: np.ndarray, right: Found
) -> None:
    q, _ = right(quantize, "Model", False)
    y = wrong(labels)
    with pytest.raises(eb.EngineError, match=said):
        function(loaded["Model"], q, *((X, y) if apart else ((X, y), None)))


def test_targets_of_a_model_that_names_no_classes_are_left_alone() -> None:
    rng = np.random.default_rng(1)
    net = graph([node("MatMul", "x w", "y")], {"x": ["N", 6]}, {"y": ["N", 1]}, {"w": weight(rng, 6, 1)})
    model, targets = eb.load(net), rng.standard_normal(SAMPLES)
    q = eb.quantize(model, (X, targets))
    assert eb.compare(model, q, (X, targets)) == eb.compare(model, q, X)
    with pytest.raises(
        eb.EngineError, match=r"labels were given, but the first output has no shape \(N, classes\)"
    ):
        eb.compare(model, q, X, labels=np.zeros(SAMPLES, int))


def test_labels_beside_a_comparison_come_too_late(loaded: Any, labels: np.ndarray, right: Found) -> None:
    q, report = right(compare, "Model", False)
    with pytest.raises(eb.EngineError, match="give them to compare"):
        eb.explain(loaded["Model"], q, X, report, labels=labels)


def endless() -> Iterator[Any]:
    while True:
        yield X[:1], 0


class Endless:
    """Can be walked through anew, but never to an end."""

    def __iter__(self) -> Iterator[Any]:
        return endless()


ENDLESS = {
    "generator": endless,
    "iterable": Endless,
    "cycle": lambda: cycle([X]),
    "tf.data": lambda: tf.data.Dataset.from_tensors(X).repeat(),
}


@pytest.mark.parametrize("form", ENDLESS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_data_without_an_end(
    function: Any, form: str, loaded: Any, right: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, _ = right(quantize, "Model", False)
    monkeypatch.setattr(given, "MOST_BATCHES", 50)
    said = "do not end( after 50 batches)?; give a part of them, such as itertools.islice"
    with pytest.raises(eb.EightbitError, match=said):
        function(loaded["Model"], q, ENDLESS[form](), None)


@pytest.mark.parametrize("function", [quantize, explain, tune, sensitivity])
def test_what_is_kept_of_a_generator_has_a_limit(
    function: Any, loaded: Any, right: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, _ = right(quantize, "Model", False)
    monkeypatch.setattr(replay, "MOST_BYTES", 10 * X[:1].nbytes)
    with pytest.raises(
        eb.EightbitError, match="take more than 240 bytes, after 11 batches; give a part of them"
    ):
        function(loaded["Model"], q, endless(), None)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            [(X, X, np.zeros(SAMPLES))],
            r"1 entries more than the model's 1 input\(s\) \(input: float32 \(\?, 6\)\)",
        ),
        ([({"input": X}, X, X)], "1 entries more"),
        (
            [[{"input": X, "mask": X}, np.zeros(SAMPLES)]],
            r"inputs given: \['input', 'mask'\]; inputs of the model: \['input'\]; use .*; labels go under 'labels'",
        ),
        (
            {"image": X, "labels": np.zeros(SAMPLES)},
            r"inputs given: \['image'\]; inputs of the model: \['input'\]; use those names$",
        ),
        ([[1.0, 2.0], [3.0]], "input 'input' of type list is not an array: .*inhomogeneous"),
        ([], "the data hold no batch"),
        (7, "data of type int cannot be used"),
        ("calib.npz", "data of type str cannot be used"),
        ((X[:, :5], np.zeros(SAMPLES)), r"input 'input' has shape \(24, 5\), expected"),
        ((X.astype(int), np.zeros(SAMPLES)), "input 'input' has dtype int64, expected float32"),
    ],
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_data_that_do_not_fit(function: Any, data: Any, said: str, loaded: Any, right: Found) -> None:
    q, _ = right(quantize, "Model", False)
    with pytest.raises(eb.EightbitError, match=said):
        function(loaded["Model"], q, data, None)
