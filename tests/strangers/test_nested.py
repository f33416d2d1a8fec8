"""Dicts in dicts: a model takes at every call what its source took. All leaves differ, and none may be swapped."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eightbit as eb
from tests.strangers.graphs import graph, node
from tests.strangers.walk import arrays, assert_equal, assert_same_function, refused, sqnr_db, walk

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
torch = pytest.importorskip("torch")
WEIGHTS = {"z": 1.0, "a": 4.0, "m": -2.0, "x": 0.5}


class Nested(torch.nn.Module):
    """Of an array `x`, maybe, and a dict with a dict and a list in it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, batch: Any, x: Any = None) -> Any:
        parts = {"z": batch["of"]["z"], "a": batch["of"]["a"], "m": batch["list"][0], "x": x}
        return sum(WEIGHTS[name] * self.layer(part) for name, part in parts.items() if part is not None)


def leaf() -> Any:
    return torch.randn(32, 4)


def batch() -> dict[str, Any]:
    return {"of": {"z": leaf(), "a": leaf()}, "list": [leaf()]}


def numbers(value: Any) -> Any:
    """The same with NumPy arrays."""
    if isinstance(value, dict):
        return {key: numbers(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(numbers, value))
    return value.numpy()


CALLS: dict[str, Callable[[], Any]] = {
    "the dict alone, in a tuple": lambda: (batch(),),
    "a tuple of a dict and an array": lambda: (batch(), leaf()),
    "by name": lambda: {"x": leaf(), "batch": batch()},
    "by name, the array left out": lambda: {"batch": batch()},
}


@pytest.mark.parametrize("kind", CALLS)
def test_a_module_takes_what_its_example_was(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, net = CALLS[kind], Nested().eval()
    example, feeds = make(), [make() for _ in range(3)]
    with torch.no_grad():
        right = [(net(**f) if isinstance(f, dict) else net(*f)).numpy() for f in feeds]
    given = [numbers(f) for f in feeds]
    walked = walk(
        net,
        given,
        given,
        tmp_path,
        floor=20,
        recipes=["plain"],
        example=example,
        expected=[(y,) for y in right],
    )
    model, q = walked.model, walked.quantized["plain"]
    labels = np.zeros(32, np.int64)
    beside = [{**f, "labels": labels} if isinstance(f, dict) else (*f, labels) for f in given]
    for data in (beside, [(f, labels) for f in given], iter(beside)):  # labels are set aside
        assert_equal(arrays(q(feeds[0])), arrays(eb.quantize(model, data, eb.Recipe.plain())(feeds[0])), kind)
    assert isinstance(q(feeds[0]), torch.Tensor)
    if len(example) == 1 and isinstance(example, tuple):
        assert_same_function((right[0],), (model(given[0][0]),))
    flat = dict(zip([s.name for s in model.inputs], _leaves(given[0]), strict=True))
    assert_same_function((right[0],), (model(flat),))  # or by the graph's own names


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list | tuple):
        parts = value.values() if isinstance(value, dict) else value
        return [leaf for part in parts for leaf in _leaves(part)]
    return [value]


def test_what_lacks_a_leaf_or_holds_more_is_refused_by_name() -> None:
    model = eb.load(Nested(), (batch(),))
    names = "['batch_of_z', 'batch_of_a', 'batch_list_0']"
    more, fewer = batch(), batch()
    more["of"]["y"] = leaf()
    del fewer["of"]["z"]
    for given in (more, fewer):
        assert refused(lambda given=given: model(given), eb.EngineError) == (
            f"inputs given: ['list', 'of']; inputs of the model: {names}; use those names, or arguments nested as the "
            "model was loaded with"
        )


@pytest.mark.parametrize(
    "text",
    ['{"x": 5}', "no JSON", "[1]", '{"x": [{}]}', "null", "[" * 100_000],
    ids=["number", "text", "list", "dict", "null", "deep"],
)
def test_what_metadata_say_of_places_is_checked(text: str) -> None:
    model = graph([node("Gemm", "x w", "y")], {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": np.ones((4, 3), "f4")})
    model.metadata_props.add(key="eightbit.places", value=text)
    assert refused(lambda: eb.load(model), eb.LoadError) == (
        "the entry 'eightbit.places' of the model's metadata is damaged; save the model again"
    )


@pytest.mark.parametrize("subclassed", [False, True])
def test_a_keras_model_takes_what_its_inputs_were(subclassed: bool, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tf2onnx")
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(3)

    def mixed(x: Any) -> Any:
        return layer(x["of"]["z"]) + 4 * layer(x["of"]["a"]) - 2 * layer(x["b"][0]) + layer(x["b"][1]) / 2

    class Mixed(keras.Model):
        def call(self, x: Any) -> Any:
            return mixed(x)

    def structure(make: Callable[[str], Any]) -> Any:
        return {"of": {"z": make("p"), "a": make("q")}, "b": [make("r"), make("s")]}

    rng = np.random.default_rng(0)
    inputs = structure(lambda name: keras.Input((4,), name=name))
    net = Mixed() if subclassed else keras.Model(inputs, mixed(inputs))
    feed = structure(lambda name: rng.normal(size=(32, 4)).astype(np.float32))
    right = np.asarray(net(feed))
    walked = walk(
        net, [feed], [feed], tmp_path, floor=20, recipes=["plain"], example=feed, expected=[(right,)]
    )
    q = eb.quantize(walked.model, [(feed, np.zeros(32))], eb.Recipe.plain())
    assert sqnr_db(right, q(feed)) > 20
