"""Chapters, and all that is counted in them, carry the number in their file's name; drawn outputs become figures.

In: the documents that Sphinx read. Out: `book/08a_resnet50_tensorflow` is chapter 8a in titles, contents and links;
its equations, exercises, definitions and figures are (8a.1), 8a.2 and so on. Sphinx's own numbering counts the
pages that the table of contents lists, which would call that file chapter 8 and the next one chapter 9.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector
from sphinx.transforms import SphinxTransform

CHAPTER = re.compile(r"book/0*(\d+[a-z]?)_\w+")


def number_chapters(self: TocTreeCollector, env: BuildEnvironment) -> list[str]:
    """Number the chapters in `env`, their sections not; returns the documents whose numbers changed."""
    old, env.toc_secnumbers = env.toc_secnumbers, {}
    for name, contents in env.tocs.items():
        chapter = CHAPTER.fullmatch(name)
        if chapter is None:
            continue
        title, *sections = [
            entry[0] for entry in contents.findall(addnodes.compact_paragraph)
        ]
        number = (chapter[1],)
        title["secnumber"] = env.titles[name]["secnumber"] = number
        env.toc_secnumbers[name] = {title["anchorname"]: number} | {
            s["anchorname"]: None for s in sections
        }
    return [
        name
        for name, numbers in env.toc_secnumbers.items()
        if numbers != old.get(name)
    ]


class Figures(SphinxTransform):
    """A picture that a cell drew becomes a figure, whose caption is the picture's description."""

    default_priority = 700

    def apply(self) -> None:
        """Put a figure in the place of each described picture."""
        cells = [
            c
            for c in self.document.findall(nodes.container)
            if "cell_output" in c["classes"]
        ]
        for image in [
            image for cell in cells for image in cell.findall(nodes.image)
        ]:
            # Of a picture of double density the notebook stores its size on the page: the height follows the width.
            image.attributes.pop("height", None)
            if image.get("alt") and not isinstance(image.parent, nodes.figure):
                text = image["alt"].rstrip(".") + "."
                figure = nodes.figure(
                    "", image.deepcopy(), nodes.caption(text, text)
                )
                self.document.set_id(figure, suggested_prefix="figure")
                image.replace_self(figure)


def take_over(*_: object) -> None:
    """Put this numbering in the place of Sphinx's and of the one that sphinx-external-toc has put there."""
    TocTreeCollector.assign_section_numbers = number_chapters


def setup(app: Sphinx) -> dict[str, bool]:
    """Take Sphinx's place in numbering, and add the figures."""
    app.connect("env-before-read-docs", take_over)
    app.add_transform(Figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
