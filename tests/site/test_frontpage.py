"""The front page in a browser: the networks run, the slider counts as the package does, a file shows what is stored."""

import json
from pathlib import Path

import pytest

from tests.site.chromium import Tab

pytestmark = [pytest.mark.site, pytest.mark.browser]

NEAR = 0.02
"""Of a probability: kernels for other processors round some codes another way."""
LIVE = """new Promise(done => {
  const look = () => document.getElementById("demo").dataset.live ? done(document.getElementById("demo").dataset.live)
    : setTimeout(look, 50);
  look();
})"""
SHOWN = "Object.fromEntries(eightbitPage.shown)"


@pytest.fixture
def stored(site: Path) -> dict:
    """What the build computed."""
    text = (site / "demo" / "stored.js").read_text()
    return json.loads(text.removeprefix("window.eightbitDemo = ").removesuffix(";\n"))


def alike(found: list, expected: list) -> bool:
    """Whether two answers name the same class first, or one of two that were nearly as likely."""
    likely = dict(expected)
    index, share = found[0]
    return abs(likely.get(index, 0) - share) < NEAR and expected[0][1] - share < NEAR


@pytest.mark.slow
def test_both_networks_run_in_the_browser_and_answer_as_here(tab: Tab, server: str, stored: dict, site: Path):
    if stored["runtime"] is None:
        pytest.skip("the npm registry was out of reach when the site was built")
    tab.open(f"{server}/book/index.html")
    tab.run('document.getElementById("demo-run").click()')
    assert tab.run(LIVE) == "yes"
    shown = tab.run(SHOWN)
    wrong = [
        (photo["name"], kind, shown[photo["name"]][kind], photo[kind])
        for photo in stored["photographs"]
        for kind in ("float", "int8")
        if not alike(shown[photo["name"]][kind], photo[kind])
    ]
    assert wrong == []
    assert (tab.complaints(), tab.hosts()) == ([], {"127.0.0.1"})

    # A picture of the reader's own: here one of the eight, which has to get the same answer.
    tab.run('delete document.getElementById("demo").dataset.live')
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    field = tab.call("DOM.querySelector", nodeId=root, selector="#demo-own")["nodeId"]
    tab.call("DOM.setFileInputFiles", nodeId=field, files=[str(site / "demo" / "coffee.jpg")])
    assert tab.run(LIVE) == "yes"
    shown = tab.run(SHOWN)
    for kind in ("float", "int8"):
        assert shown["own"][kind][0][0] == shown["coffee"][kind][0][0]


def test_the_slider_counts_as_the_package_does(tab: Tab, server: str, stored: dict):
    tab.open(f"{server}/book/index.html")
    for check in stored["weights"]["checks"]:
        found = tab.run(f"eightbitPage.rounded({check['bits']}, {check['share']}).sqnr")
        assert found == pytest.approx(check["sqnr"], abs=1e-3)  # the page adds up in another order
    tab.run("""(() => {
      const share = document.getElementById("slider-share");
      share.value = 45;
      share.dispatchEvent(new Event("input"));
    })()""")
    said = tab.run('document.getElementById("slider-says").textContent')
    assert f"SQNR {stored['weights']['checks'][3]['sqnr']:.1f} dB: 16 codes" in said


def test_a_page_opened_from_a_file_shows_what_is_stored(tab: Tab, site: Path, stored: dict):
    tab.open((site / "book" / "index.html").as_uri())
    assert tab.complaints() == []
    assert "make serve" in tab.run('document.getElementById("demo-status").textContent')
    assert tab.run('document.getElementById("demo-run").disabled')
    tab.run('document.querySelector("input[value=int8]").click()')
    first = stored["photographs"][0]
    visible = tab.run('document.querySelector("#demo figure").innerText')
    assert visible.strip() == f"{stored['classes'][first['int8'][0][0]]} {first['int8'][0][1]:.0%}"
    assert tab.run(
        """[...document.querySelectorAll(".diagram img")].some(image => image.offsetWidth > 100)"""
    )


def test_a_path_shows_its_chapters_alone(tab: Tab, server: str):
    tab.open(f"{server}/book/index.html")
    shown = '[...document.querySelectorAll("#paths li")].filter(card => card.offsetWidth).length'
    everything = tab.run(shown)
    counts = {}
    for path in ("Engineer", "Student", "Researcher"):
        tab.run(f'document.querySelector("input[value={path}]").click()')
        counts[path] = tab.run(shown)
    assert counts["Student"] == everything
    assert 0 < counts["Engineer"] < counts["Researcher"] < everything
