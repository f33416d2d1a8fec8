"""The certificate says of every engine what a recount says, and an engine that computes something else fails it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner
from onnx import helper

import eightbit as eb
from eightbit import plot
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.cli import main
from eightbit.deploy.engines import ENGINES, Engine, installed
from eightbit.deploy.exposed import exposed
from eightbit.deploy.sessions import integer_tensors
from eightbit.integer.engine import run
from tests.small_net import images, small_net

mpl.use("Agg")
import matplotlib.pyplot as plt

ROWS = 24


@pytest.fixture(scope="module")
def q() -> eb.QuantizedModel:
    return eb.quantize(small_net(), images(32), eb.Recipe.plain())


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return images(ROWS, seed=3)


@pytest.fixture(scope="module")
def found(q: eb.QuantizedModel, x: np.ndarray) -> eb.Certificate:
    return eb.certify(q, x)


def test_every_arithmetic_of_every_installed_engine_is_there(found: eb.Certificate) -> None:
    wanted = [(e.name, a.value if a else None) for e in installed() for a in e.arithmetics or (None,)]
    assert [(row.engine, row.arithmetic) for row in found.engines] == wanted
    assert {name for name, _ in found.left_out} == {*ENGINES} - {e.name for e in installed()}
    assert found.holds and all(
        row.exact is (None if row.arithmetic is None else True) for row in found.engines
    )
    assert all(0 <= row.same_answers <= row.answers == ROWS for row in found.engines)


@pytest.mark.parametrize("arithmetic", [Arithmetic.TFLITE, Arithmetic.SINGLE])
def test_the_counts_are_those_of_a_recount(
    found: eb.Certificate, q: eb.QuantizedModel, x: np.ndarray, arithmetic: Arithmetic
) -> None:
    """All samples at once, ONNX arithmetic by ONNX Runtime."""
    right = integer_tensors(q.ir, {"image": x})
    here = run(q.program, {"image": x}, arithmetic=arithmetic, keep=True)
    (row,) = (r for r in found.engines if (r.engine, r.arithmetic) == ("numpy", arithmetic.value))
    assert [t.tensor for t in row.onnx] == [*right]
    for tensor in row.onnx:
        off = np.abs(here[tensor.tensor].astype(int) - right[tensor.tensor])
        assert tensor.counts == (*(int((off == size).sum()) for size in range(3)), int((off > 2).sum()))
        assert tensor.most == off.max() and tensor.integers == off.size
    assert arithmetic is Arithmetic.SINGLE or any(tensor.differing for tensor in row.onnx)
    assert sum(row.shares()) == pytest.approx(1)


def test_outputs_are_added_and_nothing_else_changes(q: eb.QuantizedModel, x: np.ndarray) -> None:
    program, shown = exposed(q.program)
    assert program.ops[: len(q.program.ops)] == q.program.ops
    assert sorted(shown.values()) == sorted(q.program.tensors)
    expected = run(q.program, {"image": x}, keep=True)
    for output, array in run(program, {"image": x}).items():
        info = q.program.tensors[shown[output]]
        codes = expected[shown[output]].astype(np.float32) - np.float32(info.zero_point)
        np.testing.assert_array_equal(array, codes * info.scale)


class _Wrong:
    """ONNX Runtime, but for one code of one tensor."""

    def __init__(self, q: eb.QuantizedModel) -> None:
        self._right = ENGINES["onnxruntime"].start_layers(q, None)  # type: ignore[misc]

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        codes = {name: array.copy() for name, array in self._right.run(feeds).items()}
        codes["r1_q"][0, 0, 0, 0] ^= 1
        return codes


def with_engine(monkeypatch: pytest.MonkeyPatch, **changes: object) -> Engine:
    made = replace(ENGINES["onnxruntime"], name="other", title="Other", **changes)  # type: ignore[arg-type]
    monkeypatch.setitem(ENGINES, "other", made)  # type: ignore[arg-type]
    return made


def test_one_wrong_code_a_sample_is_found(
    q: eb.QuantizedModel, x: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_engine(monkeypatch, start_layers=lambda model, arithmetic: _Wrong(model))
    certificate = eb.certify(q, x)
    assert not certificate.holds
    (row,) = (r for r in certificate.engines if r.engine == "other")
    assert row.exact is False and {t.tensor: t.differing for t in row.own if t.differing} == {"r1_q": ROWS}
    assert re.search(rf"other \(onnx\) +r1_q +Conv +{ROWS} of ", str(certificate))
    q.save(tmp_path / "q.onnx")
    np.savez(tmp_path / "x.npz", image=x)
    result = CliRunner().invoke(main, ["certify", str(tmp_path / "q.onnx"), "-d", str(tmp_path / "x.npz")])
    assert result.exit_code == 1 and "other (onnx): not the integers" in result.stderr


def test_an_engine_that_shows_outputs_alone_is_compared_there(
    q: eb.QuantizedModel, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_engine(monkeypatch, start_layers=None)
    (row,) = (r for r in eb.certify(q, x, most=5).engines if r.engine == "other")
    assert not row.every_tensor and row.exact is True
    assert [(t.tensor, t.integers) for t in row.own] == [("logits_q", 25)]


def test_what_cannot_run_is_left_out_with_the_reason() -> None:
    norm = helper.make_node("LpNormalization", ["f"], ["t"], name="norm", axis=1)
    certificate = eb.certify(eb.quantize(small_net(norm), images(16), eb.Recipe.plain()), images(3))
    reasons = dict(certificate.left_out)
    assert "norm: it computes in float" in reasons["native (tflite)"] and certificate.holds
    assert {"onnxruntime", "numpy"} <= {row.engine for row in certificate.engines}
    assert "norm" in str(certificate)


def test_no_samples(q: eb.QuantizedModel) -> None:
    with pytest.raises(eb.EngineError, match="most=0: give at least one sample"):
        eb.certify(q, images(2), most=0)
    with pytest.raises(eb.EngineError):
        eb.certify(q, [])


def test_files_page_and_json(
    found: eb.Certificate, q: eb.QuantizedModel, x: np.ndarray, tmp_path: Path
) -> None:
    """The command writes what the call gives; the page needs nothing else, and holds each engine and each figure."""
    q.save(tmp_path / "q.onnx")
    np.savez(tmp_path / "x.npz", image=x)
    places = {name: tmp_path / f"c.{name}" for name in ("html", "json")}
    words = ["certify", str(tmp_path / "q.onnx"), "-d", str(tmp_path / "x.npz")]
    for name, place in places.items():
        words += [f"--{name}", str(place)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{found}\n"
    assert json.loads(places["json"].read_text()) == json.loads(json.dumps(found.to_dict()))
    page = BeautifulSoup(places["html"].read_text(), "html.parser")
    assert not page.find_all("script") and not page.find_all(src=re.compile("^http"))
    assert len(page.find_all("img", alt=True)) == 2
    cells = [cell.get_text() for cell in page.find_all("td")]
    assert {row.title for row in found.engines} <= {*cells} and "c2_q" in cells
    few = CliRunner().invoke(main, [*words[:4], "--samples", "2"])
    assert "2 samples." in few.stdout


def test_figures_show_the_shares(found: eb.Certificate) -> None:
    ax = plot.parity(found.engines)
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1  # no bar is below it
    heights = np.array([[bar.get_height() for bar in group] for group in ax.containers]).T
    np.testing.assert_allclose(heights, [row.shares()[1:] for row in found.engines])
    lines = {line.get_label(): line.get_ydata() for line in plot.parity_by_layer(found.engines).lines}
    for row in found.engines:
        shares = [t.differing / t.integers for t in row.onnx]
        assert (row.title in lines) == any(shares)
        if any(shares):
            np.testing.assert_allclose(lines[row.title], shares)
    plt.close("all")
