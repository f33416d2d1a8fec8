"""Every number of the book's prose rests on a cell or on a cited work."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.site.prose import Claim, claims, numbers, page_claims

BOOK = Path(__file__).parents[2] / "book"
CHAPTERS = {path.stem: json.loads(path.read_text()) for path in sorted(BOOK.glob("*.ipynb"))}
IN_CELLS = {stem: numbers(chapter["cells"]) for stem, chapter in CHAPTERS.items()}


def found() -> dict[str, list[Claim]]:
    chapters = {stem: list(claims(chapter, IN_CELLS)) for stem, chapter in CHAPTERS.items()}
    pages = {path.stem: list(page_claims(path.read_text(), IN_CELLS)) for path in sorted(BOOK.glob("*.md"))}
    return chapters | pages


def test_every_number_of_the_prose_rests_on_a_cell_or_a_citation(capsys: pytest.CaptureFixture[str]):
    by_page = found()
    loose = [(page, c.number, c.words) for page, claims in by_page.items() for c in claims if not c.rests_on]
    assert loose == []
    counts = Counter(claim.rests_on for claims in by_page.values() for claim in claims)
    with capsys.disabled():
        print(
            f"\nnumbers of the prose: {counts.total():,}, of which {counts['cell']:,} rest on a cell and "
            f"{counts['citation']:,} on a citation"
        )
    assert counts["cell"] > 100


def chapter(*cells: tuple[str, str, str]) -> dict[str, Any]:
    """Cells of (kind, source, printed text)."""
    return {
        "cells": [
            {"cell_type": kind, "source": text, "outputs": [{"text": out}], "metadata": {}}
            for kind, text, out in cells
        ]
    }


CODE = ("code", "images = data[:640]", "kept 0.9237 in 1,234,567 bytes\n")


@pytest.mark.parametrize(
    ("text", "rests"),
    [
        ("It kept 0.92.", ["cell"]),
        ("It kept 0.93.", [""]),
        ("It kept 92 % and 92.4 %, of 92.37.", ["cell", "cell", ""]),
        ("In 1,234,567 bytes, or 1.23 MB, not 1.24 MB.", ["cell", "cell", ""]),
        ("From 640 pictures, seventy-two of them wrong.", ["cell", ""]),
        ("Others lose 71 % {cite}`other2020`. We lose 71 %.", ["citation", ""]),
        ("Others lose 71 % and 72 %, as {doc}`chapter 5 <other>` shows.", ["cell", ""]),
        ("Four bits have 16 codes, 8 bits 256, chapter 14, int8, 2019, $3.7$ and `x[33]`.", []),
        ("One is 16 % of it, and 4 dB.", ["", ""]),
        ("The columns are 4, 75 and 92 %.", ["", "", "cell"]),
        ("```{math}\nx = 3.7\n```\nthen 3.7 {term}`codes 33`.", [""]),
    ],
)
def test_what_a_number_rests_on(text: str, rests: list[str]):
    elsewhere = {"other": numbers(chapter(("code", "", "71.4"))["cells"])}
    for notebook in (chapter(CODE, ("markdown", text, "")), chapter(("markdown", text, ""), CODE)):
        assert [claim.rests_on for claim in claims(notebook, elsewhere)] == rests


def test_a_cell_far_below_backs_nothing():
    later = chapter(("markdown", "It is 640.", ""), ("code", "1", ""), ("markdown", "So.", ""), CODE)
    assert [claim.rests_on for claim in claims(later, {})] == [""]


def test_a_page_rests_on_what_its_paragraph_cites():
    text = (
        "It takes 640 pJ.\nMore than 71 % {cite}`a`.\n\nIt takes 640 pJ.\n\n"
        "- 71 % {doc}`other`\n- 72 % {doc}`other`"
    )
    assert [claim.rests_on for claim in page_claims(text, {"other": IN_CELLS_OF_OTHER})] == [
        "citation",
        "citation",
        "",
        "cell",
        "",
    ]


IN_CELLS_OF_OTHER = numbers(chapter(("code", "0.71", ""))["cells"])
