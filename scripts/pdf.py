"""The book as one PDF: the built pages in the order of the contents, printed by a headless Chromium.

    .venv/bin/python scripts/pdf.py _build/eight_bits_is_enough.pdf    (make pdf builds the site before)

In: the site in _build/html, without its reference pages, which are for searching. Out: A4 pages with bookmarks; links
between pages lead to the place in the file, and what is folded away stays out but for solutions.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.site.chromium import Chromium  # noqa: E402
from tests.site.test_pages import PAGES  # noqa: E402

CHAPTERS = [name for name in PAGES if not name.startswith("book/api/")]
FRONT = "#how-few-bits, #three-ways-through, #demo-status"
WITHOUT = f"script, link, .headerlink, .copybtn, .controls, details.hide, {FRONT}"
"""What paper cannot do."""
STYLE = """
@page { size: A4; margin: 18mm 15mm; }
html { font-size: 62.5%; }
body { display: block; background: #fff; font-size: 10pt; line-height: 1.45; }
main.bd-content { display: block; }
article.bd-article { padding: 0; break-before: page; }
article.bd-article:first-child { break-before: auto; }
h1 { font-size: 22pt; } h2 { font-size: 15pt; } h3 { font-size: 12pt; }
h1, h2, h3, dt, .admonition-title { break-after: avoid; }
pre { white-space: pre-wrap; overflow: visible; font-size: 7.5pt; line-height: 1.35; }
img, figure, table, .diagram, mjx-container[display="true"] { break-inside: avoid; }
img { width: auto !important; height: auto !important; max-width: 100% !important; max-height: 150mm; }
.diagram img { max-height: 100mm; } /* half a page: a diagram that does not fit leaves the rest of its page empty */
table, .cell_output { overflow: visible !important; max-width: 100%; font-size: 8.5pt; }
.photographs { display: grid; grid-template-columns: repeat(4, 1fr); }
.answer { margin: 0; }
.answer::before { content: attr(data-kind) ": "; }
"""
FOOTER = """<div style="width: 100%; text-align: center; font: 8px sans-serif"><span class="pageNumber"></span></div>"""


def joined(site: Path, names: Sequence[str]) -> str:
    """The pages as one document, to be opened from the site's own folder."""
    pages = {name: BeautifulSoup((site / f"{name}.html").read_text(), "html.parser") for name in names}
    head = {
        str(_moved(tag, name)): None
        for name, page in pages.items()
        for tag in page.select(
            'link[rel="stylesheet"], script[src*="mathjax"], script:-soup-contains("MathJax")'
        )
    }
    articles = [str(_article(page, name, frozenset(names))) for name, page in pages.items()]
    return (
        '<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"<title>Eight Bits Is Enough</title>{''.join(head)}<style>{STYLE}</style></head>"
        f'<body><main class="bd-content">{"".join(articles)}</main></body></html>'
    )


def _moved(tag: Tag, name: str) -> Tag:
    """A tag of a page; if it names a file, by the file's place in the site."""
    key = "href" if tag.name == "link" else "src"
    if tag.has_attr(key):
        tag[key] = urljoin(f"{name}.html", str(tag[key]))
    return tag


def _article(page: BeautifulSoup, name: str, names: frozenset[str]) -> Tag:
    """What a page says; places and links carry the page's name, and links to pages that are left out are none."""
    article = page.select_one("article.bd-article")
    assert article is not None, f"{name} has no article"
    for tag in article.select(WITHOUT):
        tag.decompose()
    for tag in article.select("[id]"):
        tag["id"] = f"{name}:{tag['id']}"
    article["id"] = name
    for image in article.select("img[src]"):
        del image["loading"]
        _moved(image, name)
    for link in article.select("a[href]"):
        target = urlsplit(urljoin(f"{name}.html", str(link["href"])))
        if target.scheme:
            continue
        page_name = target.path.removesuffix(".html")
        if page_name in names:
            link["href"] = f"#{page_name}" + (f":{unquote(target.fragment)}" if target.fragment else "")
        else:
            del link["href"]
    return article


def printed(browser: Chromium, site: Path, names: Sequence[str]) -> bytes:
    """The PDF of these pages."""
    # Beside what it shows, so that its paths are the site's.
    with tempfile.NamedTemporaryFile("w", suffix=".html", dir=site) as document, browser.tab() as tab:
        document.write(joined(site, names))
        document.flush()
        tab.open(Path(document.name).as_uri())
        made = tab.call(
            "Page.printToPDF",
            preferCSSPageSize=True,
            printBackground=True,
            generateTaggedPDF=True,
            generateDocumentOutline=True,
            displayHeaderFooter=True,
            headerTemplate="<span></span>",
            footerTemplate=FOOTER,
        )
        texts = tab.run("""[...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map(heading => {
          const walk = document.createTreeWalker(heading, NodeFilter.SHOW_TEXT), found = [];
          while (walk.nextNode()) found.push(walk.currentNode.data);
          return found;
        })""")
        return said_once(b64decode(made["data"]), texts)


def said_once(pdf: bytes, headings: Sequence[Sequence[str]]) -> bytes:
    """The PDF with each bookmark said once; `headings` are the texts of each heading, piece by piece.

    Chromium writes each piece of a heading twice where it had to move the heading to the next page.
    """
    for pieces in headings:
        said, twice = "".join(pieces), "".join(piece * 2 for piece in pieces)
        old, new = (b"/Title " + _string(text) for text in (twice, said))
        pdf = pdf.replace(old, new.ljust(len(old)))  # the places of all that follows stay
    return pdf


def _string(text: str) -> bytes:
    """A string as Chromium writes it into a PDF."""
    if text.isascii():
        return b"(" + re.sub(rb"([()\\\\])", rb"\\\1", text.encode()) + b")"
    return b"<FEFF" + text.encode("utf-16-be").hex().upper().encode() + b">"


def main(out: Path) -> None:
    """Print the book of _build/html."""
    found = subprocess.run([ROOT / "scripts" / "browser.sh"], capture_output=True, text=True, check=True)
    if not found.stdout:
        sys.exit("no Chromium or Chrome to print with: install one (Debian: apt install chromium)")
    with (
        tempfile.TemporaryDirectory() as profile,
        closing(Chromium(found.stdout.split()[-1], Path(profile))) as browser,
    ):
        out.write_bytes(printed(browser, ROOT / "_build" / "html", CHAPTERS))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
