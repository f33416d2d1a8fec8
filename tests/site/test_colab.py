"""What Colab opens: the chapters with a cell in front that installs what they import, and the button to it."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from scripts.colab import main

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))


def test_each_chapter_begins_with_the_cell_that_installs_and_is_otherwise_as_it_is(tmp_path: Path):
    main("https://github.com/owner/name", tmp_path)
    assert [path.name for path in sorted((tmp_path / "book").iterdir())] == [path.name for path in CHAPTERS]
    for path in CHAPTERS:
        ours, theirs = (json.loads(p.read_text()) for p in (path, tmp_path / "book" / path.name))
        nbformat.validate(nbformat.from_dict(theirs))
        install, *rest = theirs["cells"]
        assert "git clone -q --depth 1 https://github.com/owner/name " in install["source"]
        assert rest == ours["cells"]
        assert {k: v for k, v in theirs.items() if k != "cells"} == {
            k: v for k, v in ours.items() if k != "cells"
        }


@pytest.mark.site
def test_the_colab_button_leads_to_that_branch_and_no_other_button_does(site: Path):
    soup = BeautifulSoup((site / "book" / "01_ten_minutes.html").read_text(), "html.parser")
    addresses = [
        tag["href"] for tag in soup.select("header a[href^=http], .article-header-buttons a[href^=http]")
    ]
    colab = [url for url in addresses if "colab.research" in url]
    assert colab and all(re.search(r"/blob/colab/book/01_ten_minutes\.ipynb$", url) for url in colab)
    assert [url for url in addresses if "/colab/" in url and url not in colab] == []
