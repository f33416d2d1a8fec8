"""Diagrams are drawn before the book is built, so that a page opened from a file shows them and loads no Mermaid.

In: the nodes of sphinxcontrib-mermaid. Out: pictures of `book/_static/diagrams`, one for light pages and one for dark
ones, which `scripts/diagrams.py` draws. A diagram that has none yet is left to the reader's browser.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinxcontrib.mermaid import mermaid

FOLDER = Path(__file__).parents[1] / "_static" / "diagrams"
SCHEMES = ("light", "dark")
WIDTH = re.compile(r'<svg[^>]* width="([\d.]+)"')
# Pixels; a phone shows a diagram up to WIDE whole, with letters of nine pixels.
WIDE, WIDER = 650, 860
DESCRIPTION = re.compile(r"^\s*accDescr:\s*(.+)$", re.MULTILINE)


def drawings(code: str) -> dict[str, Path]:
    """Where the drawings of a diagram lie, by scheme; their name is the digest of its text."""
    key = hashlib.sha256(code.strip().encode()).hexdigest()[:12]
    return {scheme: FOLDER / f"{key}-{scheme}.svg" for scheme in SCHEMES}


def breadth(drawing: Path) -> list[str]:
    """The class that keeps a diagram's letters readable where the page is narrow; none for one that fits a phone."""
    width = float(WIDTH.search(drawing.read_text())[1])
    return ["wider"] if width > WIDER else ["wide"] if width > WIDE else []


def show_drawings(_: Sphinx, document: nodes.document) -> None:
    """Put the pictures in the place of the diagrams of a page."""
    for node in list(document.findall(mermaid)):
        files, description = (
            drawings(node["code"]),
            DESCRIPTION.search(node["code"]),
        )
        if description is None or not all(file.exists() for file in files.values()):
            continue
        figure = nodes.container(classes=["diagram", *breadth(files["light"])])
        for scheme, file in files.items():
            uri = f"/book/_static/diagrams/{file.name}"
            figure += nodes.image(
                uri=uri, alt=description[1], classes=[f"only-{scheme}"]
            )
        node.replace_self(figure)


def setup(app: Sphinx) -> dict[str, bool]:
    """Replace the diagrams as a page is read, early enough for Sphinx to collect their pictures."""
    app.connect("doctree-read", show_drawings, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
