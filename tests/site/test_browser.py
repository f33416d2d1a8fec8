"""The built pages in a real browser with no network: scripts run, formulas are drawn, search finds."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from PIL import Image

from tests.site.conftest import Page
from tests.site.test_pages import PAGES

pytestmark = [pytest.mark.site, pytest.mark.browser]

Visit = Callable[..., Page]


@pytest.mark.parametrize("name", PAGES)
def test_page_runs_without_errors_and_draws_its_formulas_and_diagrams(name: str, visit: Visit):
    page = visit(f"{name}.html")
    assert page.errors == []
    soup = BeautifulSoup(page.dom, "html.parser")
    formulas = soup.select("article .math")
    assert [tag.get_text()[:60] for tag in formulas if not tag.find("mjx-container")] == []
    assert soup.select("mjx-merror") == []
    diagrams = soup.select("article pre.mermaid")
    assert [tag.get_text()[:60] for tag in diagrams if not tag.find("svg")] == []
    assert [tag for tag in diagrams if "Syntax error" in tag.get_text()] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_map_is_drawn(scheme: str, visit: Visit):
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    soup = BeautifulSoup(visit("book/index.html", *dark).dom, "html.parser")
    assert soup.html["data-theme"] == scheme
    drawing = soup.select_one("pre.mermaid svg")
    assert drawing is not None
    assert "Syntax error" not in drawing.get_text()
    assert drawing.find("desc").get_text(strip=True), "the map has no description for those who cannot see it"
    labels = {tag.get_text(strip=True) for tag in drawing.select(".nodeLabel")}
    assert {"ONNX Runtime", "NumPy engine", "integer program"} <= labels


def test_no_large_part_of_a_page_without_pictures_is_light_in_dark_mode(visit: Visit, tmp_path: Path):
    """The theme once turned the colours of dark diagrams round, to grey on light grey."""
    shot = tmp_path / "page.png"
    dark = ("--blink-settings=preferredColorScheme=0", "--window-size=1000,1500", f"--screenshot={shot}")
    visit("book/index.html", *dark)
    colours = Image.open(shot).convert("L").histogram()
    assert sum(colours[:64]) > 0.8 * sum(colours)  # the ground, and the boxes of the map
    assert max(colours[128:]) < 0.02 * sum(
        colours
    )  # letters, of which the contents have more with every chapter


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_times_are_marked_on_the_page(scheme: str, visit: Visit, site: Path, tmp_path: Path):
    """The mark is drawn by the style sheet: here over two cells, of which one has the tag."""
    output = '<div class="cell_output"><pre>3 ms</pre></div>'
    page = tmp_path / "cells.html"
    page.write_text(
        f"""<!DOCTYPE html><html data-theme="{scheme}"><head>
        <link rel="stylesheet" href="{site.as_uri()}/_static/styles/pydata-sphinx-theme.css">
        <link rel="stylesheet" href="{site.as_uri()}/_static/book.css"></head><body><div class="bd-content">
        <div class="cell tag_times">{output}</div><div class="cell">{output}</div></div>
        <script>window.onload = () => document.querySelectorAll(".cell_output").forEach(cell => {{
          const mark = getComputedStyle(cell, "::before");
          cell.title = [mark.content, mark.display, mark.color].join("|");
        }});</script></body></html>"""
    )
    marks = [
        tag["title"] for tag in BeautifulSoup(visit(page.as_uri()).dom, "html.parser").select(".cell_output")
    ]
    said, shown, colour = marks[0].split("|")
    assert "Times of the machine that built this page" in said
    assert shown == "block"
    assert marks[1].startswith("none|")
    light = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
    assert light > 140 if scheme == "dark" else light < 115  # of 255, against a ground of about 20 and of 255


def test_search_finds_the_glossary(visit: Visit):
    soup = BeautifulSoup(visit("search.html?q=requantization").dom, "html.parser")
    results = [tag["href"] for tag in soup.select("#search-results ul.search a")]
    assert any(link.startswith("book/glossary.html") for link in results)


def test_an_exception_would_be_seen(visit: Visit):
    assert visit("data:text/html,<script>throw new Error('on purpose')</script>").errors


def test_a_missing_file_would_be_seen(visit: Visit):
    assert visit("_static/no-such-script.js").errors == ["Failed to load /_static/no-such-script.js"]
