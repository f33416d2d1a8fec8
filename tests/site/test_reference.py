"""The reference pages name every module of the package, so that a new one is not forgotten, and can be read."""

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "eightbit"


def modules() -> set[str]:
    """Dotted names of all modules with public names; a package counts if its own file defines something."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1].startswith("__") and parts[-1] != "__init__":
            continue
        if parts[-1] == "__init__":
            if not re.search(r"^(def|class|from|import) ", path.read_text(), flags=re.MULTILINE):
                continue
            parts = parts[:-1]
        found.add(".".join(parts))
    return found


# The command line documents itself (`eightbit --help`).
LEFT_OUT = {name for name in modules() if f"{name}.".startswith("eightbit.cli.")}


def test_every_module_is_on_a_reference_page():
    pages = sorted((ROOT / "book" / "api").glob("*.rst"))
    named = [name for page in pages for name in re.findall(r"automodule:: (\S+)", page.read_text())]
    assert len(named) == len(set(named)), "a module is on two pages"
    assert modules() - LEFT_OUT == set(named)


@pytest.mark.site
def test_no_signature_holds_what_python_prints_of_its_own_objects(site: Path):
    """Tables of functions once filled screens with `<function ...>`."""
    unreadable = [
        f"{page.stem}: {said[:80]}"
        for page in sorted((site / "book" / "api").glob("*.html"))
        for said in (
            tag.get_text() for tag in BeautifulSoup(page.read_text(), "html.parser").select("dt.sig")
        )
        if re.search(r"<(function|class|built-in|bound|module)|object at 0x", said)
    ]
    assert not unreadable, "\n".join(unreadable)
