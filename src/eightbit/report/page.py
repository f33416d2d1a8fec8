"""Sections as one HTML page that needs nothing else: no network, no script, figures inside, light and dark.

In: a title and sections. Out: a file. The same sections give the same bytes.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from eightbit import plot
from eightbit.files import write_whole
from eightbit.plot.look import pyplot
from eightbit.report.section import Figure, Section
from eightbit.report.table import Table

SAME_NAMES: dict[str, Any] = {"svg.hashsalt": "eightbit"}  # of the parts of a drawing, in every run
STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --paper: #ffffff; --line: #d0d0d0; --soft: #f3f3f3; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --paper: #16181a; --line: #444a50; --soft: #22262a; }
}
body { color: var(--text); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 60rem; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.75rem 0; }
caption { text-align: left; font-weight: 600; padding: 0.25rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.75rem; text-align: left; }
thead th { background: var(--soft); }
figure { margin: 1rem 0; }
figure img { background: #fff; border-radius: 0.4rem; max-width: 100%; height: auto; padding: 0.5rem;
  box-sizing: border-box; }
figcaption, p.note { font-size: 0.9rem; }
"""


def write_page(title: str, sections: Iterable[Section], path: str | os.PathLike[str]) -> Path:
    """Write a page; the file appears whole or not at all. Raises ExportError, MissingExtra (`plot`)."""
    return write_whole(page(title, sections).encode(), path)


def page(title: str, sections: Iterable[Section]) -> str:
    """The page of `sections` as text; the first words of its title, before " on ", head it."""
    body = "".join(map(_section, sections))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title.split(' on ')[0])}</h1>\n{body}</main></body></html>\n"
    )


def _section(section: Section) -> str:
    heading = f"<h2>{escape(section.title)}</h2>" if section.title else ""
    return heading + "".join(_table(p) if isinstance(p, Table) else _figure(p) for p in section.parts)


def _table(table: Table) -> str:
    return f'<div class="wide">{table.html()}</div>\n'


def _figure(figure: Figure) -> str:
    """A figure, drawn, as an image in the page's own text."""
    plt = pyplot()
    with plot.style(**SAME_NAMES):
        drawing, axes = plt.subplots(1, figure.panels, figsize=(8.0, figure.height))
        try:
            figure.draw(axes)
            target = BytesIO()
            drawing.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
        finally:
            plt.close(drawing)
    data = base64.b64encode(target.getvalue()).decode()
    return (
        f'<figure><img alt="{escape(figure.alt)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>\n"
    )
