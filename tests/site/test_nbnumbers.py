"""The plugin in a pytest of its own, on small notebooks with a real kernel: what passes, what fails, the count."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

pytest_plugins = "pytester"

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

Run = Callable[..., pytest.RunResult]


def stream(text: str) -> Any:
    return nbformat.v4.new_output("stream", name="stdout", text=text)


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs cells (source, text or outputs of the page, tags) under nbval and the plugin."""

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))

    def test_cells(*cells: tuple[str, str | list[Any], list[str]]) -> pytest.RunResult:
        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": ""}})
        for count, (source, page, tags) in enumerate(cells, start=1):
            if isinstance(page, str):
                page = [stream(page)] if page else []
            metadata = {"tags": tags}
            cell = nbformat.v4.new_code_cell(source, outputs=page, execution_count=count, metadata=metadata)
            notebook.cells.append(cell)
        nbformat.write(notebook, pytester.path / "page.ipynb")
        # In a process of its own: the kernel's client leaves files open, which later tests would be blamed for.
        return pytester.runpytest_subprocess("--nbval", "-p", "tests.site.nbnumbers", "page.ipynb")

    return test_cells


def test_numbers_within_their_tolerance_pass_and_are_counted(run: Run):
    result = run(
        ("print('a 1.52 of 7')", "a 1.50 of 7\n", ["atol=0.02"]),
        (
            "print('b  9.98 dB'); print(f'c {10.02:5.2f}')",
            "c  9.99\nb 10.00 dB\n",
            ["atol=0.05", "any-order"],
        ),
        ("print('8 bits'); 0.25", "8 bits\n", ["nbval-ignore-output"]),
        ("print(f'in {7 / 3:.3f} ms')", "in 15.250 ms\n", ["times"]),
        ("print(2**10, flush=True); print(7)", [stream("1024\n"), stream("7\n")], []),
    )
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(
        [
            "printed numbers: 6 compared (3 equal, 3 within the tolerance of their cell), 1 times of a machine, *"
        ]
    )


DIFFERENCES = [
    (
        "print('1.53 of 7')",
        "1.50 of 7\n",
        ["atol=0.02"],
        "the page says 1.50 of, the new run 1.53; allowed: 0.02",
    ),
    ("print('1.50 of 8')", "1.50 of 7\n", ["atol=0.02"], "the page says 7, the new run 8; allowed: nothing"),
    ("print('1.51')", "1.50\n", [], "the page says 1.50, the new run 1.51; allowed: nothing"),
    ("print('1.50 kB')", "1.50 MB\n", ["atol=0.02"], "the text between the numbers differs"),
    ("print('3 s')", "3 ms\n", ["times"], "the text between the numbers differs"),
    ("print('3 ms')", "", ["times"], "Unexpected output fields"),
    ("1", "1\n", [], "Missing output fields"),
]


def test_one_difference_too_many_fails_and_is_named(run: Run):
    result = run(*(cell[:3] for cell in DIFFERENCES))
    result.assert_outcomes(failed=len(DIFFERENCES))
    result.stdout.fnmatch_lines_random([f"*{said}*" for *_, said in DIFFERENCES])
    result.stdout.no_fnmatch_line("printed numbers:*")


def test_a_tag_that_cannot_be_read_stops_the_collection(run: Run):
    result = run(("print(1)", "1\n", ["rtol=2"]))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*cell 0, tag rtol=2: a relative tolerance of 1 and more accepts nearly everything*"]
    )


def test_tables_in_html_are_compared_too(run: Run):
    data = {"text/html": "<td>1.50</td>", "text/plain": "<IPython.core.display.HTML object>"}
    page = [nbformat.v4.new_output("display_data", data)]
    show = "from IPython.display import HTML, display; display(HTML('<td>{}</td>'))"
    result = run((show.format("1.51"), page, ["atol=0.02"]), (show.format("1.53"), page, ["atol=0.02"]))
    result.assert_outcomes(passed=1, failed=1)


def test_the_size_of_a_figure_may_change_and_a_figure_must_stay(run: Run):
    page = [nbformat.v4.new_output("display_data", {"image/png": "", "text/plain": "<Figure size 1x1>"})]
    draw = "import matplotlib.pyplot as plt; plt.subplots(); plt.show()"
    result = run((draw, page, []), ("None", page, []), (draw, [], []))
    result.assert_outcomes(passed=1, failed=2)


@pytest.mark.parametrize("ci", ["", "true"])
def test_a_cell_without_the_tool_it_needs_is_run_and_not_compared(
    run: Run, monkeypatch: pytest.MonkeyPatch, ci: str
):
    monkeypatch.setenv("CI", ci)
    result = run(
        ("a = 1; print('not here')", "1.50\n", ["needs=nosuchtool"]),
        ("print(a)", "1\n", ["needs=numpy"]),
        ("print(2)", "3\n", ["needs=python3"]),
    )
    result.assert_outcomes(passed=1, failed=1 + bool(ci), skipped=1 - bool(ci))
    result.stdout.fnmatch_lines(["printed numbers: 1 compared (1 equal, *"])
