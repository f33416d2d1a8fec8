"""A short run of scripts/fuzz.py, which damages files and uses them; and that it sees what it looks for."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import eightbit as eb
from eightbit.errors import CalibrationError, EngineError, LoadError, QuantizationError
from eightbit.graph.samples import npz_for
from eightbit.quant.choose.recipe_file import read_recipe
from tests.small_net import images, small_net

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_damaged_files_end_in_a_result_or_in_an_error_of_ours(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--models", "60", "--others", "60", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["ok", "typed", "untyped", "crash", "hang"]
    assert [row[0] for row in rows[1:]] == ["float", "int8", "weights", "archive", "recipe"]
    counts = np.array([[int(number) for number in row[1:]] for row in rows[1:]])
    assert counts.sum() == 120 and counts[:, 2:].sum() == 0
    assert (counts[:2, :2] > 1).all()  # the damage neither kills every model nor misses it
    assert not list(tmp_path.iterdir())


ANSWERS = """
import json, os, sys, time
for line in sys.stdin:
    word = json.loads(line)[0]
    if word == "die":
        os.kill(os.getpid(), 11)
    if word == "sleep":
        time.sleep(99)
    print(json.dumps(["ok", word]), flush=True)
"""


def test_a_child_that_dies_or_hangs_is_seen_and_started_anew(fuzz, tmp_path: Path) -> None:
    child = fuzz.Child(0.5, 1, [sys.executable, "-c", ANSWERS])
    words = ("one", "die", "two", "sleep", "three")
    found = [child.use(word, tmp_path, tmp_path) for word in words]
    child.end()
    assert [kind for kind, _ in found] == ["ok", "crash", "ok", "hang", "ok"]
    assert found[1] == ("crash", "exit status -11")


def test_what_is_no_error_of_ours_is_untyped(fuzz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cause, kind in ((ValueError("odd"), "untyped"), (LoadError("odd"), "typed")):

        def use(*_: object, cause: Exception = cause) -> None:
            raise cause

        monkeypatch.setattr(fuzz, "use", use)
        found, words = fuzz.outcome("float", tmp_path, tmp_path)
        assert found == kind and "odd" in words


def test_a_case_is_made_of_its_number_and_the_seed(fuzz) -> None:
    sound = {"recipe": [(0, b"[weights]\nbits = 8\n")]}
    cases = [fuzz.case(sound, "recipe", number, seed)[1] for number in range(4) for seed in (0, 0, 1)]
    assert cases[::3] == cases[1::3]
    assert len(set(cases)) > 4


@pytest.mark.parametrize("name", ["n" * 300, "nul\0byte", "", "folder", "none/none", "a file/below a file"])
def test_a_path_that_is_no_file_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a file").write_bytes(b"")
    path = tmp_path / name
    model = eb.load(small_net())
    q = eb.quantize(model, images(4), eb.Recipe.plain())
    for error, read in (
        (LoadError, lambda: eb.load(path)),
        (LoadError, lambda: eb.open(path)),
        (LoadError, lambda: eb.inspect(path)),
        (LoadError, lambda: eb.load_weights(model, path)),
        (QuantizationError, lambda: read_recipe(path)),
        (CalibrationError, lambda: npz_for(model.ir, path, CalibrationError)),
        (eb.ExportError, lambda: q.save(path)),
        (eb.ExportError, lambda: eb.save_weights(q, path)),
    ):
        with pytest.raises(error) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_five_thousand_brackets_are_no_recipe(tmp_path: Path) -> None:
    for text in ("x = " + "[" * 5000, "x = " + "{a = " * 3000, "x = " + "9" * 9000):
        (tmp_path / "r.toml").write_text(text)
        with pytest.raises(QuantizationError, match=r"r\.toml"):
            read_recipe(tmp_path / "r.toml")


def test_tensors_that_do_not_fit_an_operation_are_an_error_of_the_engine() -> None:
    """The file says nothing of inner shapes: only running it shows what does not fit."""
    q = eb.quantize(small_net(), images(4), eb.Recipe.plain())
    op = next(op for op in q.program.ops if type(op).__name__ == "Gemm")
    object.__setattr__(op, "weight", op.weight[:-1])
    with pytest.raises(EngineError, match=rf"{op.name}"):
        q.run(images(2), engine="numpy")
