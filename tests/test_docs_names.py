"""What the words in backticks name is there: modules, functions, files, folders, targets of make.

Read are README, CONTRIBUTING and every docstring. A span in backticks is

- a path, if it ends in `/` or in the ending of a source file: a path of the project ends in it, or the package writes a
  file of this name;
- a dotted name, with or without a call's brackets: a module of the package, or a public name of it, and what is found
  there; or what the code beside it calls so, if the rest occurs in the code; or another package;
- a single name in the way of Python's functions (`fit_scale`, but neither `axis` nor what ends like `x_q`): it occurs
  in the code;
- `make` and a word: a target, of the project's Makefile or of one that the package writes;
- anything else, which names nothing that could be looked up.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import eightbit

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "eightbit"
PAGES = ("README.md", "CONTRIBUTING.md")
SPAN = re.compile(r"(?<!`)(``?)(?!`)([^`\n]+)\1(?!`)")
FILE = re.compile(r"[\w./-]+(/|\.(py|md|yml|lock|sh|mjs|txt|jsonl|c|h))")
OURS = re.compile(r"[a-z]\w*_\w*[a-z]{3}")
DOTTED = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(\(.*\))?")


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def modules() -> dict[str, list[str]]:
    """Every way to write a module's name, such as `encode.weights`, and the modules that it may be."""
    found: dict[str, list[str]] = {"eb": ["eightbit"]}
    for path in trees():
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        for start in range(len(parts)):
            found.setdefault(".".join(parts[start:]), []).append(".".join(parts))
    return found


@cache
def paths() -> frozenset[str]:
    """Every file and folder of the project, and every tail of its path."""
    tops = [p for p in ROOT.iterdir() if not p.name.startswith(".") or p.name == ".github"]
    inside = [p for top in tops if top.is_dir() and not top.is_symlink() for p in top.rglob("*")]
    found = set()
    for path in [*tops, *inside]:
        parts = path.relative_to(ROOT).parts
        found.update("/".join(parts[start:]) for start in range(len(parts)))
    return frozenset(found)


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.value


@cache
def texts() -> str:
    """The strings in the package's code that are no docstrings, and its files that are no Python."""
    found = [path.read_text() for path in PACKAGE.rglob("*") if path.suffix in (".h", ".c", ".md", ".txt", "")
             and path.is_file()]  # fmt: skip
    for tree in trees().values():
        prose = {id(text) for text in docstrings(tree)}
        found += [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                  and id(n) not in prose]  # fmt: skip
    return "\n".join(found)


@cache
def words(path: Path) -> frozenset[str]:
    """The names in a file's code, and the words in its strings that are no docstrings."""
    tree = trees()[path]
    prose = {id(text) for text in docstrings(tree)}
    found: set[str] = set()
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            text = getattr(node, field, None)
            if isinstance(text, str):
                found.update(text.split("."))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found.update(re.findall(r"\w+", node.value))
    return frozenset(found)


@cache
def all_words() -> frozenset[str]:
    tests = texts() + "\n".join(
        path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)
    )
    return frozenset(re.findall(r"\w+", tests)).union(*map(words, trees()))


def resolves(name: str) -> bool:
    """Whether a dotted name leads from a module of the package, or from a public name of it, to something."""
    parts = name.split(".")
    starts = [
        (importlib.import_module(module), parts[length:])
        for length in range(len(parts), 0, -1)
        for module in modules().get(".".join(parts[:length]), [])
    ]
    return any(_leads(start, rest) for start, rest in [*starts, (eightbit, parts)])


def _leads(found: object, steps: list[str]) -> bool:
    for step in steps:
        if not isinstance(found, ModuleType) and step in getattr(found, "__annotations__", {}):
            return True  # a field without a default is no attribute of its class
        if not hasattr(found, step):
            return False
        found = getattr(found, step)
    return True


def is_gone(span: str, beside: frozenset[str]) -> bool:
    """Whether a span in backticks names what is not there; `beside` are the words of the code around it."""
    if span.startswith("make "):
        made = (ROOT / "Makefile").read_text() + "\n" + texts()
        return span.split()[1] not in re.findall(r"^([a-z]+):", made, re.MULTILINE)
    if FILE.fullmatch(span) and not span.startswith((".venv", "/")):
        return span.rstrip("/") not in paths() and span not in texts()
    match = DOTTED.fullmatch(span)
    if match is None:
        return False
    head, *rest = match[1].split(".")
    if not rest:
        return OURS.fullmatch(head) is not None and head not in all_words() and head not in modules()
    if resolves(match[1]):
        return False
    if head in beside:
        return not all_words().issuperset(rest)
    return head in modules() or find_spec(head) is None


def gone(text: str, beside: frozenset[str]) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [m[2] for m in SPAN.finditer(prose) if is_gone(m[2].strip(), beside)]


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_what_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    code = re.findall(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE)
    assert gone(text, frozenset(re.findall(r"\w+", "\n".join(code)))) == []


def test_docstrings_name_what_is_there() -> None:
    found = {}
    for path, tree in trees().items():
        for text in docstrings(tree):
            missing = gone(str(text.value), words(path))
            if missing:
                found[f"{path.relative_to(ROOT)}:{text.lineno}"] = missing
    assert found == {}


@pytest.mark.parametrize(
    ("span", "is_there"),
    [
        ("quant.encode.weights.encode_layer", True),
        ("weights.encode_layer", True),
        ("weights.encode_layers", False),
        ("quant/encode/weights.py", True),
        ("quant/encode/wights.py", False),
        ("eightbit.errors", True),
        ("eightbit.target", False),
        ("recipe.PerChannel(axis=0)", True),
        ("Recipe.for_layer", True),
        ("numpy.savez", True),
        ("tests/conformance/", True),
        ("tests/target/", False),
        ("make lint", True),
        ("make check", True),
        ("selftest.c", True),
        ("nett.c", False),
        ("make coffee", False),
        ("a name of nothing", True),
        ("channel_scales", True),
        ("chanel_scales", False),
        ("Recipe.overrides", True),
        ("Recipe.underrides", False),
        ("here.channel_scales", True),
        ("here.chanel_scales", False),
    ],
)
def test_a_name_that_is_gone_is_found(span: str, is_there: bool) -> None:
    assert is_gone(span, frozenset({"here"})) is not is_there
