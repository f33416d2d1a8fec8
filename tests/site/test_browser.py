"""The built pages in a real browser with no network: what they draw, who can read them, what they weigh."""

import re
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from PIL import Image

from eightbit.course.fetch import Archive, locate
from eightbit.errors import LoadError
from tests.site.chromium import Tab
from tests.site.test_pages import PAGES
from tests.tools import without

pytestmark = [pytest.mark.site, pytest.mark.browser]

AXE = Archive(
    "axe-core",
    {"axe-core-4.14.1.tgz": "sha256:e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"},
    "https://registry.npmjs.org/axe-core/-",
)
FOUND = """axe.run({exclude: EXCLUDED}, {resultTypes: ["violations"], ...OPTIONS}).then(({violations}) => violations
  .filter(v => v.impact !== "minor")
  .map(v => `${v.id}: ${v.nodes.slice(0, 3).map(n => n.target.join(" ")).join(" | ")}`))"""
CODE_PAGE = "book/02_affine_map"
"""The page on which the colours of code are checked; all others have the same, and thousands of coloured words."""
WIDE = """(() => {
  const inside = tag => tag.closest("pre, table, .cell_output, div.math, .diagram");
  const far = [...document.querySelectorAll("article *")].filter(tag =>
    tag.getBoundingClientRect().right > innerWidth + 1 && !inside(tag)).map(tag => tag.outerHTML.slice(0, 80));
  return document.documentElement.scrollWidth > innerWidth ? far.slice(0, 3).concat("the page") : [];
})()"""
DARK = """new Promise(done => {
  const look = n => document.documentElement.dataset.theme === "dark" || !n ? done(n > 0) : setTimeout(look, 20, n - 1);
  look(500);
})"""
BYTES = """["navigation", "resource"].flatMap(kind => performance.getEntriesByType(kind))
  .reduce((sum, entry) => sum + entry.encodedBodySize, 0)"""
CUT = """[...document.querySelectorAll("article :is(p, li, dd) > code, .prev-next-title")].filter(tag => {
  const box = tag.getBoundingClientRect();
  return box.width && (box.left < 0 || box.right > innerWidth);
}).map(tag => tag.textContent)"""
LARGEST = {"book/index": 1.5e6}
LARGEST_CHAPTER = 4.5e6  # 1.3 of them MathJax
KINDS = ("book/index", "book/01_ten_minutes", CODE_PAGE, "book/tools", "book/glossary", "book/api/quant")
"""A page of each kind, at whose colours axe-core looks in dark, too: all others have the same."""


@pytest.fixture(scope="session")
def axe() -> str | None:
    """The script of axe-core, which finds what shuts out readers with a keyboard, a screen reader or weak eyes."""
    try:
        archive = locate(AXE) / next(iter(AXE.digests))
    except LoadError:
        return None
    with tarfile.open(archive) as tar:
        script = tar.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def shut_out(tab: Tab, *, code: bool, rules: str = "") -> list[str]:
    """What axe-core finds, but for what it calls minor; of formulas MathJax takes care."""
    excluded = [["mjx-container"], *([] if code else [[".highlight pre"]])]
    options = f'runOnly: ["{rules}"]' if rules else ""
    return tab.run(FOUND.replace("EXCLUDED", str(excluded)).replace("...OPTIONS", options))


@pytest.mark.parametrize("name", PAGES)
def test_page_works_for_everybody(name: str, tab: Tab, server: str, axe: str | None):
    """On a phone and on a desk, in light and dark."""
    assert {kind: what for kind, what in faults(name, tab, server, axe).items() if what} == {}
    if axe is None:
        without("axe-core is neither in the cache nor to be had from the npm registry; all else holds")


def faults(name: str, tab: Tab, server: str, axe: str | None) -> dict[str, object]:
    """What is wrong with a page, by kind."""
    tab.look(width=390, height=844)
    soup = BeautifulSoup(tab.open(f"{server}/{name}.html"), "html.parser")
    formulas, diagrams = soup.select("article .math"), soup.select("article pre.mermaid")
    found = {
        "complaints": tab.complaints(),
        "other hosts": tab.hosts() - {"127.0.0.1"},
        "formulas not drawn": [tag.get_text()[:60] for tag in formulas if not tag.find("mjx-container")],
        "formulas with errors": soup.select("mjx-merror"),
        "diagrams not drawn": [tag.get_text()[:60] for tag in diagrams if not tag.find("svg")],
        "diagrams with errors": [tag for tag in diagrams if "Syntax error" in tag.get_text()],
        "pictures not loaded": tab.run("""[...document.images].filter(image =>
            image.loading !== "lazy" && image.complete && !image.naturalWidth).map(image => image.src)"""),
        "wider than a phone": tab.run(WIDE),
        "names that a phone cuts off": tab.run(CUT),
        "too heavy": [size for size in [tab.run(BYTES)] if size > LARGEST.get(name, LARGEST_CHAPTER)],
    }
    if axe is not None:
        tab.look()
        tab.run(f"{axe}; 0")
        tab.run(
            "document.head.insertAdjacentHTML('beforeend', '<style>* {transition: none !important}</style>')"
        )
        found["axe, light"] = shut_out(tab, code=name == CODE_PAGE)
    if axe is not None and name in KINDS:
        tab.look(dark=True)
        assert tab.run(DARK), "the page does not follow its reader to dark"
        found["axe, dark"] = shut_out(tab, code=name == CODE_PAGE, rules="color-contrast")
    return found


def test_no_large_part_of_a_page_without_pictures_is_light_in_dark_mode(tab: Tab, server: str):
    """The theme once turned the colours of dark diagrams round, to grey on light grey."""
    tab.look(width=1000, height=1500, dark=True)
    tab.open(f"{server}/book/why_eight_bits.html")
    colours = Image.open(BytesIO(tab.screenshot())).convert("L").histogram()
    assert sum(colours[:64]) > 0.8 * sum(colours)  # the ground, and the boxes of the map
    assert max(colours[128:]) < 0.02 * sum(
        colours
    )  # letters, of which the contents have more with every chapter


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_times_are_marked_on_the_page(scheme: str, tab: Tab, site: Path, tmp_path: Path):
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
    soup = BeautifulSoup(tab.open(page.as_uri()), "html.parser")
    marks = [tag["title"] for tag in soup.select(".cell_output")]
    said, shown, colour = marks[0].split("|")
    assert "Times of the machine that built this page" in said
    assert shown == "block"
    assert marks[1].startswith("none|")
    light = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
    assert light > 140 if scheme == "dark" else light < 115  # of 255, against a ground of about 20 and of 255


def test_search_finds_the_glossary(tab: Tab, server: str):
    tab.open(f"{server}/search.html?q=requantization")
    links = """[...document.querySelectorAll("#search-results ul.search a")].map(tag => tag.getAttribute("href"))"""
    found = tab.run(f"""new Promise(done => {{
      const look = n => {links}.length || !n ? done({links}) : setTimeout(look, 50, n - 1);
      look(400);
    }})""")
    assert any(link.startswith("book/glossary.html") for link in found)


def test_what_goes_wrong_would_be_seen(tab: Tab, server: str):
    """An exception, an error in the console, a file that is not there, another host, a page wider than a phone."""
    tab.look(width=390)
    script = "console.error('here'); throw new Error('on purpose')"
    tab.open(
        f"data:text/html,<body><article><div style='width:2000px'>.</div></article><script>{script}</script>"
        f"<img src='{server}/no-such.png'><img src='http://example.org/a.png'>"
    )
    assert {line.split()[0] for line in tab.complaints()} >= {"here", "Error:", "Failed"}
    assert "example.org" in tab.hosts()
    assert "the page" in tab.run(WIDE)
