"""Keras models as people bring them: the graph computes what Keras computes, and both engines agree on its integers."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import eightbit as eb
from eightbit.cli import main
from tests.strangers.walk import Walked, assert_same_function, refused, sqnr_db, walk

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
layers = keras.layers


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(0)


def expected(net: Any, x: Any) -> tuple[np.ndarray, ...]:
    """Keras' own outputs for inference, in the order in which it flattens them."""
    return tuple(np.asarray(v) for v in keras.tree.flatten(net(x, training=False)))


def road(net: Any, feeds: list[Any], folder: Path, *, example: Any = None, floor: float = 18) -> Walked:
    """Down the road by the plain recipe, calibrated with what it is tested on."""
    right = [expected(net, feed) for feed in feeds]
    return walk(
        net, feeds, feeds[:1], folder, floor=floor, recipes=["plain"], example=example, expected=right[:1]
    )


class Scaled(layers.Layer):
    """Holds a tensor that is no variable."""

    def build(self, shape: Any) -> None:
        self.factors = tf.constant([1.0, 2.0, 3.0])

    def call(self, x: Any) -> Any:
        return x * self.factors


@cache
def adapted() -> Any:
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(1).uniform(0, 255, (50, 8, 8, 3)).astype(np.float32))
    return layer


BEFORE_A_CONV: dict[str, Callable[[], Any]] = {
    "Normalization, adapted": adapted,
    "Normalization, given": lambda: layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0]),
    "Normalization, neither": layers.Normalization,
    "a layer that holds a tensor": Scaled,
    "Rescaling by channel": lambda: layers.Rescaling([1 / 255] * 3, offset=[-0.5, -0.4, -0.3]),
    "RandomFlip": layers.RandomFlip,
    "RandomRotation": lambda: layers.RandomRotation(0.2),
    "RandomZoom": lambda: layers.RandomZoom(0.2),
    "RandomTranslation": lambda: layers.RandomTranslation(0.2, 0.2),
    "RandomContrast": lambda: layers.RandomContrast(0.3),
    "RandomBrightness": lambda: layers.RandomBrightness(0.3),
    "RandomCrop": lambda: layers.RandomCrop(6, 6),
    "RandomHue": lambda: layers.RandomHue(0.2),
    "RandomSaturation": lambda: layers.RandomSaturation(0.2),
    "RandomErasing": lambda: layers.RandomErasing(),
    "GaussianNoise": lambda: layers.GaussianNoise(0.3),
    "grouped convolution": lambda: layers.Conv2D(6, 3, groups=3),
    "separable convolution": lambda: layers.SeparableConv2D(6, 3, activation="gelu"),
}


@pytest.mark.parametrize("kind", BEFORE_A_CONV)
def test_what_stands_before_a_convolution(kind: str, tmp_path: Path) -> None:
    net = keras.Sequential(
        [
            keras.Input((8, 8, 3), name="picture"),
            BEFORE_A_CONV[kind](),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
        ]
    )
    pictures = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3)).astype(np.float32)
    walked = road(net, [pictures], tmp_path)
    assert [spec.name for spec in walked.model.inputs] == ["picture"]


@pytest.mark.parametrize(
    "activation", ["gelu", "silu", "mish", "hard_silu", "selu", "softplus", "exponential"]
)
def test_activations(activation: str, tmp_path: Path) -> None:
    net = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, activation=activation, name="up"), layers.Dense(4)]
    )
    x = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    walked = road(net, [x], tmp_path)
    assert "up" in {node.name for node in walked.model.ir.graph}


class NamedAlike(layers.Layer):
    """Its operations are called what the conversion of the first would call its own."""

    def call(self, x: Any) -> Any:
        y = tf.math.erfc(x, name="e")
        return y + tf.multiply(x, 2.0, name="e_one") + tf.multiply(x, 3.0, name="e_sub")


def test_operations_that_are_called_what_is_made_up(tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input((4,)), NamedAlike(), layers.Dense(3)])
    road(net, [np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)], tmp_path)


@pytest.mark.parametrize("function", ["log1p", "expm1", "erf"])
def test_functions_around_one(function: str, tmp_path: Path) -> None:
    a = keras.Input((4,))
    net = keras.Model(a, layers.Dense(3)(getattr(keras.ops, function)(keras.ops.abs(layers.Dense(6)(a)))))
    road(net, [np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)], tmp_path)


@pytest.mark.parametrize("layer", ["IntegerLookup", "StringLookup", "TextVectorization"])
def test_tables_are_refused_by_the_name_of_their_layer(layer: str) -> None:
    words = [3, 5] if layer == "IntegerLookup" else ["a", "b"]
    a = keras.Input((1,), dtype="int64" if layer == "IntegerLookup" else "string")
    looked = getattr(layers, layer)(vocabulary=words, name="look")(a)
    net = keras.Model(a, layers.Embedding(4, 3)(looked), name="net")
    assert refused(lambda: eb.load(net), eb.LoadError).startswith(
        "layer 'look' of net looks up words or numbers in a table, which has no form in ONNX; load the model from "
    )


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="mine")
        self.one, self.two = layers.Dense(8, activation="relu"), layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.two(self.one(x))


class OfTwo(Subclassed):
    def call(self, x: Any, y: Any) -> Any:
        return self.two(self.one(x) + y)


class OfDict(Subclassed):
    def call(self, x: Any) -> Any:
        return {"second": self.two(self.one(x["q"])), "first": x["p"] * 2}


def test_subclassed_models_take_an_example(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    y = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)
    assert refused(lambda: eb.load(Subclassed()), eb.LoadError) == (
        "the inputs of mine, a Subclassed, are known only once it is called; give an example: load(model, example=x)"
    )
    road(Subclassed(), [x], tmp_path, example=x[:1].astype(np.float64))
    net = Subclassed()
    q = eb.quantize(net, tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(8), eb.Recipe.plain())
    assert sqnr_db(np.asarray(net(x)), q(x)) > 18
    net = OfTwo()
    model = eb.load(net, (x[:1], y[:1]))
    assert [spec.name for spec in model.inputs] == ["x", "y"]
    assert_same_function((np.asarray(net(x, y)),), (model(x, y),))
    feed = {"p": x, "q": y}
    walked = road(OfDict(), [feed], tmp_path, example={k: v[:1] for k, v in feed.items()})
    assert [spec.name for spec in walked.model.inputs] == ["p", "q"]
    assert [spec.name for spec in walked.model.outputs] == ["first", "second"]


def test_a_sequential_that_is_not_built_takes_an_example_and_needs_none_once_called(tmp_path: Path) -> None:
    net = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(2)], name="late")
    x = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    assert "late, a Sequential, are known only once it is called" in refused(
        lambda: eb.load(net), eb.LoadError
    )
    road(net, [x], tmp_path, example=x[:1])
    road(net, [x], tmp_path)


def test_inputs_in_dicts_have_the_names_of_their_keys(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = keras.Input((4,), name="a"), keras.Input((6,), name="b")
    y = layers.Dense(3)(layers.Concatenate()([b, a]))
    feed = {"a": rng.normal(size=(16, 4)).astype("f4"), "b": rng.normal(size=(16, 6)).astype("f4")}
    walked = road(keras.Model({"b": b, "a": a}, {"one": y, "two": layers.ReLU()(y)}), [feed], tmp_path)
    assert [spec.name for spec in walked.model.inputs] == ["a", "b"]
    assert [spec.name for spec in walked.model.outputs] == ["one", "two"]
    nested = keras.Model({"x": {"b": b}, "a": a}, y)
    model = eb.load(nested)
    assert_same_function(
        expected(nested, {"x": {"b": feed["b"]}, "a": feed["a"]}),
        (model({"a": feed["a"], "x.b": feed["b"]}),),
    )


def test_sizes_that_are_free_stay_free() -> None:
    net = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    )
    model = eb.load(net)
    for size in (5, 9):
        x = np.random.default_rng(0).normal(size=(2, size, size + 1, 3)).astype(np.float32)
        assert_same_function(expected(net, x), (model(x),))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_other_precisions_are_float32_here(policy: str, tmp_path: Path) -> None:
    """The right value is that of the same weights in float32, rounded as Keras rounds them where it computes."""

    def net(policy: str) -> Any:
        keras.utils.set_random_seed(0)
        stack = [layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
        for i, layer in enumerate(stack):
            stack[i] = type(layer).from_config(layer.get_config() | {"dtype": policy})
        return keras.Sequential([keras.Input((6, 6, 2)), *stack])

    half, wide = net(policy), net("float32")
    coarse = tf.as_dtype(half.layers[0].compute_dtype).as_numpy_dtype
    wide.set_weights([w.astype(coarse).astype(np.float32) for w in half.get_weights()])
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 2)).astype(np.float32)
    walked = walk(half, [x], [(x,)], tmp_path, floor=18, recipes=["plain"], expected=[expected(wide, x)])
    (note,) = walked.model.notes
    assert note.endswith("in the model is float32 here, inputs and outputs included")


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_whole_numbers_that_keras_casts_itself(dtype: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 200, (16, 6, 6, 2)).astype(dtype)
    road(small(), [x], tmp_path)
    net = keras.Sequential([keras.Input((6, 6, 2), dtype=dtype), layers.Rescaling(1 / 255), *small().layers])
    assert [spec.dtype for spec in road(net, [x], tmp_path).model.inputs] == [np.dtype(dtype)]


@pytest.mark.slow
def test_efficientnet_has_one_input() -> None:
    net = keras.applications.EfficientNetB0(weights=None, input_shape=(32, 32, 3), classes=10)
    x = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    model = eb.load(net)
    assert len(model.inputs) == 1
    assert_same_function(expected(net, x), (model(x),))


def small() -> Any:
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), name="picture"),
            layers.Conv2D(4, 3, groups=2, activation="gelu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


KERAS_SAVES = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@KERAS_SAVES
@pytest.mark.parametrize("name", ["net.keras", "net.h5", "net"])
def test_paths_of_files_and_folders(name: str, tmp_path: Path) -> None:
    net, path = small(), tmp_path / name
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 2)).astype(np.float32)
    if path.suffix:
        net.save(path)
    else:
        net.export(path, verbose=False)
    walk(path, [x], [(x,)], tmp_path, floor=18, recipes=["plain"], expected=[expected(net, x)])


@KERAS_SAVES
def test_paths_on_the_command_line(tmp_path: Path) -> None:
    net, data, int8 = small(), tmp_path / "x.npz", tmp_path / "int8.onnx"
    np.savez(data, picture=np.random.default_rng(0).normal(size=(16, 6, 6, 2)).astype(np.float32))
    net.save(tmp_path / "net.keras")
    net.export(tmp_path / "net", verbose=False)
    for name in ("net.keras", "net"):
        words = ["quantize", str(tmp_path / name), "-c", str(data), "-o", str(int8)]
        result = CliRunner().invoke(main, words)
        assert (result.exit_code, f"of {tmp_path / name}" in result.output) == (0, True), result.output


@KERAS_SAVES
def test_files_without_a_model_say_so(tmp_path: Path) -> None:
    small().save_weights(tmp_path / "only.weights.h5")
    (tmp_path / "bad.keras").write_bytes(b"nothing")
    (tmp_path / "folder").mkdir()
    for name, said in (
        ("only.weights.h5", "No model config found in the file"),
        ("bad.keras", "make it in Python and give it to eightbit.load"),
        ("folder", "is a folder without a saved_model.pb"),
    ):
        message = refused(lambda name=name: eb.load(tmp_path / name), eb.LoadError)  # type: ignore[misc]
        assert said in message
        assert name in message


class Sorted(layers.Layer):
    def call(self, x: Any) -> Any:
        return tf.cast(tf.strings.length(tf.strings.as_string(x)), tf.float32)


class Broken(layers.Layer):
    def call(self, x: Any) -> Any:
        raise ValueError("the layer has no form for inference,\nwhich is said here")


def test_what_cannot_be_exported_names_the_layer() -> None:
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3), Sorted(name="order")], name="net")
    assert "layer 'order' of net computes TensorFlow's StringLength, which has no form in ONNX" in refused(
        lambda: eb.load(net), eb.LoadError
    )
    net = keras.Sequential([Broken(name="mine")], name="net")
    said = refused(lambda: eb.load(net, np.ones((1, 3), "f4")), eb.LoadError)
    assert said.startswith("Keras could not export net: ")
    assert "'mine' (of type Broken)" in said
    assert said.endswith("the layer has no form for inference, which is said here")
