"""Draws the book's diagrams with the vendored Mermaid in a headless Chromium, and removes those of no page.

    .venv/bin/python scripts/diagrams.py

Out: book/_static/diagrams/DIGEST-SCHEME.svg, to be committed. What is drawn already is left as it is.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "book" / "_ext")]

from diagrams import FOLDER, drawings  # noqa: E402

from tests.site.chromium import Chromium  # noqa: E402

FENCE = re.compile(r"^(`{3,})\{?mermaid\}?\n(.*?)^\1", re.MULTILINE | re.DOTALL)
DIGITS = re.compile(r"(\d\.\d)\d+")  # of a pixel, of which one is enough
# Letters as wide as those that the boxes are measured with: Verdana is DejaVu Sans on systems without it.
LETTERS = '"DejaVu Sans", Verdana, sans-serif'
THEMES = {"light": ("default", {}), "dark": ("dark", {"edgeLabelBackground": "#333333"})}
DRAW = """import("/mermaid.esm.min.mjs").then(async ({{default: mermaid}}) => {{
  mermaid.initialize({{startOnLoad: false, htmlLabels: false, theme: {theme}, fontFamily: {letters},
                      themeVariables: {variables}, flowchart: {{htmlLabels: false, useMaxWidth: false}}}});
  return (await mermaid.render("diagram", {code})).svg;
}})"""


def diagrams() -> Iterator[str]:
    """The text of every diagram of the book."""
    for page in sorted((ROOT / "book").glob("*.md")):
        yield from (code for _, code in FENCE.findall(page.read_text()))
    for page in sorted((ROOT / "book").glob("*.ipynb")):
        for cell in json.loads(page.read_text())["cells"]:
            yield from (code for _, code in FENCE.findall("".join(cell["source"])))


def main() -> None:
    """Draw what is missing and remove what is left over."""
    FOLDER.mkdir(exist_ok=True)
    texts = list(diagrams())
    wanted = {file for code in texts for file in drawings(code).values()}
    for file in set(FOLDER.glob("*.svg")) - wanted:
        file.unlink()
    browser = subprocess.run([ROOT / "scripts" / "browser.sh"], capture_output=True, text=True, check=True)
    mermaid = functools.partial(
        SimpleHTTPRequestHandler, directory=str(ROOT / "book" / "_static" / "mermaid")
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), mermaid) as http, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        with closing(Chromium(browser.stdout.split()[-1], Path(profile))) as chromium:
            for code in texts:
                for scheme, file in drawings(code).items():
                    if not file.exists():
                        with chromium.tab() as tab:
                            tab.open(f"http://127.0.0.1:{http.server_port}/")
                            theme, variables = THEMES[scheme]
                            values = {
                                "theme": theme,
                                "letters": LETTERS,
                                "variables": variables,
                                "code": code,
                            }
                            script = DRAW.format(
                                **{name: json.dumps(value) for name, value in values.items()}
                            )
                            file.write_text(DIGITS.sub(r"\1", tab.run(script)) + "\n")
                            print(file.relative_to(ROOT))
        http.shutdown()


if __name__ == "__main__":
    main()
