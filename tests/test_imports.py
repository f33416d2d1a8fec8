"""Imports between the package's folders run one way, and a folder knows only the libraries it may know."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "eightbit"

# A folder or module imports from those before it. Names on one line are of one rank.
ORDER = [
    ["errors"],
    ["arith"],
    ["graph"],
    ["quant"],
    ["target"],
    [
        *("answers", "comparison", "confidence", "explanation", "inspection", "labelled", "layers", "model"),
        *("npz", "page", "plot", "saliency", "tables", "tensorboard", "timing", "tuning"),
    ],
    ["train", "course", "cli"],
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
# The facade's modules serve one another; the last rank's do not: the course goes without the command line.
FACADE = set(ORDER[5])

# What the engine and the program may not know besides ONNX.
ONNX_SIDE = ("eightbit.graph", "eightbit.quant", "eightbit.target.lower", "eightbit.target.sessions")
ONNX_LIBRARIES = {"onnx", "onnx_ir", "onnxruntime", "onnxscript"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path: Path) -> str:
    """Top folder or module below the package: `arith` for arith/affine.py, `model` for model.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a module imports, wherever in the module it does so."""
    package = ["eightbit", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((node.lineno, arg.value) for arg in node.args if isinstance(arg, ast.Constant))


def against_order(importer: str, imported_name: str) -> bool:
    parts = imported_name.split(".")
    if parts[0] != "eightbit" or len(parts) < 2:
        return False
    target = parts[1]
    if target not in RANK:  # a public name of the package itself: `from eightbit import quantize`
        return importer not in {"cli", "course", "train"}
    if target == importer or (target in FACADE and importer in FACADE):
        return False
    return RANK[target] >= RANK[importer]


def test_every_part_of_the_package_has_a_rank():
    assert {part_of(path) for path in modules()} - {"__main__"} <= set(RANK)


@pytest.mark.parametrize(
    ("importer", "name", "wrong"),
    [
        ("graph", "eightbit.arith.affine", False),
        ("arith", "eightbit.graph.load", True),
        ("quant", "eightbit.target.engine", True),
        ("target", "eightbit.quant.recipe", False),
        ("comparison", "eightbit.model.Model", False),
        ("course", "eightbit.cli", True),
        ("errors", "eightbit.arith", True),
        ("quant", "eightbit.quantize", True),
        ("graph", "numpy", False),
    ],
)
def test_the_rule_itself(importer: str, name: str, wrong: bool):
    assert against_order(importer, name) is wrong


def test_imports_run_one_way():
    offenders = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in modules()
        if part_of(path) in RANK
        for line, name in imported(path)
        if against_order(part_of(path), name)
    ]
    assert offenders == []


def test_arithmetic_knows_numpy_only():
    offenders = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in modules()
        if part_of(path) == "arith"
        for line, name in imported(path)
        if name.split(".")[0] in ONNX_LIBRARIES | {"torch", "tensorflow", "scipy"}
    ]
    assert offenders == []


@pytest.mark.parametrize("module", ["program", "engine"])
def test_the_integer_program_and_its_engine_know_no_onnx(module: str):
    paths = [PACKAGE / "target" / f"{module}.py", *(PACKAGE / "target" / module).glob("**/*.py")]
    paths = [path for path in paths if path.exists()]
    assert paths, f"target/{module}.py is missing"
    offenders = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in paths
        for line, name in imported(path)
        if name.split(".")[0] in ONNX_LIBRARIES or name.startswith(ONNX_SIDE)
    ]
    assert offenders == []
