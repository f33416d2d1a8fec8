"""ResNet-50 from Keras and from torch: one file of weights, the accuracy of both int8 forms, the integers of both."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.course import datasets, zoo
from eightbit.deploy.sessions import integer_tensors
from eightbit.integer import engine
from eightbit.report.confidence import paired

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
NAME = "resnet50_fashion"
IMAGES = 5000


@pytest.fixture(scope="module")
def data():
    return datasets.fashion_mnist()


def keras_road(data):
    """The network of Keras, channels last, calibrated by a tf.data.Dataset."""
    pytest.importorskip("tf2onnx")
    tf = pytest.importorskip("tensorflow")
    x = zoo.preprocess_for(NAME, data.train.images[:64]).transpose(0, 2, 3, 1)
    model = eb.load(zoo.load_keras(NAME))
    labelled = tf.data.Dataset.from_tensor_slices((x, data.train.labels[:64])).batch(16)
    return model, eb.quantize(model, labelled), lambda x: x.transpose(0, 2, 3, 1)


def torch_road(data):
    """The network of torch, channels first, calibrated by a DataLoader."""
    x = torch.from_numpy(zoo.preprocess_for(NAME, data.train.images[:64]))
    rows = torch.utils.data.TensorDataset(x, torch.from_numpy(data.train.labels[:64]))
    model = eb.load(zoo.load(NAME), zoo.example(NAME))
    return model, eb.quantize(model, torch.utils.data.DataLoader(rows, batch_size=16)), lambda x: x


def answers(model, x):
    return np.concatenate([model(x[i : i + 250]).argmax(1) for i in range(0, len(x), 250)])


@pytest.mark.parametrize("road", [keras_road, torch_road])
def test_int8_answers_as_well_as_float_and_both_engines_compute_the_same_integers(data, road):
    model, q, layout = road(data)
    assert not q.report.islands
    x, labels = layout(zoo.preprocess_for(NAME, data.test.images[:IMAGES])), data.test.labels[:IMAGES]
    in_float, in_int8 = answers(model, x) == labels, answers(q, x) == labels
    found = paired(
        total=IMAGES,
        float_right=int(in_float.sum()),
        lost=int((in_float & ~in_int8).sum()),
        won=int((in_int8 & ~in_float).sum()),
    )
    assert found.float_accuracy >= 0.90  # 0.9086; all 10,000 images: 0.9116 in float, 0.9110 in int8
    assert abs(found.delta) <= 0.005

    feeds = {q.inputs[0].name: x[:4]}
    theirs, ours = integer_tensors(q.ir, feeds), engine.run(q.program, feeds, keep=True)
    assert len(theirs) > 60
    for name, codes in theirs.items():
        np.testing.assert_array_equal(ours[name], codes, err_msg=name)


def test_both_frameworks_compute_the_same_function_from_one_file(data):
    pytest.importorskip("keras")
    x = zoo.preprocess_for(NAME, data.test.images[:64])
    of_keras = zoo.load_keras(NAME)(x.transpose(0, 2, 3, 1), training=False).numpy()
    with torch.inference_mode():
        of_torch = zoo.load(NAME)(torch.from_numpy(x)).numpy()
    assert np.abs(of_torch).max() > 1
    np.testing.assert_allclose(of_keras, of_torch, rtol=0, atol=1e-3)


def test_a_file_that_does_not_fit_keras_is_refused_by_name(tmp_path):
    pytest.importorskip("keras")
    from safetensors.numpy import save_file

    from eightbit.course.zoo import keras_resnet50

    save_file({"stem.0.weight": np.zeros((64, 3, 3, 3), np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(eb.LoadError, match="layer 'conv1_conv' does not fit the model"):
        keras_resnet50.load(tmp_path / "w.safetensors")
    with pytest.raises(eb.LoadError, match="cannot be read"):
        keras_resnet50.load(tmp_path / "none.safetensors")
    with pytest.raises(
        eb.LoadError, match="resnet8 has no twin in Keras; choose one of resnet50_fashion, resnet50_imagenet"
    ):
        zoo.load_keras("resnet8")


@pytest.fixture
def fetched(monkeypatch):
    """Stands in for the download: a ResNet-50 of 1,000 classes with biases and statistics drawn at random."""
    keras = pytest.importorskip("keras")
    network = keras.applications.ResNet50(weights=None, classifier_activation=None)
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            ends = (0.1, 0.3) if layer.name.endswith("_3_bn") else (0.5, 1.5)  # or sixteen sums would grow
            gamma, beta, mean, variance = layer.get_weights()
            drawn = (
                rng.uniform(*ends, gamma.shape),
                rng.normal(0, 0.1, beta.shape),
                rng.normal(0, 0.1, mean.shape),
            )
            layer.set_weights([*drawn, rng.uniform(0.5, 2, variance.shape)])
        elif isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.1, bias.shape)])
    asked = []

    def applications(*, weights, classifier_activation):
        asked.append((weights, classifier_activation))
        return network

    monkeypatch.setattr(keras.applications, "ResNet50", applications)
    return asked


def test_imagenet_weights_of_keras_fit_both_frameworks(fetched):
    keras = pytest.importorskip("keras")
    pictures = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), np.uint8)
    x = zoo.preprocess_for("resnet50_imagenet", pictures)
    theirs = keras.applications.resnet.preprocess_input(pictures.astype(np.float32))
    np.testing.assert_allclose(x.transpose(0, 2, 3, 1), theirs, rtol=0, atol=1e-4)
    of_keras = zoo.load_keras("resnet50_imagenet")(x.transpose(0, 2, 3, 1), training=False).numpy()
    with torch.inference_mode():
        of_torch = zoo.load("resnet50_imagenet")(torch.from_numpy(x)).numpy()
    assert fetched == [("imagenet", None)] * 2
    assert of_torch.std() > 0.1
    np.testing.assert_allclose(of_keras, of_torch, rtol=0, atol=1e-4 * np.abs(of_torch).max())


def test_imagenet_weights_that_cannot_be_fetched_name_the_remedy(monkeypatch):
    keras = pytest.importorskip("keras")

    def unreachable(**_):
        raise Exception(
            "URL fetch failure on https://storage.googleapis.com: None -- Name or service not known"
        )

    monkeypatch.setattr(keras.applications, "ResNet50", unreachable)
    with pytest.raises(eb.LoadError, match=r"ImageNet weights \(URL fetch failure.*resnet50_fashion"):
        zoo.load("resnet50_imagenet")
