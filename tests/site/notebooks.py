"""What every chapter must have, as a function from a notebook to the list of its faults.

nbval compares outputs, but silently skips a cell that was never executed, ignores the output of a cell that asks
for it and never compares pictures. The rules here close those gaps: each printed number is compared or is a time,
marked as such. They also ask for what makes a chapter readable without seeing it.
"""

import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from tests.clocks import timed_asserts
from tests.site.numbers import BadTag, Tolerance, split, unused

Cell = dict[str, Any]

# Traces of the machine that ran the notebook.
MACHINE_PATHS = re.compile(r"/tmp/|/home/|/root/|/Users/|ipykernel_\d+")
# What a page shows without being asked, and what fits its column; a program in one cell is as long as it is.
VISIBLE_LINES, COLUMNS = 15, 84
# How an alt text says where a panel is that stands above or below the other.
SIDE_BY_SIDE = re.compile(r"(^|\. )(Left|Right)[:,]")
FOLDED = {"hide-input", "whole-program"}
# Six inches and the edge around them, at 110 dots an inch: a phone shows 350 pixels, with letters that can be read.
WIDEST = 680
PHOTOGRAPHS = "fine=False"
# What keeps nbval from running a cell or from looking at what it printed.
UNCOMPARED = re.compile(r"nbval[-_](?:skip|ignore[-_]output)|pytest_validate_ignore_output", re.IGNORECASE)
TIME = re.compile(r"\b(?:ns|µs|ms|s|seconds?|minutes?|times?)\b")


def source(cell: Cell) -> str:
    """Text of a cell, which the format keeps as a string or as a list of lines."""
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def tags(cell: Cell) -> set[str]:
    """The cell's tags."""
    return set(cell["metadata"].get("tags", []))


def needs(tags: set[str]) -> list[str]:
    """The tools without which the outputs of a cell with these tags are others: programs, and engines."""
    return sorted(tag.removeprefix("needs=") for tag in tags if tag.startswith("needs="))


def code_lines(cell: Cell) -> list[str]:
    """The lines of a cell that are neither blank nor a comment."""
    return [line for line in source(cell).splitlines() if line.strip() and not line.lstrip().startswith("#")]


def draws(cell: Cell) -> bool:
    """Whether an output of the cell is a picture."""
    return any(kind.startswith("image/") for output in cell["outputs"] for kind in output.get("data", {}))


def printed(cell: Cell) -> str:
    """All text among the cell's outputs that a page shows; for a figure it shows the picture alone."""
    parts: list[str] = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        text = (
            [] if draws({"outputs": [output]}) else [data[kind] for kind in data if kind.startswith("text/")]
        )
        parts += ["".join(value) for value in [output.get("text", ""), *text]]
    return "\n".join(parts)


def faults(notebook: dict[str, Any]) -> list[str]:
    """Every rule that the notebook breaks, one line each; empty for a good one."""
    return [*_setting(notebook), *_cells(notebook), *_shape(notebook)]


def _setting(notebook: dict[str, Any]) -> Iterator[str]:
    kernel = notebook["metadata"].get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield f"the kernel is {kernel!r}, not 'python3', which every environment has"


def _cells(notebook: dict[str, Any]) -> Iterator[str]:
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for position, cell in enumerate(code, start=1):
        where = f"code cell {position} ({source(cell).strip().splitlines()[:1]})"
        if not source(cell).strip():
            yield f"{where} is empty"
        if cell.get("execution_count") != position:
            yield f"{where} has execution count {cell.get('execution_count')}: run all cells, top to bottom"
        if any(output["output_type"] == "error" for output in cell["outputs"]):
            yield f"{where} ended in an error"
        if any(output.get("name") == "stderr" for output in cell["outputs"]):
            yield f"{where} printed to stderr: remove the cause of the warning"
        if len(source(cell).splitlines()) > VISIBLE_LINES and not tags(cell) & FOLDED:
            yield f"{where} has over {VISIBLE_LINES} lines: divide it, or fold its plotting (tag hide-input)"
        if any(len(line) > COLUMNS for line in source(cell).splitlines()):
            yield f"{where} has lines of over {COLUMNS} columns"
        if "execution" in cell["metadata"]:
            yield f"{where} says when it ran: execute with --ExecutePreprocessor.record_timing=False"
        if MACHINE_PATHS.search(printed(cell)):
            yield f"{where} printed a path of one machine"
        yield from (f"{where} {fault}" for fault in (*_comparison(cell), *_figures(cell)))
        for assertion in timed_asserts(source(cell)):
            yield f"{where} asserts a time, which a busy machine breaks: {assertion}"
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        if draws(cell) and len(alt.split()) < 4:
            yield f"{where} draws a figure and says in no mystnb.image.alt what it shows"
        if SIDE_BY_SIDE.search(alt):
            yield f"{where} has panels left and right in its alt text, and one above the other in its figure"


def _figures(cell: Cell) -> Iterator[str]:
    """What is wrong with the size of a cell's pictures, which have two pixels where the page has one."""
    for output in cell["outputs"]:
        data = output.get("data", {}).get("image/png")
        if data is None:
            continue
        pixels = int.from_bytes(b64decode("".join(data)[:32])[16:20], "big")
        width = output["metadata"].get("image/png", {}).get("width", pixels)
        if width > WIDEST:
            yield f"draws a figure {width} pixels wide, more than {WIDEST}: six inches, panels one above the other"
        if pixels < 2 * width - 1 and PHOTOGRAPHS not in source(cell):
            yield "draws a figure of single density: draw it in plot.style(), and photographs with fine=False"


def _comparison(cell: Cell) -> Iterator[str]:
    """Why a cell's printed numbers would not be compared, or not as its tags say."""
    if UNCOMPARED.search(" ".join([*tags(cell), source(cell)])):
        yield "hides its output from the test: state a tolerance (rtol=0.02, atol=0.3dB), or print its times apart"
    try:
        tolerance = Tolerance.of(tags(cell))
    except BadTag as error:
        yield f"has a tag that is no tolerance: {error}"
        return
    for idle in unused(printed(cell), tolerance):
        yield f"states a tolerance ({idle}) that none of its numbers needs"
    if tolerance.times:
        for line in printed(cell).splitlines():
            if split(line)[1] and not TIME.search(line):
                yield f"is tagged times and prints a number that is none: {line.strip()!r}"


def _shape(notebook: dict[str, Any]) -> Iterator[str]:
    text = "\n\n".join(source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    headings = re.findall(r"^(#+) +(.+?) *$", text, flags=re.MULTILINE)
    if [level for level, _ in headings].count("#") != 1:
        yield "a chapter has exactly one title (# heading)"
    sections = [name for level, name in headings if level == "##"]
    if sections[-2:] not in (["Exercises", "Summary"], ["Summary", "Exercises"]):
        yield f"the last two sections are {sections[-2:]}, not Exercises and Summary"
    exercises = re.findall(r"\{exercise(?:-start)?\}[^\n]*\n:label: *(\S+)", text)
    solutions = re.findall(r"\{solution(?:-start)?\} *(\S+)", text)
    if not exercises:
        yield "there is no exercise with a label"
    if sorted(exercises) != sorted(solutions):
        yield f"exercises {sorted(exercises)} and solutions {sorted(solutions)} do not match"
    folded = len(re.findall(r"\{solution(?:-start)?\} *\S+\n(?::[^\n]*\n)*?:class: *[^\n]*dropdown", text))
    if folded != len(solutions):
        yield f"{len(solutions) - folded} of {len(solutions)} solutions are not folded (:class: dropdown)"
