"""The built pages as files: all there, links lead somewhere, pictures described, nothing fetched from afar."""

import json
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

pytestmark = pytest.mark.site

ROOT = Path(__file__).parents[2]


def listed(entry: dict) -> list[str]:
    """All files of a part of the table of contents."""
    inside = [
        name
        for key in ("parts", "chapters", "sections")
        for sub in entry.get(key, [])
        for name in listed(sub)
    ]
    return [*([entry["file"]] if "file" in entry else []), *inside]


CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [CONTENTS["root"], *listed(CONTENTS)]


@cache
def parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(), "html.parser")


@cache
def anchors(path: Path) -> frozenset[str]:
    return frozenset(tag["id"] for tag in parsed(path).find_all(id=True))


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest, site: Path) -> Path:
    path = site / f"{request.param}.html"
    assert path.exists(), f"{request.param} is in _toc.yml and was not built"
    return path


def test_page_has_one_title(page: Path):
    # A chapter's hidden print view repeats the title; the article has one.
    titles = [tag.get_text(strip=True) for tag in parsed(page).select("article h1")]
    assert len(titles) == 1
    assert titles[0]


def test_links_inside_the_site_lead_somewhere(page: Path, site: Path):
    broken = []
    for tag in parsed(page).select("a[href]"):
        link = urlsplit(tag["href"])
        if link.scheme or link.netloc:
            continue
        target = (page.parent / unquote(link.path)).resolve() if link.path else page
        target = target / "index.html" if target.is_dir() else target
        found = target.exists() and target.is_relative_to(site)
        fragment = unquote(link.fragment)
        if not found or (fragment and target.suffix == ".html" and fragment not in anchors(target)):
            broken.append(tag["href"])
    assert broken == []


def test_pictures_are_described(page: Path):
    # The theme writes alt="…/name.png" where a figure has none of its own. A card's words say what its picture would.
    bare = [
        tag["src"]
        for tag in parsed(page).select("article img:not(.cards img)")
        if not tag.get("alt", "").strip() or tag["alt"].endswith((".png", ".svg"))
    ]
    assert bare == []


def test_a_chapter_numbers_all_that_it_counts(site: Path):
    """All that is counted carries the number of the chapter's file; a drawn picture is a figure."""
    for path in sorted((ROOT / "book").glob("[0-9]*.ipynb")):
        chapter, article = (
            path.stem.split("_")[0].lstrip("0"),
            parsed(site / "book" / f"{path.stem}.html").article,
        )
        assert article.h1.get_text().startswith(f"{chapter}. ")
        counted = article.select("span.eqno, .caption-number, .exercise > .admonition-title .caption-number")
        named = [tag.get_text().strip("(#) \n") for tag in counted]
        assert [n for n in named if not n.split()[-1].startswith(f"{chapter}.")] == [], path.stem
        assert [tag for tag in article.select(".cell_output img") if tag.find_parent("figure") is None] == []
        if article.select("figure"):
            assert f"Figure {chapter}.1" in named


def test_page_loads_nothing_from_elsewhere(page: Path):
    wanted = [
        tag.get("src") or tag.get("href")
        for tag in parsed(page).select(
            "script[src], img[src], iframe[src], link[rel~=stylesheet], link[rel~=preload]"
        )
    ]
    assert [url for url in wanted if urlsplit(url).netloc] == []


def test_the_reference_takes_no_sentence_for_a_type(site: Path):
    pages = [parsed(path) for path in sorted((site / "book" / "api").glob("*.html"))]
    fields = [tag.get_text() for page in pages for tag in page.select("dl.field-list > dt")]
    assert "Raises:" in fields
    assert "Type:" not in fields
    assert [tag for page in pages for tag in page.select("dt.sig") if "<factory>" in tag.get_text()] == []
    # Python's own, of enumerations and protocols, which nobody calls; layers of Keras have Keras's.
    classes = [tag.get_text() for page in pages for tag in page.select("dl.class > dt.sig")]
    odd = [text for text in classes if "*args" in text or "qualname=" in text]
    assert [text for text in odd if "Keras" not in text] == []


def test_page_offers_its_source_for_download(page: Path):
    assert parsed(page).select(".btn-download-source-button"), "the theme's download button is gone"


def test_cells_of_times_can_be_marked(site: Path):
    """The style sheet marks `.cell.tag_times .cell_output`: each such cell of the notebooks is one on its page."""
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        times = [cell for cell in cells if "times" in cell["metadata"].get("tags", [])]
        marked = parsed(site / "book" / f"{path.stem}.html").select(
            ".bd-content .cell.tag_times .cell_output"
        )
        assert len(marked) == len(times), path.stem


def test_search_index_knows_every_page(site: Path):
    index = (site / "searchindex.js").read_text()
    assert [name for name in PAGES if f'"{name}"' not in index] == []
