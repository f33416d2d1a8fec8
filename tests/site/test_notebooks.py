"""The chapters themselves, as committed: executed from top to bottom, described, complete."""

import copy
import json
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pybtex.database import parse_file

from scripts.diagrams import FOLDER, diagrams, drawings
from tests.site.nbnumbers import summary
from tests.site.notebooks import UNCOMPARED, code_lines, faults, printed, source, tags
from tests.site.numbers import Tolerance, counted, split

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "book").rglob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_is_executed_described_and_complete(path: Path):
    assert faults(json.loads(path.read_text())) == []


def test_every_printed_number_is_compared_or_a_time(capsys: pytest.CaptureFixture[str]):
    """`faults` finds a number that is neither; here they are counted, and shown where pytest runs in one process."""
    cells = [cell for path in CHAPTERS for cell in json.loads(path.read_text())["cells"] if "outputs" in cell]
    assert [cell for cell in cells if UNCOMPARED.search(" ".join([*tags(cell), source(cell)]))] == []
    counts = sum((counted(printed(cell), Tolerance.of(tags(cell))) for cell in cells), Counter())
    with capsys.disabled():
        print(f"\n{summary(counts)}")
    numbers = sum(len(split(printed(cell))[1]) for cell in cells)
    assert counts.total() == numbers > 1000
    assert counts["times"] < 0.04 * numbers  # were they many, something else would hide among them
    assert counts["equal"] > 0.5 * numbers


def test_every_chapter_is_in_the_contents_in_order():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = re.findall(r"book/\d\d[a-z]?_\w+", json.dumps(contents))
    assert listed == [f"book/{path.stem}" for path in CHAPTERS]


def test_every_diagram_is_drawn():
    """Only pictures show in the PDF, and on a page that is opened from a file; scripts/diagrams.py draws them."""
    wanted = {file for code in diagrams() for file in drawings(code).values()}
    assert wanted == set(FOLDER.glob("*.svg"))


TUTORIAL_LINES = 68
"""Code lines of the program that tutorials print: ResNet-50 in TensorFlow with a new head, trained, quantized by two
functions that no library has, evaluated by two that it does not define. Ours runs, and must not be longer."""


def test_what_is_cited_is_in_the_bibliography_and_what_is_in_it_is_cited():
    """A brace too few ends the build of the whole site."""
    listed = set(parse_file(ROOT / "book/references.bib").entries)
    pages = [*CHAPTERS, *(ROOT / "book").glob("*.md")]
    groups = (group for page in pages for group in re.findall(r"{cite(?::\w+)?}`([^`]+)`", page.read_text()))
    cited = {key.strip() for group in groups for key in group.split(",")}
    assert cited - listed == set()
    assert listed - cited == set()
    assert len(cited) > 30


@pytest.mark.parametrize("stem", ["08a_resnet50_tensorflow", "08b_resnet50_pytorch"])
def test_the_whole_program_is_one_cell_no_longer_than_what_tutorials_print(stem: str):
    cells = json.loads((ROOT / "book" / f"{stem}.ipynb").read_text())["cells"]
    (program,) = (cell for cell in cells if "whole-program" in tags(cell))
    assert "hide-input" not in tags(program)
    lines = code_lines(program)
    for step in ("datasets.", "zoo.load", "eb.load(", "eb.quantize(", "eb.compare(", "assert "):
        assert any(step in line for line in lines), step
    assert len(lines) <= TUTORIAL_LINES


def test_lines_of_code_are_counted_without_comments_and_blanks():
    assert code_lines(code("# why\n\nx = 1  # one\n  \n    # no\nprint(x)\n", 1)) == [
        "x = 1  # one",
        "print(x)",
    ]


def code(text: str, count: int | None, *outputs: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "source": text,
        "execution_count": count,
        "outputs": list(outputs),
        "metadata": metadata,
    }


def picture(pixels: int, on_page: int | None = None) -> dict[str, Any]:
    """The output of a figure: the first bytes of a PNG of that width, and its width on the page if that is another."""
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + pixels.to_bytes(4, "big") + bytes(16)
    metadata = {} if on_page is None else {"image/png": {"width": on_page, "height": 9}}
    data = {"image/png": b64encode(png).decode()}
    return {"output_type": "display_data", "data": data, "metadata": metadata}


PICTURE = picture(1345, 672)
ALT = {"image": {"alt": "A straight line rising to the right"}}
EXERCISES = """# Title

## Exercises

```{exercise}
:label: one
Why?
```

```{solution} one
:class: dropdown
Because.
```

## Summary
"""


def good() -> dict[str, Any]:
    return {
        "metadata": {"kernelspec": {"name": "python3"}},
        "cells": [
            code("plot()", 1, PICTURE, mystnb=ALT),
            code("2", 2, {"output_type": "execute_result", "data": {"text/plain": ["2"]}}),
            {"cell_type": "markdown", "source": EXERCISES, "metadata": {}},
        ],
    }


def first(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda notebook: change(notebook["cells"][0])


def second(**change: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda notebook: notebook["cells"][1].update(change)


def text(old: str, new: str) -> Callable[[dict[str, Any]], Any]:
    return lambda notebook: notebook["cells"][2].update(source=EXERCISES.replace(old, new))


def output(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return first(lambda cell: cell["outputs"].append(fields))


# A rule that no notebook can break would test nothing: each is broken here once.
BROKEN = {
    "execution count None": first(lambda cell: cell.update(execution_count=None)),
    "execution count 7": first(lambda cell: cell.update(execution_count=7)),
    "is empty": first(lambda cell: cell.update(source="  ")),
    "ended in an error": output(output_type="error", ename="ValueError", evalue="", traceback=[]),
    "printed to stderr": output(output_type="stream", name="stderr", text="warning"),
    "path of one machine": output(output_type="stream", name="stdout", text=["/home/me/x"]),
    "hides its output": first(lambda cell: cell["metadata"].update(tags=["nbval-skip"])),
    "state a tolerance": first(lambda cell: cell["metadata"].update(tags=["nbval-ignore-output"])),
    "print its times apart": first(lambda cell: cell.update(source="# NBVAL_IGNORE_OUTPUT\nplot()")),
    "no tolerance: rtol=x": second(metadata={"tags": ["rtol=x"]}),
    "none of its numbers needs": second(metadata={"tags": ["atol=0.1dB"]}),
    "prints a number that is none: '2'": second(metadata={"tags": ["times"]}),
    "asserts a time": first(lambda cell: cell.update(source="s, _ = interleaved(f)\nassert s[0] < s[1]")),
    "over 15 lines": first(lambda cell: cell.update(source="plot()\n" * 16)),
    "over 84 columns": first(lambda cell: cell.update(source=f"plot({'x' * 80})")),
    "says when it ran": first(lambda cell: cell["metadata"].update(execution={"shell.execute_reply": "8"})),
    "1569 pixels wide": output(**picture(3138, 1569)),
    "single density": output(**picture(672)),
    "mystnb.image.alt": first(lambda cell: cell["metadata"].pop("mystnb")),
    "panels left and right": first(
        lambda cell: cell["metadata"]["mystnb"]["image"].update(alt="Two curves. Left: one. Right: another.")
    ),
    "not 'python3'": lambda notebook: notebook["metadata"]["kernelspec"].update(name="venv"),
    "exactly one title": text("## Summary", "## Summary\n\n# Another"),
    "last two sections": text("## Summary", "## More"),
    "no exercise": text("{exercise}", "{note}"),
    "do not match": text("{solution} one", "{solution} two"),
    "not folded": text(":class: dropdown", ""),
}


def test_a_good_notebook_has_no_faults():
    assert faults(good()) == []


@pytest.mark.parametrize("fault", BROKEN)
def test_each_rule_finds_its_fault(fault: str):
    notebook = copy.deepcopy(good())
    BROKEN[fault](notebook)
    found = faults(notebook)
    assert any(fault in line for line in found), found
