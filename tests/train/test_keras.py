"""Training in Keras on TensorFlow: the same codes as in PyTorch and in the engines, through compile and fit."""

import numpy as np
import pytest

import eightbit as eb
from tests.graph.graphs import normal, parse
from tests.small_net import images, small_net
from tests.train.codes import assert_same_codes

torch = pytest.importorskip("torch")
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
from eightbit.train.keras_ops import KerasOps  # noqa: E402
from eightbit.train.ops import Taps  # noqa: E402
from eightbit.train.torch_ops import TorchOps  # noqa: E402

THREE_BITS = eb.Recipe(weights=eb.Weights(bits=3, rounding=eb.GPTQ()))
"""Each layer rounded for itself: in turn they leave little to learn."""


def whole(*shape: int, seed: int = 0) -> np.ndarray:
    """Small integers, whose sums are exact in any order."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


def two_inputs(function: str, **options):
    return lambda ops, a, b: getattr(ops, function)(a, b, *options.values())


def conv(strides, dilations=(1, 1), group=1, exact=False, pads=None):
    taps = Taps(strides, pads or (0,) * 2 * len(strides), dilations, group)
    return lambda ops, x, w: ops.convolved(x, w, w[(slice(None), *[0] * (len(w.shape) - 1))], taps, exact)


PAIRS = {
    "conv": (conv((1, 2)), (2, 4, 7, 8), (6, 4, 3, 2)),
    "conv, padded": (conv((2, 1), pads=(1, 2, 1, 2)), (2, 4, 7, 8), (6, 4, 3, 2)),
    "conv, padded unevenly": (conv((1, 1), pads=(0, 2, 1, 1)), (2, 4, 7, 8), (6, 4, 3, 2)),
    "conv, exact": (conv((2, 2), exact=True), (2, 4, 7, 8), (6, 4, 3, 3)),
    "conv, dilated": (conv((2, 1), (2, 3)), (2, 4, 9, 11), (6, 4, 3, 3)),
    "conv, grouped": (conv((1, 1), group=2), (2, 4, 7, 8), (6, 2, 3, 3)),
    "depthwise": (conv((2, 2), group=4), (2, 4, 7, 8), (8, 1, 3, 3)),
    "depthwise, dilated, strides differ": (conv((2, 1), (2, 1), group=4), (2, 4, 9, 8), (4, 1, 3, 3)),
    "conv over one axis": (conv((2,), (2,), group=2), (2, 4, 9), (6, 2, 3)),
    "product": (lambda ops, a, b: ops.product(a, b, False), (2, 3, 4), (4, 5)),
    "product, exact": (lambda ops, a, b: ops.product(a, b, True), (2, 3, 4), (2, 4, 5)),
    "sums of windows": (lambda ops, a, b: ops.totals(a, (3, 2), (2, 1)) + b, (2, 4, 7, 8), (7,)),
    "sums of windows, one axis": (lambda ops, a, b: ops.totals(a, (3,), (2,)) + b, (2, 4, 9), (4,)),
    "reflected": (lambda ops, a, b: ops.padded(a, [(0, 0), (2, 1)], "reflect", 0.0) + b, (2, 4), (7,)),
    "wrapped": (lambda ops, a, b: ops.padded(a, [(1, 2), (0, 0)], "wrap", 0.0) + b, (3, 4), (4,)),
    "padded": (lambda ops, a, b: ops.padded(a, [(1, 0), (0, 2)], "constant", 3.0) + b, (3, 4), (6,)),
    "entries": (lambda ops, a, b: ops.taken(a, np.array([[0, -1], [1, 1]]), 1) * b, (3, 4, 2), (2,)),
    "chosen": (lambda ops, a, b: ops.chosen(a > b, a, b), (3, 4), (4,)),
    "straight through": (lambda ops, a, b: ops.passed(a * 0.3, ops.rounded(a * 0.3)) * b, (3, 4), (4,)),
    "snapped": (lambda ops, a, b: ops.snapped(a * 0.3, -1.0, 2.0) * b, (3, 4), (4,)),
    "requantized": (lambda ops, a, b: ops.requantized(a, b * b + 0.5, -90.0, 70.0), (3, 4), (4,)),
    "clipped": (lambda ops, a, b: ops.clipped(a, -3.0, 4.0) * b, (3, 4), (4,)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_functions_and_gradients_are_those_in_pytorch(name: str):
    """All operands are small integers, so that values are equal; factors like 0.3 round alike in both."""
    function, *shapes = PAIRS[name]
    arrays = [whole(*shape, seed=i) for i, shape in enumerate(shapes)]
    mine = [torch.from_numpy(a).requires_grad_() for a in arrays]
    expected = function(TorchOps(), *mine)
    weights = whole(*expected.shape, seed=5)
    (expected * torch.from_numpy(weights)).sum().backward()
    variables = [tf.Variable(a) for a in arrays]
    with tf.GradientTape() as tape:
        got = function(KerasOps(), *(tf.convert_to_tensor(v) for v in variables))
        total = tf.reduce_sum(got * weights)
    np.testing.assert_array_equal(got.numpy(), expected.detach().numpy())
    for v, t in zip(tape.gradient(total, variables), mine, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(v).numpy(), t.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "dilations"), [((2, 3), (1, 1)), ((2, 3), (2, 2)), ((3,), (1,)), ((3,), (2,))]
)
def test_the_largest_of_a_window(kernel, dilations):
    """Numbers that are all different, so that the gradient has one place to go to."""
    x = np.random.default_rng(0).permutation(2 * 3 * 9 ** len(kernel)).astype(np.float32)
    x = x.reshape(2, 3, *[9] * len(kernel))
    strides = (2, 1)[: len(kernel)]
    mine, variable = torch.from_numpy(x).requires_grad_(), tf.Variable(x)
    expected = TorchOps().largest(mine, kernel, strides, dilations)
    expected.sum().backward()
    with tf.GradientTape() as tape:
        got = KerasOps().largest(tf.convert_to_tensor(variable), kernel, strides, dilations)
    np.testing.assert_array_equal(got.numpy(), expected.detach().numpy())
    np.testing.assert_array_equal(
        tf.convert_to_tensor(tape.gradient(got, variable)).numpy(), mine.grad.numpy()
    )


def assert_as_in_pytorch(q: eb.QuantizedModel, x: np.ndarray) -> None:
    assert_same_codes(eb.trainable(q, framework="keras"), q, x)
    mine, its = eb.trainable(q).codes(x), eb.trainable(q, framework="keras").codes(x)
    assert list(mine) == list(its)
    for name, codes in mine.items():
        np.testing.assert_array_equal(codes, its[name], name)


@pytest.mark.parametrize("recipe", [eb.Recipe(), THREE_BITS, eb.Recipe(activations=eb.Activations(bits=4))])
def test_the_small_net_has_the_codes_that_it_has_in_pytorch(recipe: eb.Recipe):
    assert_as_in_pytorch(eb.quantize(eb.load(small_net()), images(32), recipe), images(16, seed=1))


@pytest.mark.parametrize("between", ["Clip(a, lo, hi)", "Sigmoid(a)", "Softmax(a)"])
def test_tables_and_softmax_are_those_of_pytorch(between: str):
    numbers = {name: normal(6, 6, seed=i) for i, name in enumerate("wv")}
    bounds = {"lo": np.float32(0.3), "hi": np.float32(0.9)}
    body = f"agraph (float[N,6] x) => (float[N,6] y) {{ a = Gemm(x, w) b = {between} y = Gemm(b, v) }}"
    q = eb.quantize(eb.load(parse(body, **numbers, **bounds)), normal(64, 6), eb.Recipe.plain())
    assert_as_in_pytorch(q, normal(512, 6, seed=1))


@pytest.fixture(scope="module")
def net():
    """Convolution, BatchNorm, depthwise, pooling: channels last, as Keras has them."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(16, 1),
            layers.AveragePooling2D(2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
        ]
    )
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape[0]
            random = np.random.default_rng(size)
            layer.set_weights(
                [
                    random.uniform(0.5, 2, size),
                    random.normal(size=size),
                    random.normal(size=size) / 4,
                    random.uniform(0.5, 2, size),
                ]
            )
    return model


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return normal(count, 12, 12, 3, seed=seed)


@pytest.fixture(scope="module")
def trained(net):
    """A Keras model, trained by compile and fit against the float model's answers, and its losses."""
    model = eb.trainable(net, pictures(64), THREE_BITS)
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    x = pictures(100)  # the last batch is smaller: its length is not known before the run
    history = model.fit(x, net.predict(x, verbose=0), batch_size=32, epochs=8, verbose=0)
    return model, history.history["loss"]


def test_a_keras_model_gives_a_keras_model_with_the_codes_of_the_engines(net):
    q = eb.quantize(net, pictures(64), THREE_BITS)
    assert_as_in_pytorch(q, pictures(16, seed=1))
    module = eb.trainable(net, pictures(64), THREE_BITS)
    assert isinstance(module, keras.Model)
    np.testing.assert_array_equal(eb.quantize(module)(pictures(16, seed=1)), q(pictures(16, seed=1)))


def test_fit_of_keras_lowers_the_loss(trained):
    _, losses = trained
    assert losses[-1] < 0.5 * losses[0]


def test_what_was_trained_is_what_runs(trained):
    model, _ = trained
    q, x = eb.quantize(model), pictures(64, seed=2)
    assert_same_codes(model, q, x)
    np.testing.assert_array_equal(q.run(x, engine="numpy"), q(x))
    np.testing.assert_array_equal(model.predict(x, verbose=0), q(x))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside Keras
def test_weights_are_saved_and_loaded_by_keras(trained, net, tmp_path):
    model, _ = trained
    model.save_weights(tmp_path / "trained.weights.h5")
    fresh = eb.trainable(net, pictures(64), THREE_BITS)
    fresh.load_weights(tmp_path / "trained.weights.h5")
    x = pictures(8, seed=2)
    np.testing.assert_array_equal(eb.quantize(fresh)(x), eb.quantize(model)(x))


def test_only_what_may_change_is_trained(trained):
    model, _ = trained
    assert len(model.trainable_weights) == len(model.plan.learned)
    kinds = {key.partition(":")[0] for key in model.plan.learned if np.any(model.learned[key].numpy())}
    assert kinds == {"weight", "bias", "scale"}


def test_mistakes_have_remedies(trained, net):
    model, _ = trained
    with pytest.raises(eb.EngineError, match=r"2 input\(s\) given, the model takes 1"):
        model([pictures(2), pictures(2)])
    with pytest.raises(eb.QuantizationError, match="compile"):
        eb.fit(model, (pictures(8), np.zeros(8, np.int64)))
    sparse = eb.Training(sparsity=eb.Sparsity(0.5))
    with pytest.raises(
        eb.QuantizationError, match=r'fit, and a sparse one as trainable\(framework="torch"\)'
    ):
        eb.fit(model, (pictures(8), np.zeros(8, np.int64)), sparse)
    with pytest.raises(eb.QuantizationError, match="framework"):
        eb.trainable(net, pictures(8), framework="jax")


def test_normalized_sums_are_those_in_pytorch_and_can_be_frozen():
    """One training run each: outputs to within a step, statistics to within float32; frozen, both are integers."""
    net, x = eb.load(small_net()), images(32)
    q = eb.quantize(net, images(64), eb.Recipe(weights=eb.Weights(bits=2, range=eb.MSE())))
    mine, theirs = eb.trainable(q), eb.trainable(q, framework="keras")
    step = mine.plan.start[mine.plan.grids[next(reversed(mine.plan.grids))].scale]
    with torch.no_grad():
        for batch in (x, 2 * x):
            told, said = mine.train()(torch.from_numpy(batch)).numpy(), theirs(batch, training=True).numpy()
            np.testing.assert_allclose(said, told, rtol=0, atol=3 * step)
    for name, rows in theirs._normal.items():
        np.testing.assert_allclose(rows.numpy(), mine.get_buffer(f"sums:{name}").numpy(), rtol=1e-2, atol=0.5)
    before = theirs.codes(x)
    assert_same_codes(theirs, eb.quantize(theirs), x)
    theirs.freeze()
    after = theirs.codes(x)
    apart = sum(int((before[name] != after[name]).sum()) for name in before)
    assert apart <= 0.001 * sum(codes.size for codes in before.values())  # w / s rounds anew
    assert_same_codes(theirs, eb.quantize(theirs), x)
    np.testing.assert_allclose(theirs(2 * x, training=True), theirs(2 * x), rtol=0, atol=3 * step)


def test_a_keras_model_is_trained_sparse_as_a_torch_module(net):
    module = eb.trainable(net, pictures(32), framework="torch")
    x, y = pictures(64), net.predict(pictures(64), verbose=0).argmax(axis=1)
    eb.fit(module, (x, y), eb.Training(epochs=2, batch=16, sparsity=eb.Sparsity(0.75)))
    q = eb.quantize(module)
    codes = np.concatenate([op.weight.ravel() for op in q.program.ops if hasattr(op, "weight")])
    assert np.mean(codes == 0) > 0.74
    assert_same_codes(module, q, x)
