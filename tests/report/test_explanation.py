"""`explain`, its page and its logs: each reads back what the comparison and the models themselves say."""

import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner

import eightbit as eb
from eightbit.cli import main
from eightbit.report.explanation import as_picture
from eightbit.report.saliency import occlusion
from tests.site.conftest import browser, chromium, tab  # noqa: F401
from tests.small_net import CLASSES, images, small_net

ROUGH = eb.Recipe(
    weights=eb.Weights(bits=3), activations=eb.Activations(), bias_correction=False, equalize=False
)


def even_net() -> onnx.ModelProto:
    """The small net with a bias under which every class is named now and then."""
    proto = small_net()
    mean = eb.load(proto)(images(80, seed=1)).mean(axis=0)
    bias = next(t for t in proto.graph.initializer if t.name == "b3")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) - mean, "b3"))
    return proto


NAMES = ["<b>coat</b>", "shirt & tie", 'a "bag"', "boot", "dress"]


@pytest.fixture(scope="module")
def model() -> eb.Model:
    return eb.load(even_net())


@pytest.fixture(scope="module")
def q(model: eb.Model) -> eb.QuantizedModel:
    return eb.quantize(model, images(16), ROUGH)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return images(80, seed=1)


@pytest.fixture(scope="module")
def explanation(model, q, x) -> eb.Explanation:
    report = eb.compare(model, q, x, labels=np.arange(80) % CLASSES)
    return eb.explain(model, q, x, report, classes=NAMES, pictures=3)


def test_the_surest_answers_that_changed_are_looked_at(explanation, model, q, x):
    flips = explanation.comparison.answers.flips()
    assert len(flips) > 3
    leads = sorted((f.lead for f in flips), reverse=True)[:3]
    assert [p.flip.lead for p in explanation.pictures] == leads
    for found in explanation.pictures:
        np.testing.assert_array_equal(found.picture, as_picture(x[found.flip.index]))
        classes = (found.flip.float_class, found.flip.int8_class)
        np.testing.assert_array_equal(
            found.float_map, occlusion(model, x[found.flip.index], classes, patch=1)
        )
        assert -1 <= found.likeness <= 1
        np.testing.assert_array_equal(found.int8_map, occlusion(q, x[found.flip.index], classes, patch=1))


def test_spreads_come_from_the_samples_of_the_comparison(explanation):
    assert [h.name for h in explanation.histograms] == [row.name for row in explanation.comparison.layers]
    assert sum(explanation.histograms[0].after) == explanation.comparison.layer_samples * 3 * 8 * 8


def test_text_and_notebook_show_the_changed_answers(explanation):
    text = str(explanation)
    assert "Changed answers" in text
    assert "shirt & tie" in text
    assert "&lt;b&gt;coat&lt;/b&gt;" in explanation._repr_html_()


def test_without_a_comparison_one_is_made(model, q, x):
    assert eb.explain(model, q, x[:20], pictures=0).comparison == eb.compare(model, q, x[:20])


def test_a_picture_is_stretched_from_black_to_white():
    grey = as_picture(np.array([[[-1.0, 0.0], [0.5, 1.0]]]))
    np.testing.assert_array_equal(grey[..., 0], [[0, 128], [191, 255]])
    assert grey.shape == (2, 2, 3)
    colour = np.random.default_rng(0).random((3, 4, 5))
    np.testing.assert_array_equal(
        as_picture(colour), as_picture(np.moveaxis(colour, 0, -1), channels_last=True)
    )
    assert as_picture(np.ones((1, 2, 2))).max() == 0


# The page


@pytest.fixture(scope="module")
def page(explanation, tmp_path_factory) -> Path:
    return explanation.html(tmp_path_factory.mktemp("page") / "report.html")


def test_the_page_holds_everything_and_fetches_nothing(page, explanation):
    soup = BeautifulSoup(page.read_text(), "html.parser")
    assert [tag.name for tag in soup.select("script, link, iframe, object")] == []
    pictures = soup.select("img")
    for picture in pictures:
        assert len(picture["alt"].split()) >= 6
        head, data = picture["src"].split(",", 1)
        assert head == "data:image/svg+xml;base64"
        svg = b64decode(data).decode()
        assert svg.rstrip().endswith("</svg>")
        assert set(re.findall(r'(?:href|src)="(?!#|data:)([^"]*)"', svg)) == set()
    assert len(pictures) == 2 + 1 + 4 + 1 + 3  # layers, ranges, histograms, leads, pictures
    captions = [c.get_text() for c in soup.select("caption")]
    assert {"Changed answers", "Every tensor", "Tensors with the most noise"} <= set(captions)
    rows = next(t for t in soup.select("table") if t.caption.get_text() == "Every tensor").select("tbody tr")
    assert [r.td.get_text() for r in rows] == [row.name for row in explanation.comparison.layers]
    assert "no worse than 0.5 points" in soup.get_text()


def test_names_are_escaped(page):
    soup = BeautifulSoup(page.read_text(), "html.parser")
    assert soup.select("b") == []
    assert "<b>coat</b>" in soup.get_text()
    assert any("<b>coat</b>" in picture["alt"] for picture in soup.select("img"))


def test_the_page_is_the_same_each_time(page, explanation, tmp_path):
    assert explanation.html(tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_comparison_alone_makes_a_page_too(explanation, tmp_path):
    soup = BeautifulSoup(explanation.comparison.html(tmp_path / "c.html").read_text(), "html.parser")
    assert len(soup.select("img")) == 3
    assert soup.title.get_text() == "What int8 changed on 80 samples"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(page, scheme, tab):  # noqa: F811
    """Every picture is decoded and the text stands out from the paper, in either scheme."""
    tab.look(width=500, dark=scheme == "dark")
    tab.open(page.as_uri())
    seen = tab.run("""(() => {
      const style = getComputedStyle(document.body);
      return {text: style.color, paper: style.backgroundColor,
        widths: [...document.images].map(i => i.naturalWidth), overflow: document.body.scrollWidth - innerWidth};
    })()""")
    assert tab.complaints() == []
    assert all(width > 0 for width in seen["widths"])
    assert seen["overflow"] <= 0  # wide tables scroll by themselves
    text, paper = (np.mean([int(n) for n in re.findall(r"\d+", seen[k])[:3]]) for k in ("text", "paper"))
    assert (text - paper if scheme == "dark" else paper - text) > 150


# The logs


@pytest.fixture
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads with its own code and does not import TensorFlow, which takes seconds."""
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", ModuleType("notf"))


def read(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def scalars(events, tag: str) -> list[float]:
    from tensorboard.util.tensor_util import make_ndarray

    return [float(make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]


@pytest.mark.usefixtures("no_tensorflow")
def test_tensorboard_reads_back_ranges_histograms_errors_and_accuracy(explanation, tmp_path):
    from tensorboard.util.tensor_util import make_ndarray

    assert explanation.tensorboard(tmp_path / "logs") == tmp_path / "logs"
    first, second = (read(tmp_path / "logs" / run) for run in ("float", "int8"))
    report, histograms = explanation.comparison, explanation.histograms
    # The file keeps float32.
    assert scalars(first, "accuracy") == pytest.approx([report.accuracy.float_accuracy], rel=1e-7)
    assert scalars(second, "accuracy") == pytest.approx([report.accuracy.int8_accuracy], rel=1e-7)
    assert scalars(second, "agreement") == pytest.approx([report.agreement.value], rel=1e-7)
    assert scalars(second, "noise/sqnr_db") == pytest.approx([r.sqnr_db for r in report.layers], rel=1e-6)
    assert scalars(first, "range/highest") == pytest.approx([h.float_range[1] for h in histograms], rel=1e-6)
    assert scalars(second, "range/lowest") == pytest.approx([h.grid.limits[0] for h in histograms], rel=1e-6)
    assert [e.step for e in first.Tensors("range/highest")] == list(range(len(histograms)))
    for run, side in ((first, "before"), (second, "after")):
        for h in histograms:
            (event,) = run.Tensors(f"tensor/{h.name}")
            bins = make_ndarray(event.tensor_proto)
            assert bins.shape[1] == 3
            assert bins[:, 2].sum() == sum(h.after)
            assert set(getattr(h, side)) <= set(bins[:, 2])
            assert (bins[1:, 0] == bins[:-1, 1]).all()
    plugin = second.SummaryMetadata("tensor/image").plugin_data.plugin_name
    assert plugin == "histograms"
    assert b"Changed answers" in second.Tensors("report")[0].tensor_proto.string_val[0]


@pytest.mark.usefixtures("no_tensorflow")
def test_a_second_report_replaces_the_first(explanation, tmp_path):
    explanation.tensorboard(tmp_path)
    explanation.tensorboard(tmp_path)
    assert len(read(tmp_path / "int8").Tensors("agreement")) == 1


def test_without_tensorboard_the_extra_is_named(explanation, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(eb.MissingExtra, match=r"pip install 'eightbit\[tensorboard\]'"):
        explanation.tensorboard(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(explanation, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(eb.ExportError, match="taken"):
        explanation.tensorboard(tmp_path / "taken")


def test_the_logs_are_written_without_tensorflow(tmp_path):
    script = """
import sys, numpy as np, eightbit as eb
from tests.small_net import images, small_net
model = eb.load(small_net())
eb.explain(model, eb.quantize(model, images(4)), images(4, seed=1)).tensorboard(sys.argv[1])
print("tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    assert done.stderr == ""


# The command


def test_the_command_writes_both(tmp_path):
    onnx.save(even_net(), tmp_path / "net.onnx")
    eb.quantize(eb.load(even_net()), images(16), ROUGH).save(tmp_path / "q.onnx")
    np.savez(tmp_path / "test.npz", image=images(20, seed=1), labels=np.arange(20) % CLASSES)
    words = [
        "compare",
        str(tmp_path / "net.onnx"),
        str(tmp_path / "q.onnx"),
        "-d",
        str(tmp_path / "test.npz"),
    ]
    places = ["--html", str(tmp_path / "r.html"), "--tensorboard", str(tmp_path / "logs")]
    done = CliRunner().invoke(main, [*words, *places])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == CliRunner().invoke(main, words).stdout
    assert "Changed answers" in (tmp_path / "r.html").read_text()
    assert sorted(p.name for p in (tmp_path / "logs").iterdir()) == ["float", "int8"]
    refused = CliRunner().invoke(main, [*words, "--html", str(tmp_path / "absent" / "r.html")])
    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert "no directory" in refused.stderr
