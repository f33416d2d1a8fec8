"""Each picture shows the numbers it was given: the tests read them back from the Axes."""

import sys
from base64 import b64decode
from io import BytesIO

import matplotlib as mpl
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

import eightbit as eb
from eightbit import plot
from eightbit.arith.affine import INT4, UINT8, dequantize, params_from_range, quantize
from tests.small_net import images, small_net

mpl.use("Agg")
import matplotlib.pyplot as plt

NOTEBOOK = (
    "import matplotlib.pyplot as plt\nfrom eightbit import plot",
    "with plot.style():\n    plt.subplots()\n    plt.show()",
    "with plot.style(fine=False):\n    plt.subplots()\n    plt.show()",
    "%config InlineBackend.figure_formats = ['svg']\nwith plot.style():\n    plt.subplots()\n    plt.show()",
)


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=5000).astype(np.float32)


def test_histogram_holds_every_value_and_says_what_is_clipped(x):
    params = params_from_range(-1.0, 1.0, INT4)
    ax = plot.histogram_with_grid(x, params, bins=50)
    assert sum(p.get_height() for p in ax.patches[:50]) == len(x)
    ticks = next(line for line in ax.lines if line.get_marker() == "|")
    np.testing.assert_array_equal(ticks.get_xdata(), plot.grid_points(params))
    edges = plot.grid_points(params)[[0, -1]] + np.array([-0.5, 0.5]) * float(params.scale)
    clipped = np.mean((x < edges[0]) | (x > edges[1]))
    assert f"{clipped:.2%} clipped" in ax.get_title()
    assert 0.2 < clipped < 0.4


def test_the_grid_is_thinned_but_never_beyond_its_ends(x):
    ticks = plot.histogram_with_grid(x, params_from_range(-1.0, 1.0, UINT8)).lines[0]
    assert len(ticks.get_xdata()) <= plot.MOST_TICKS


def test_grid_points_are_the_dequantized_codes():
    params = params_from_range(-1.0, 3.0, INT4)
    np.testing.assert_array_equal(
        plot.grid_points(params), dequantize(np.arange(-8, 8).astype(np.int8), params)
    )
    with pytest.raises(eb.QuantizationError, match="one channel"):
        plot.grid_points(params_from_range(np.zeros(2), np.ones(2), UINT8, axis=0))


def test_codes_are_counted(x):
    params = params_from_range(-2.0, 2.0, INT4)
    ax = plot.codes(x, params)
    counts = [int(p.get_height()) for p in ax.patches]
    q = quantize(x, params)
    assert counts == [int((q == code).sum()) for code in range(-8, 8)]
    assert ax.get_title() == f"{len(np.unique(q))} of 16 codes in use"


def test_the_error_stays_within_half_a_step_inside_the_range(x):
    params = params_from_range(float(x.min()), float(x.max()), UINT8)
    points = plot.quantization_error(x, params).lines[0]
    values, error = points.get_xdata(), points.get_ydata()
    np.testing.assert_array_equal(values, np.sort(x))
    # Half a step, and the float32 rounding of value / scale (2**-24 of at most 255 steps).
    assert np.abs(error).max() <= float(params.scale) * (0.5 + 255 * 2**-23)
    assert np.abs(error).max() > 0.4 * float(params.scale)


@pytest.mark.parametrize("axis", [0, 1])
def test_weight_ranges_are_the_channels_extremes(axis):
    w = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32) * np.arange(1, 7)
    bars = plot.weight_ranges(w, axis=axis).patches[: w.shape[axis]]
    other = 1 - axis
    found = sorted((round(b.get_y(), 5), round(b.get_y() + b.get_height(), 5)) for b in bars)
    wanted = sorted(
        zip(w.min(axis=other).round(5).tolist(), w.max(axis=other).round(5).tolist(), strict=True)
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)  # both sides were rounded to 5 decimals
    widths = [max(abs(b.get_y()), abs(b.get_y() + b.get_height())) for b in bars]
    assert widths == sorted(widths, reverse=True)


def test_layer_sqnr_draws_the_comparison_in_order():
    model = eb.load(small_net())
    report = eb.compare(model, eb.quantize(model, images(8)), images(4, seed=1))
    ax = report.plot()
    assert ax.lines[0].get_ydata().tolist() == [row.sqnr_db for row in report.layers]
    worst = sorted(report.layers, key=lambda row: row.sqnr_db)[:3]
    assert {t.get_text() for t in ax.texts} == {row.name for row in worst}


def test_sqnr_by_bits_and_its_slope():
    ax = plot.sqnr_by_bits({"normal": {4: 20.0, 8: 44.0}})
    assert ax.lines[0].get_ydata().tolist() == [20.0, 44.0]
    assert np.diff(ax.lines[1].get_ydata())[0] == pytest.approx(4 * 6.0206, abs=1e-3)


def test_differences_are_counted_and_gathered_at_the_ends():
    a, b = np.array([0, 1, 5, -9, 3]), np.array([0, 0, 5, 0, 3])
    ax = plot.difference_histogram(a, b, most=2)
    assert [int(p.get_height()) for p in ax.patches] == [1, 0, 3, 1, 0]
    assert ax.get_title() == "2 of 5 codes differ"
    with pytest.raises(eb.QuantizationError, match="shapes"):
        plot.difference_histogram(a, b[:2])


def test_a_given_axes_is_used_and_returned(x):
    _, ax = plt.subplots()
    params = params_from_range(-1.0, 1.0, UINT8)
    assert plot.codes(x, params, ax=ax) is ax
    assert plot.histogram_with_grid(x, params, ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_style_lasts_as_long_as_its_block():
    before = mpl.rcParams["axes.spines.top"]
    with plot.style(**{"font.size": 20}):
        assert mpl.rcParams["axes.spines.top"] is False
        assert mpl.rcParams["font.size"] == 20
        assert mpl.rcParams["figure.facecolor"] == "white"
    assert mpl.rcParams["axes.spines.top"] == before


def test_a_notebooks_figures_have_two_pixels_where_the_page_has_one():
    """In a kernel of its own: the picture, and beside it the size that pages give it."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in NOTEBOOK])
    ran = NotebookClient(notebook, kernel_name="python3", timeout=300).execute()
    pictures = [
        output for cell in ran.cells for output in cell.outputs if "image/png" in output.get("data", {})
    ]
    fine, coarse = (Image.open(BytesIO(b64decode(picture["data"]["image/png"]))).size for picture in pictures)
    assert pictures[0]["metadata"]["image/png"] == {"width": fine[0] // 2, "height": fine[1] // 2}
    assert fine[0] == pytest.approx(2 * coarse[0], abs=2)  # a photograph's pixels are its own
    chosen = ran.cells[-1].outputs[0]["data"]
    assert "image/svg+xml" in chosen and "image/png" not in chosen  # what a notebook has chosen holds


def test_values_that_cannot_be_drawn_are_named():
    with pytest.raises(eb.QuantizationError, match="finite"):
        plot.histogram_with_grid([1.0, np.nan], params_from_range(-1.0, 1.0, UINT8))


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(eb.MissingExtra, match=r"pip install 'eightbit\[plot\]'"):
        plot.style()
