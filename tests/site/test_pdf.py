"""The book on paper: one document whose links lead somewhere, and a PDF with maths, figures and bookmarks."""

import re
from collections import Counter
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from scripts.pdf import CHAPTERS, joined, printed, said_once
from tests.site.chromium import Chromium

pytestmark = [pytest.mark.site, pytest.mark.slow]

FEW = ("book/02_affine_map", "book/labs/foundations", "book/glossary")


@pytest.mark.parametrize("names", [CHAPTERS, FEW], ids=["all", "few"])
def test_the_pages_become_one_document_whose_links_stay_in_it(names: list[str], site: Path):
    soup = BeautifulSoup(joined(site, names), "html.parser")
    assert [article["id"] for article in soup.select("article")] == list(names)
    places = Counter(tag["id"] for tag in soup.select("[id]"))
    inner = [link["href"] for link in soup.select('a[href^="#"]')]
    assert len(inner) > 20
    assert [href for href in inner if href[1:] not in places] == []
    files = [tag.get("src") or tag["href"] for tag in soup.select("img[src], link[href], script[src]")]
    assert [name for name in files if not (site / name.split("?")[0]).exists()] == []


@pytest.mark.browser
def test_the_pdf_has_pages_bookmarks_links_pictures_and_formulas(chromium: Chromium, site: Path):
    pdf = printed(chromium, site, FEW)
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 10
    assert len(re.findall(rb"/Subtype\s*/Link\b", pdf)) > 20
    assert len(re.findall(rb"/Subtype\s*/Image\b", pdf)) >= 3
    assert re.search(rb"MathJax", pdf), "no font of formulas"
    titles = re.findall(rb"/Title\s*\((.*?)\)\s", pdf)
    assert b"2. The affine map" in titles
    assert b"Glossary" in titles
    assert [title for title in titles if title[: len(title) // 2] == title[len(title) // 2 :]] == []


def test_bookmarks_that_the_browser_wrote_twice_are_said_once_and_nothing_moves():
    before = b"/Title (2. 2. A \\(map\\)A \\(map\\))\n/Title (Limits)\n/Title <FEFF03940394>\nend"
    after = said_once(before, [["2. ", "A (map)"], ["Limits"], ["Δ"]])
    assert re.split(rb" *\n", after) == [
        b"/Title (2. A \\(map\\))",
        b"/Title (Limits)",
        b"/Title <FEFF0394>",
        b"end",
    ]
    assert len(after) == len(before)
