"""Pictures of whole networks: the tests read back from the Axes what the report says."""

import matplotlib as mpl
import numpy as np
import pytest

import eightbit as eb
from eightbit import plot
from eightbit.report.answers import AnswerLog
from eightbit.report.tensors import TensorPairs, layer_histograms
from tests.small_net import images, small_net

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def model() -> eb.Model:
    return eb.load(small_net())


@pytest.fixture(scope="module")
def q(model: eb.Model) -> eb.QuantizedModel:
    return eb.quantize(model, images(16))


@pytest.fixture(scope="module")
def report(model: eb.Model, q: eb.QuantizedModel) -> eb.Comparison:
    return eb.compare(model, q, images(12, seed=1))


def test_a_row_a_tensor_and_a_column_a_recipe(model, report):
    kept = eb.quantize(model, images(16), eb.Recipe(overrides={"[!c]*": eb.FLOAT}))
    other = eb.compare(model, kept, images(12, seed=1))
    ax = plot.layers_by_recipe({"default": report, "classifier only": other})
    cells = ax.images[0].get_array()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["default", "classifier only"]
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == [row.name for row in report.layers]
    assert cells[:, 0].tolist() == [row.sqnr_db for row in report.layers]
    there = {row.name: row.sqnr_db for row in other.layers}
    assert any(name not in there for name in names)
    for row, name in enumerate(names):
        assert (cells[row, 1] is np.ma.masked) if name not in there else cells[row, 1] == there[name]
    with pytest.raises(eb.QuantizationError, match="no report"):
        plot.layers_by_recipe({})


def test_a_column_a_sample(report, model):
    ax = plot.layers_by_sample(report)
    cells = ax.images[0].get_array()
    assert cells.shape == (len(report.layers), report.layer_samples)
    np.testing.assert_array_equal(cells[2], report.layers[2].by_sample)
    weights_only = eb.quantize(model, None, eb.Recipe(weights=eb.Weights(), activations=eb.FLOAT))
    with pytest.raises(eb.QuantizationError, match="no tensors"):
        plot.layers_by_sample(eb.compare(model, weights_only, images(1)))


def test_ranges_are_in_codes(model, q):
    found = layer_histograms(TensorPairs(model.ir, q.ir), [{"image": images(4, seed=1)}])
    ax = plot.ranges(found)
    bars = ax.containers[0].patches
    assert len(bars) == len(found)
    for bar, h in zip(bars, found, strict=True):
        lo = (bar.get_y() - h.grid.zero_point) * h.grid.scale
        hi = (bar.get_y() + bar.get_height() - h.grid.zero_point) * h.grid.scale
        assert (lo, hi) == pytest.approx(h.float_range, rel=1e-9, abs=1e-9)  # back and forth in float64


def test_both_histograms_of_a_tensor(model, q):
    h = layer_histograms(TensorPairs(model.ir, q.ir), [{"image": images(4, seed=1)}])[0]
    ax = plot.tensor_histogram(h)
    before, after = (p.get_data() for p in ax.patches[:2])
    assert before.values.sum() == sum(h.before) + h.below + h.above == after.values.sum()
    np.testing.assert_array_equal(after.edges, h.edges)
    assert f"{h.clipped:.3%} clipped" in ax.get_title()


def test_changed_answers_lie_above_the_diagonal():
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(300, 4))
    log = AnswerLog()
    log.update(exact, exact + rng.normal(scale=0.2, size=exact.shape))
    answers = log.answers()
    kept, changed, diagonal = plot.leads(answers).lines
    assert len(changed.get_xdata()) == answers.flipped.sum() > 0
    assert len(kept.get_xdata()) + len(changed.get_xdata()) == 300
    assert (changed.get_ydata() >= changed.get_xdata()).all()
    assert (kept.get_ydata() <= kept.get_xdata()).all()
    assert diagonal.get_xdata().tolist() == diagonal.get_ydata().tolist()


def test_saliency_colours_follow_the_sign_and_share_one_limit():
    heat = np.array([[1.0, -2.0], [0.0, 4.0]])
    ax = plot.saliency(np.zeros((2, 2, 3), np.uint8), heat)
    _, positive, negative = (image.get_array() for image in ax.images)
    np.testing.assert_allclose(positive[..., 3], 0.75 * np.array([[0.25, 0], [0, 1]]), rtol=1e-12)
    np.testing.assert_allclose(negative[..., 3], 0.75 * np.array([[0, 0.5], [0, 0]]), rtol=1e-12)
    stronger = plot.saliency(np.zeros((2, 2)), heat, limit=8.0)
    assert stronger.images[1].get_array()[1, 1, 3] == pytest.approx(0.75 / 2)
    with pytest.raises(eb.QuantizationError, match=r"\(3, 3\) does not fit"):
        plot.saliency(np.zeros((2, 2)), np.zeros((3, 3)))


def test_every_picture_takes_an_axes(report, model, q):
    _, ax = plt.subplots()
    h = layer_histograms(TensorPairs(model.ir, q.ir), [{"image": images(2, seed=1)}])
    assert plot.ranges(h, ax=ax) is ax
    assert plot.tensor_histogram(h[0], ax=ax) is ax
    assert plot.leads(report.answers, ax=ax) is ax
    assert plot.layers_by_sample(report, ax=ax) is ax
    assert plot.saliency(np.zeros((2, 2)), np.ones((2, 2)), ax=ax) is ax
    assert len(plt.get_fignums()) == 1
