"""The labs as a reader runs them: every test fails on what the reader is given, and passes on the solution."""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.site.notebooks import COLUMNS

ROOT = Path(__file__).parents[2]
SOLUTIONS = Path(__file__).parent / "solutions"


def outcomes(folder: Path) -> dict[str, list[str]]:
    """The labs' tests in a copy of the project's folder `labs`, by outcome."""
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "labs", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
    found: dict[str, list[str]] = {"passed": [], "failure": [], "error": [], "skipped": []}
    for case in ElementTree.parse(report).iter("testcase"):
        kind = case[0].tag if len(case) else "passed"
        found[kind].append(f"{case.get('classname')}.{case.get('name')}")
    return found


@pytest.fixture
def labs(tmp_path: Path) -> Path:
    """A folder with the labs and the project's settings of pytest."""
    shutil.copytree(ROOT / "labs", tmp_path / "labs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.slow
def test_no_test_of_a_lab_passes_before_its_work_is_done(labs: Path):
    found = outcomes(labs)
    assert (found["passed"], found["error"], found["skipped"]) == ([], [], [])
    assert {name.split(".")[1] for name in found["failure"]} == {p.name for p in SOLUTIONS.iterdir()}


@pytest.mark.slow
def test_the_solutions_pass(labs: Path):
    shutil.copytree(SOLUTIONS, labs / "labs", dirs_exist_ok=True)
    found = outcomes(labs)
    assert (found["failure"], found["error"], found["skipped"]) == ([], [], [])
    assert len(found["passed"]) > 20


def test_each_starter_has_a_solution_and_a_page():
    starters = {p.relative_to(ROOT / "labs") for p in (ROOT / "labs").glob("*/[!t_]*.py")}
    assert starters == {p.relative_to(SOLUTIONS) for p in SOLUTIONS.glob("*/*.py")}
    for starter in starters:
        page = (ROOT / "book" / "labs" / f"{starter.parent}.md").read_text()
        assert f"labs/{starter}" in page and f"pytest labs/{starter.parent}" in page


def test_the_pages_show_each_starter_in_full_width():
    wide = [
        f"{starter}: {line}"
        for starter in (ROOT / "labs").glob("*/[!t_]*.py")
        for line in starter.read_text().splitlines()
        if len(line) > COLUMNS
    ]
    assert not wide, "\n".join(wide)
