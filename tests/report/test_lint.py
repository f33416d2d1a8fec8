"""Lint's predictions hold: each of its findings happens, and what it does not name does not happen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import eightbit as eb
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.cli import main
from eightbit.deploy.c.folder import network
from eightbit.deploy.engines import Engine
from eightbit.deploy.sessions import run_island
from eightbit.integer.engine import run
from eightbit.report.lint import TARGETS
from tests.deploy.programs import differing
from tests.report.lint_graphs import CASES, Case, Feeds
from tests.report.lint_happens import in_float
from tests.small_net import images, small_net

ROOT = Path(__file__).parents[2]
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@cache
def made(case: Case) -> tuple[eb.QuantizedModel, Feeds]:
    return case.build()


def named(report: eb.Lint, kind: str) -> set[str]:
    return {finding.node for finding in report.findings if finding.kind == kind}


def test_there_are_graphs_of_every_kind() -> None:
    assert len(CASES) >= 40 and len({case.name for case in CASES}) == len(CASES)
    for which in (lambda c: c.saturates, lambda c: c.floats, lambda c: c.refused):
        assert 8 <= sum(map(bool, map(which, CASES))) <= len(CASES) - 8


@by_name
def test_what_falls_back_to_float_is_what_onnx_runtime_leaves_in_float(case: Case) -> None:
    q, _ = made(case)
    for target in ("x86-vnni", "x86-avx2", "arm"):
        report = eb.lint(q, target)
        assert named(report, "float") == case.floats
        assert all(f.reason and f.remedy for f in report.findings)
    assert in_float(q, "arm") == case.floats


@by_name
def test_what_c_refuses_is_refused(case: Case, tmp_path: Path) -> None:
    q, _ = made(case)
    report = eb.lint(q, "cortex-m")
    assert named(report, "refused") == case.refused
    if case.refused:
        with pytest.raises(eb.ExportError):
            eb.export(q, tmp_path / "c")
        assert report.arena is None and all(f.reason and f.remedy for f in report.findings)
        return
    assert network(q.program, Arithmetic.TFLITE).arena.size == report.arena


def test_what_c_does_not_refuse_gives_the_right_integers(cc: str) -> None:
    programs = [made(case)[0].program for case in CASES if not case.refused]
    assert not differing(programs, Arithmetic.TFLITE, flags=("-O0",))


@by_name
@pytest.mark.parametrize(("target", "name"), [("tflite", "litert"), ("tflm", "tflm")])
def test_what_tflite_refuses_is_refused_and_the_rest_runs(
    target: str, name: str, case: Case, engine: Callable[[str], Engine]
) -> None:
    """TFLite Micro refuses what C refuses, and gives the integers of the NumPy engine; LiteRT's file holds float
    operators for exactly the nodes that lint says.
    """
    (q, feeds), report = made(case), eb.lint(made(case)[0], target)
    lite = target == "tflite"
    assert named(report, "refused") == case.named("refused", target)
    assert named(report, "float") == case.named("float", target)
    assert all(f.reason and f.remedy for f in report.findings)
    if named(report, "refused"):
        with pytest.raises(eb.EngineError, match="cannot run this"):
            engine(name).start(q, engine(name).chosen(None), 1)
        return
    found = engine(name).start(q, engine(name).chosen(None), 1).run(feeds)
    for key, array in run(q.program, feeds, arithmetic=Arithmetic.TFLITE, island=run_island).items():
        assert found[key].shape == array.shape
        if not lite:
            np.testing.assert_array_equal(found[key], array)
    if lite:
        assert in_float(q, target) == case.lite_floats


def test_what_saturates_is_read_off_the_weights() -> None:
    found = {case.name: named(eb.lint(made(case)[0], "x86-avx2"), "saturates") for case in CASES}
    assert found == {case.name: case.saturates for case in CASES}
    assert not any(
        named(eb.lint(made(case)[0], target), "saturates")
        for case in CASES[:4]
        for target in ("arm", "x86-vnni")
    )


@pytest.mark.slow
@pytest.mark.emulator
def test_what_saturates_is_what_saturates_on_haswell(emulator: str) -> None:
    """In a session that asks for nothing, on a processor with AVX2 and no VNNI."""
    command = [emulator, "-cpu", "Haswell", sys.executable, "-m", "tests.report.lint_emulated"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {case.name: sorted(case.saturates) for case in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m4"])
def test_arena_and_flash_are_what_the_compiler_counts(
    core: str, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """The arena exactly; flash from above, by less than the room that is left for code."""
    q = eb.quantize(small_net(), images(16))
    report = eb.lint(q, "cortex-m")
    eb.export(q, tmp_path)
    command = [tool("arm-none-eabi-gcc"), f"-mcpu={core}", "-mthumb", "-Os", "-std=c99", "-c", "net.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    counted = subprocess.run(
        [tool("arm-none-eabi-size"), "net.o"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    text, _, bss = map(int, counted.stdout.splitlines()[1].split()[:3])
    assert report.arena is not None and report.flash is not None
    assert report.arena <= bss < report.arena + 4
    assert text <= report.flash <= text + 4096


def highest(q: eb.QuantizedModel) -> str:
    """The operation whose output ends where the arena ends."""
    arena = network(q.program, Arithmetic.TFLITE).arena
    (top,) = (b.name for b in arena.buffers if arena.offsets[b.name] + b.size == arena.size)
    return next(op.name for op in q.program.ops if top in op.outputs)


def test_budgets() -> None:
    q = eb.quantize(small_net(), images(16))
    fits = eb.lint(q, "cortex-m")
    assert fits.clean and fits.arena is not None and fits.flash is not None
    assert eb.lint(q, "cortex-m", arena=fits.arena, flash=fits.flash).clean
    tight = eb.lint(q, "cortex-m", arena=fits.arena - 1, flash=fits.flash - 1)
    assert [f.reason for f in tight.findings] == [
        f"arena: {fits.arena:,} bytes of {fits.arena - 1:,}",
        f"flash: {fits.flash:,} bytes of {fits.flash - 1:,}",
    ]
    with pytest.raises(
        eb.EngineError, match="the target 'arm' has no budget of arena and flash; 'cortex-m' has"
    ):
        eb.lint(q, "arm", flash=1)
    with pytest.raises(eb.EngineError, match="unknown target 'avr'; choose 'x86-vnni'"):
        eb.lint(q, "avr")


def test_the_report_prints_and_the_command_says_by_its_status(tmp_path: Path) -> None:
    (case,) = (c for c in CASES if c.name == "a norm")
    q, _ = made(case)
    q.save(tmp_path / "q.onnx")
    for target in TARGETS:
        report = eb.lint(q, target)
        words = ["lint", str(tmp_path / "q.onnx"), "--target", target]
        shown = CliRunner().invoke(main, words)
        assert TARGETS[target].title in shown.stdout and " t " in shown.stdout
        assert shown.exit_code == 1 and "finding" in shown.stderr
        again = CliRunner().invoke(main, [*words, "--json"])
        assert json.loads(again.stdout)["findings"][0]["node"] == "t"
        assert "<table>" in report._repr_html_() and json.dumps(report.to_dict())
    eb.quantize(small_net(), images(16)).save(tmp_path / "fine.onnx")
    words = ["lint", str(tmp_path / "fine.onnx"), "--target", "cortex-m"]
    assert "no findings" in CliRunner().invoke(main, words).stdout
    assert CliRunner().invoke(main, words).exit_code == 0
    over = CliRunner().invoke(main, [*words, "--arena", "10"])
    assert over.exit_code == 1 and "arena" in over.stdout
