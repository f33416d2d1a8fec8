"""The chapters as Colab opens them: each with a cell in front that fetches the clone and what the chapters import.

    python3 scripts/colab.py https://github.com/OWNER/REPOSITORY OUT

In: book/*.ipynb. Out: OUT/book/*.ipynb, which the workflow of the site puts on the branch `colab`; the pages' Colab
buttons lead there. The notebooks of the main branch stay as they are: elsewhere nobody needs the cell.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CELL = """# Colab has neither the course nor what it imports. This cell fetches both, in a few minutes; if Colab
# asks to restart the session, do so and run it once more.
!test -d /content/course || git clone -q --depth 1 {url} /content/course
%cd -q /content/course/book
%pip install -q --extra-index-url https://download.pytorch.org/whl/cpu -e "..[chapters]"
import sys
sys.path.insert(0, "/content/course/src")"""


def with_install(notebook: dict[str, Any], url: str) -> dict[str, Any]:
    """A notebook with the cell that installs before its own; its outputs stay as they are."""
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "install",
        "metadata": {},
        "outputs": [],
        "source": CELL.format(url=url),
    }
    return notebook | {"cells": [cell, *notebook["cells"]]}


def main(url: str, out: Path) -> None:
    """Write the notebooks."""
    (out / "book").mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "book").glob("[0-9]*.ipynb")):
        notebook = with_install(json.loads(path.read_text()), url)
        (out / "book" / path.name).write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
