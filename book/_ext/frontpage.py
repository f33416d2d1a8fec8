"""The front page's parts: a measured sentence, the demo's photographs, the table of peers, the chapters' cards.

In: `demo.build`, what benchmarks/ has stored of peers, paths.yml and the notebooks. Out: substitutions for index.md,
and a folder whose contents Sphinx copies beside the pages. What takes half a minute, the demo, is kept under
`_build/frontpage` until the package or the demo changes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from base64 import b64decode
from html import escape
from pathlib import Path
from typing import Any

import demo
import yaml
from cards import Chapter, cards
from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "_build" / "frontpage"


def prepare(app: Sphinx, config: Config) -> None:
    """Make the parts and hand them to Sphinx."""
    stored = current_demo()
    chapters = [
        Chapter(path) for path in sorted((ROOT / "book").glob("[0-9]*.ipynb"))
    ]
    peers, strongest = (
        json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
        for name in ("peers", "strongest")
    )
    config.html_extra_path = [*config.html_extra_path, str(FOLDER)]
    config.myst_substitutions = {
        "sentence": sentence(stored, peers),
        "photographs": raw(photographs(stored)),
        "slider": raw(
            SLIDER.format(count=f"{count(stored):,}", **stored["weights"])
        ),
        "peers": table(peers),
        "strongest": table(strongest),
        "paths": raw(
            cards(
                FOLDER / "demo",
                chapters,
                yaml.safe_load((ROOT / "book" / "paths.yml").read_text()),
            )
        ),
    }


def current_demo() -> dict[str, Any]:
    """What the demo has stored; it is computed anew if the package or the demo itself has changed."""
    sources = [
        Path(demo.__file__),
        *sorted((ROOT / "src" / "eightbit").rglob("*.py")),
    ]
    key = hashlib.sha256(
        b"".join(path.read_bytes() for path in sources)
    ).hexdigest()
    stamp = FOLDER.with_suffix(".json")
    kept = json.loads(stamp.read_text()) if stamp.exists() else {}
    if kept.get("key") != key or kept["stored"]["runtime"] is None:
        print(
            "Computing the front page's demo: an EfficientNet-Lite0 in int8, about half a minute",
            flush=True,
        )
        shutil.rmtree(FOLDER, ignore_errors=True)
        kept = {"key": key, "stored": demo.build(FOLDER / "demo")}
        stamp.write_text(json.dumps(kept))
    return kept["stored"]


def sentence(stored: dict[str, Any], peers: dict[str, Any]) -> str:
    """What int8 is worth, in one sentence of numbers that were measured."""
    size = {
        kind: f"{count / 1e6:.1f} MB" for kind, count in stored["bytes"].items()
    }
    row = next(row for row in peers["rows"] if row["name"] == "default")
    same = round(row["agreement"] * peers["tested"])
    return (
        f"**An EfficientNet-Lite0 that was trained on ImageNet takes {size['float']} in float and {size['int8']} in "
        f"int8, and gives {same} of {peers['tested']} test pictures the same first answer.**"
    )


def photographs(stored: dict[str, Any]) -> str:
    """The photographs with their stored answers, which a script shows for the network that the reader chooses."""
    figures = []
    for shown in stored["photographs"]:
        answers = "".join(
            f'<p class="answer" data-kind="{kind}">{escape(answer(stored["classes"], shown[kind]))}</p>'
            for kind in ("float", "int8")
        )
        figures.append(
            f'<figure data-name="{shown["name"]}"><img src="../demo/{shown["name"]}.jpg" width="224" height="224" '
            f'alt="{escape(shown["shows"])}" title="Photograph: {escape(shown["credit"])}">'
            f"<figcaption>{answers}</figcaption></figure>"
        )
    return DEMO.format(figures="".join(figures))


def answer(classes: list[str], best: list[list[float]]) -> str:
    """The first class and its probability, as the page prints them."""
    return f"{classes[int(best[0][0])]} {best[0][1]:.0%}"


def count(stored: dict[str, Any]) -> int:
    """Weights of the slider's layer."""
    return len(b64decode(stored["weights"]["data"])) // 4


def table(peers: dict[str, Any]) -> str:
    """The table of quantizers in Markdown, with the machine it was measured on."""
    lines = [
        "| Quantizer | SQNR of the logits | same first answer | processor time |",
        "|:--|--:|--:|--:|",
    ]
    for row in peers["rows"]:
        if row["missing"] or row["name"].startswith("weights only"):
            continue
        ours = row["name"].startswith(("default", "plain"))
        name = f"**eightbit, {row['name']}**" if ours else row["name"]
        lines.append(
            f"| {name} | {row['sqnr_db']:.1f} dB | {row['agreement']:.1%} | {row['processor_seconds']:.0f} s |"
        )
    return "\n".join([*lines, "", f"Measured on {peers['machine']}."])


def raw(html: str) -> str:
    """HTML as a block of MyST."""
    return f"```{{raw}} html\n{html}\n```"


DEMO = """<div id="demo">
<div class="controls"><fieldset><legend>Answers of the network in</legend>
<label><input type="radio" name="kind" value="float" checked><span>float32</span></label>
<label><input type="radio" name="kind" value="int8"><span>int8</span></label></fieldset>
<dl><div><dt>file</dt><dd id="demo-bytes"></dd></div><div><dt>a picture</dt><dd id="demo-time"></dd></div>
<div><dt>same first answer</dt><dd id="demo-same"></dd></div></dl></div>
<div class="photographs">{figures}</div>
<div class="controls"><button type="button" id="demo-run" disabled>Run both here</button>
<label class="own">or your own picture <input type="file" id="demo-own" accept="image/*" disabled></label></div>
<p id="demo-status" role="status"></p>
</div>"""

SLIDER = """<div id="slider">
<div class="controls"><label>bits <output id="slider-bits-out"></output>
<input type="range" id="slider-bits" min="2" max="8" value="4"></label>
<label>range, of the largest weight <output id="slider-share-out"></output>
<input type="range" id="slider-share" min="5" max="100" value="100"></label></div>
<svg id="slider-plot" viewBox="0 0 600 220" role="img"
aria-label="Histogram of {count} weights and the codes' marks"></svg>
<p id="slider-says" role="status"></p>
<p><small>The {count} weights of the layer <code>{layer}</code> of the same network.</small></p>
</div>"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the parts before the pages are read."""
    app.connect("config-inited", prepare)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
