"""`compare` against figures worked out by hand from the models' own outputs, and its intervals against known ones."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import eightbit as eb
from eightbit.arith.affine import sqnr_db
from eightbit.graph.rescale.equalize import recorded_scales
from eightbit.graph.run import FloatSession
from eightbit.report.comparison import LAYER_SAMPLES
from eightbit.report.confidence import Verdict, no_worse
from tests.small_net import CLASSES, images, small_net


@pytest.fixture(scope="module")
def model() -> eb.Model:
    return eb.load(small_net())


@pytest.fixture(scope="module")
def q(model: eb.Model) -> eb.QuantizedModel:
    return eb.quantize(model, images(16))


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return images(100, seed=1)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, CLASSES, 100)


def test_the_figures_are_those_of_the_models_outputs(model, q, x, labels):
    report = eb.compare(model, q, x, labels=labels)
    exact, int8 = model(x), q(x)
    first, second = exact.argmax(axis=1), int8.argmax(axis=1)
    assert report.samples == 100
    assert report.agreement.count == int((first == second).sum())
    assert report.accuracy.float_accuracy == np.mean(first == labels)
    assert report.accuracy.int8_accuracy == pytest.approx(np.mean(second == labels), abs=1e-12)
    assert report.accuracy.lost == int(((first == labels) & (second != labels)).sum())
    (output,) = report.outputs
    assert (output.name, output.op) == ("logits", "Gemm")
    # One sample at a time or all at once, ONNX Runtime's float sums may differ in the last place: far below 1e-3 dB.
    assert output.sqnr_db == pytest.approx(sqnr_db(exact, int8), abs=1e-3)


def test_layers_carry_the_noise_of_the_integers_that_the_runtime_computes(model, q, x):
    report = eb.compare(model, q, x)
    assert report.layer_samples == LAYER_SAMPLES < len(x)
    by_name = {row.name: row for row in report.layers}
    assert next(iter(by_name)) == "image"
    assert {"image", "r1", "c2", "r2", "logits"} <= set(by_name)
    head = x[:LAYER_SAMPLES]
    scale, zero = q.report.params["image"].scale, q.report.params["image"].zero_point
    image = (np.clip(np.rint(head / scale) + zero, 0, 255) - zero) * scale
    assert by_name["image"].sqnr_db == pytest.approx(sqnr_db(head, image.astype(np.float32)), abs=1e-6)
    # The last tensor's codes, dequantized, are the output.
    assert by_name["logits"].sqnr_db == pytest.approx(sqnr_db(model(head), q(head)), abs=1e-3)
    exact = FloatSession(model.ir, ["r2"]).run({"image": head})["r2"]
    exact = exact * recorded_scales(q.ir)["r2"].reshape(
        -1, 1, 1
    )  # the channels that codes stand for are equalized
    codes = FloatSession(q.ir, ["r2_q"], optimize=False).run({"image": head})["r2_q"]
    real = (codes.astype(np.float32) - int(q.report.params["r2"].zero_point)) * q.report.params["r2"].scale
    # Without optimization the layers run in float between Q and DQ: a code may differ by one where a tie is near.
    assert by_name["r2"].sqnr_db == pytest.approx(sqnr_db(exact, real), abs=0.1)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x, y: {"image": x, "labels": y},
        lambda x, y: (x, y),
        lambda x, y: [(x[:30], y[:30]), (x[30:], y[30:])],
        lambda x, y: [{"image": x[:1], "labels": y[:1]}, {"image": x[1:], "labels": y[1:]}],
        lambda x, y: ((x[i : i + 1], y[i]) for i in range(len(x))),
        lambda x, y: [({"image": x}, y)],
        lambda x, y: [(x, y[:, None])],
    ],
    ids=["dict", "pair", "pairs", "dicts", "generator", "nested", "column"],
)
def test_labels_come_in_every_form_and_batches_do_not_matter(model, q, x, labels, wrap):
    assert eb.compare(model, q, wrap(x, labels)) == eb.compare(model, q, x, labels=labels)


def test_without_labels_there_is_no_accuracy(model, q, x):
    report = eb.compare(model, q, [x[:10], x[10:20]])
    assert report.accuracy is None
    assert report.samples == 20
    assert "accuracy " not in str(report).replace("accuracies", "")


def test_sizes_nodes_and_islands(model, q, x, tmp_path: Path):
    report = eb.compare(model, q, x[:2])
    assert report.sizes == (model.save(tmp_path / "f").stat().st_size, q.save(tmp_path / "q").stat().st_size)
    assert report.nodes.integer == report.nodes.total == 7
    assert report.nodes.in_float == ()
    assert report.islands == ()


def test_a_float_island_is_seen_in_the_graph_and_in_the_runtime(x):
    net = eb.load(small_net(helper.make_node("Tanh", ["f"], ["t"], name="squash")))
    quantized = eb.quantize(net, images(8))
    report = eb.compare(net, quantized, x[:3])
    assert [(i.name, i.op) for i in report.islands] == [("squash", "Tanh")]
    assert report.nodes.in_float == (("squash", "Tanh"),)
    assert report.nodes.integer == report.nodes.total - 1
    assert "squash" in str(report)
    assert report.islands[0].reason == quantized.report.islands[0].reason


def test_files_and_an_opened_model_give_the_same_report(model, q, x, tmp_path: Path):
    onnx.save(small_net(), tmp_path / "net.onnx")
    q.save(tmp_path / "q.onnx")
    assert eb.compare(tmp_path / "net.onnx", tmp_path / "q.onnx", x) == eb.compare(model, q, x)


def test_text_html_and_json(model, q, x, labels):
    report = eb.compare(model, q, x, labels=labels)
    text = str(report)
    assert "float and int8 on 100 samples" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    page = report._repr_html_()
    assert page == eb.compare(model, q, x, labels=labels)._repr_html_()
    assert page.count("<table>") == page.count("</table>") == 2
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["agreement"]["value"] == report.agreement.value
    assert found["accuracy"]["delta"] == report.accuracy.delta
    assert len(found["layers"]) == len(report.layers)


def test_ranges_that_are_found_anew_are_those_of_single_samples(model, x):
    dynamic = eb.quantize(
        model, None, eb.Recipe(activations=eb.Activations(dynamic=True), bias_correction=False)
    )
    apart = np.concatenate([dynamic(row[None]) for row in x])
    assert not np.array_equal(apart, dynamic(x))  # the range of a batch is another one
    found = eb.compare(model, dynamic, x)
    assert found.outputs[0].sqnr_db == pytest.approx(sqnr_db(model(x), apart), abs=1e-3)


def test_progress_is_told_of_both_passes(model, q, x):
    seen = []
    eb.compare(model, q, x, progress=lambda stage, done: seen.append((stage, done)))
    told = [done for stage, done in seen if stage == "compare"]
    assert told == sorted(told) and told[-1] == 100 and len(told) > 1
    assert seen[len(told) :] == [("layers", i + 1) for i in range(LAYER_SAMPLES)]


def test_latency_only_on_request(model, q, x):
    assert eb.compare(model, q, x[:2]).latency is None
    timed = eb.compare(model, q, x[:2], latency=True, threads=1).latency
    assert timed.ratio == timed.int8_seconds / timed.float_seconds > 0
    assert (timed.threads, timed.batch) == (1, 1)


@pytest.mark.parametrize(
    ("data", "labels", "said"),
    [
        (images(0), None, "axis of size 0"),
        ([], None, "no batch"),
        ({"picture": images(2)}, None, "picture"),
        (images(2)[:, :2], None, r"\(2, 2, 8, 8\)"),
        (np.full((1, 3, 8, 8), np.nan, np.float32), None, "NaN"),
        (
            np.full((1, 3, 8, 8), np.inf, np.float32),
            None,
            "output 0, sample 0: NaN, or an infinity in one of",
        ),
        (images(3), np.zeros(2, int), "2 labels were given for 3 samples"),
        (images(3), np.zeros(3), "float64"),
        ([(images(1), np.zeros(1, int)), images(1)], None, "1 of 2 batches"),
        ("data.npz", None, "data of type str"),
        (7, None, "data of type int"),
    ],
)
def test_bad_data_is_named(model, q, data, labels, said):
    with pytest.raises(eb.EngineError, match=said):
        eb.compare(model, q, data, labels=labels)


def test_a_float_file_is_not_compared_as_int8(model, tmp_path: Path):
    with pytest.raises(eb.LoadError, match="float model"):
        eb.compare(model, model.save(tmp_path / "net.onnx"), images(1))


def test_memory_does_not_grow_with_the_data(model, q):
    """One sample is in flight: of a long stream only LAYER_SAMPLES are still alive at any time."""
    import weakref

    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    class Tracked(np.ndarray):
        pass

    def stream():
        nonlocal most
        for seed in range(200):
            batch = images(1, seed).view(Tracked)
            alive.add(_Key(batch))
            most = max(most, len(alive))
            yield batch

    class _Key:
        def __init__(self, array):
            array.key = self

    Tracked.__array_finalize__ = lambda self, source: setattr(self, "key", getattr(source, "key", None))
    assert eb.compare(model, q, stream()).samples == 200
    assert most <= LAYER_SAMPLES + 3


def test_the_loss_is_tested_against_the_margin(model, q, x):
    labels = model(x).argmax(axis=1)
    report = eb.compare(model, q, x, labels=labels)
    assert report.no_worse == no_worse(report.accuracy, 0.005)
    assert report.no_worse.verdict is Verdict.UNDECIDED  # a hundred images cannot exclude half a point
    assert "no worse than 0.5 points" in str(report)
    assert f"about {report.no_worse.images_needed:,} would" in str(report)
    wide = eb.compare(model, q, x, labels=labels, margin=0.3)
    assert wide.no_worse.verdict is Verdict.NO_WORSE
    assert wide.to_dict()["no_worse"]["verdict"] == "no worse"
    assert eb.compare(model, q, x[:3]).no_worse is None
    with pytest.raises(eb.EngineError, match=r"margin=5 .* such as 0.005"):
        eb.compare(model, q, x, labels=labels, margin=5)
