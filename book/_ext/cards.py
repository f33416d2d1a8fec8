"""The chapters' cards on the front page: question, first figure, minutes; and the ways that readers take through them.

In: the notebooks and paths.yml. Out: HTML, and the pictures beside it.
"""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

WORDS, LINES, FIGURES, EXERCISES = 180, 15, 1, 12
"""Words and lines of code that are read in a minute; minutes for a figure, and for an exercise."""
WIDTH = 400  # pixels of a card's picture


class Chapter:
    """A notebook: its number, its title, the time it takes, its first figure."""

    def __init__(self, path: Path) -> None:
        cells = json.loads(path.read_text())["cells"]
        self.file = path.stem
        self.key = path.stem.split("_")[0]
        self.title = next(
            line[2:]
            for cell in cells
            for line in lines_of(cell)
            if line.startswith("# ")
        )
        self.exercises = 0
        self.picture: bytes | None = None
        words = code = figures = 0
        solution = False
        for cell in cells:
            text = "".join(cell["source"])
            self.exercises += len(re.findall(r"\{exercise(?:-start)?\}", text))
            solution |= "{solution-start}" in text
            if not solution and cell["cell_type"] == "markdown":
                words += len(text.split())
            elif not solution and cell["cell_type"] == "code":
                hidden = "hide-input" in cell["metadata"].get("tags", [])
                code += (
                    0
                    if hidden
                    else sum(bool(line.strip()) for line in lines_of(cell))
                )
                drawn = [
                    o["data"]["image/png"]
                    for o in cell["outputs"]
                    if "image/png" in o.get("data", {})
                ]
                figures += len(drawn)
                self.picture = self.picture or (
                    b64decode("".join(drawn[0])) if drawn else None
                )
            solution &= "{solution-end}" not in text
        self.minutes = words / WORDS + code / LINES + figures * FIGURES


def lines_of(cell: dict[str, Any]) -> list[str]:
    """The lines of a cell."""
    return "".join(cell["source"]).splitlines()


def cards(folder: Path, chapters: list[Chapter], plan: dict[str, Any]) -> str:
    """Three ways through the book as HTML, with a card for each chapter and lab; their pictures go into `folder`."""
    ways, takes, labs = [], {}, plan["labs"]
    for name, way in plan["paths"].items():
        keys = {
            str(key).zfill(2)
            for key in way.get("chapters", [c.key for c in chapters])
        }
        mine = [c for c in chapters if c.key in keys]
        minutes = sum(
            c.minutes + EXERCISES * c.exercises * way.get("exercises", False)
            for c in mine
        ) + sum(lab["minutes"] for lab in labs.values() if way.get("labs"))
        takes[name] = keys
        ways.append(
            f'<label><input type="radio" name="path" value="{name}"><span><strong>{name}</strong> '
            f"{round(minutes / 60)} hours</span><small>{escape(way['says'])}</small></label>"
        )
    made = []
    for c in chapters:
        image = ""
        if c.picture is not None:
            picture = Image.open(io.BytesIO(c.picture)).convert("RGB")
            picture.thumbnail((WIDTH, WIDTH))
            picture.save(folder / f"card-{c.key}.webp", quality=60)
            image = f'<img src="../demo/card-{c.key}.webp" alt="" loading="lazy">'
        names = " ".join(name for name, keys in takes.items() if c.key in keys)
        question = escape(plan["questions"].get(c.key, c.title))
        made.append(
            f'<li data-paths="{names}"><a href="{c.file}.html">{image}<strong>{question}</strong>'
            f"<span>{c.key.lstrip('0')}. {escape(c.title)}</span>"
            f"<small>{max(5, 5 * round(c.minutes / 5))} minutes</small></a></li>"
        )
    solvers = " ".join(n for n, way in plan["paths"].items() if way.get("labs"))
    for name, lab in labs.items():
        made.append(
            f'<li data-paths="{solvers}"><a href="labs/{name}.html"><strong>{escape(lab["task"])}</strong>'
            f"<span>Lab: {name}</span><small>{lab['minutes']} minutes</small></a></li>"
        )
    return (
        f'<div id="paths"><fieldset><legend>Who are you?</legend>{"".join(ways)}</fieldset>'
        f'<ol class="cards">{"".join(made)}</ol></div>'
    )
