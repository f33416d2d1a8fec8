"""Imports between the package's folders run one way, and a folder knows only the libraries it may know."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "eightbit"

# The rooms in the road's order: a folder, or a module that has none, imports from those before it and from its own.
ROOMS = [
    *("errors", "files"),
    "values",
    "arith",
    "data",
    *("graph", "graph.source", "graph.prepare", "graph.rescale"),
    *("quant.methods", "quant.choose", "quant.observe", "quant.encode", "quant.write", "quant"),
    *("integer", "integer.engine", "integer.lower"),
    *("deploy.layout", "deploy.c", "deploy.tflite", "deploy"),
    "safety",
    "model",
    "pruning",
    "train",
    "plot",
    "report",
    "tuning",
    *("course", "course.zoo"),
    "cli",
]
RANK = {room: place for place, room in enumerate(ROOMS)}
# Public names of the package itself (`import eightbit as eb`) are for those who stand at the end of the road.
GUESTS = {"cli", "course", "course.zoo"}
LOOSE = {"errors", "files", "model"}

# What the engine and the program may not know besides ONNX.
ONNX_SIDE = ("eightbit.graph", "eightbit.quant", "eightbit.integer.lower", "eightbit.deploy.sessions")
ONNX_LIBRARIES = {"onnx", "onnx_ir", "onnxruntime", "onnxscript"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def module_of(path: Path) -> str:
    """Dotted name below the package: `arith.affine`; a folder's own file goes by the folder's name."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The folder that a module lies in, `quant` for `quant.quantize`; a module at the top is a room of its own."""
    if (PACKAGE / module.replace(".", "/")).is_dir() or "." not in module:
        return module
    return module.rpartition(".")[0]


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


def against_order(importer: str, name: str) -> bool:
    """Whether the module `importer` may not import the dotted `name`, of a module or of something in one."""
    if not f"{name}.".startswith("eightbit."):
        return False
    target = name.removeprefix("eightbit").removeprefix(".")
    while target and not any((PACKAGE / f"{target.replace('.', '/')}{end}").exists() for end in (".py", "")):
        target = target.rpartition(".")[0]
    own = room_of(importer)
    if not target:
        return own not in GUESTS
    room = room_of(target)
    return room != own and RANK[room] >= RANK[own]


def test_every_module_lies_in_a_known_room():
    assert {room_of(module_of(path)) for path in modules()} == set(ROOMS)


def test_nothing_is_loose_at_the_top():
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"} == LOOSE


@pytest.mark.parametrize(
    ("importer", "name", "wrong"),
    [
        ("graph.run", "eightbit.arith.affine", False),
        ("arith.affine", "eightbit.graph.source.load", True),
        ("quant.quantize", "eightbit.integer.engine", True),
        ("quant.quantize", "eightbit.quant.write.qdq", False),
        ("quant.write.qdq", "eightbit.quant.quantize", True),
        ("integer.lower.rules", "eightbit.quant.choose.recipe", False),
        ("report.comparison", "eightbit.model.Model", False),
        ("plot.networks", "eightbit.report.answers.Answers", True),
        ("course.zoo.train", "eightbit.cli.group", True),
        ("errors", "eightbit.arith", True),
        ("quant.quantize", "eightbit.quantize", True),
        ("cli.quantize", "eightbit.quantize", False),
        ("graph.run", "numpy", False),
    ],
)
def test_the_rule_itself(importer: str, name: str, wrong: bool):
    assert against_order(importer, name) is wrong


def test_imports_run_one_way():
    offenders = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in modules()
        for line, name in imported(path)
        if against_order(module_of(path), name)
    ]
    assert offenders == []


def test_no_module_imports_itself_through_others():
    known = {module_of(path) for path in modules()}
    graph = {}
    for path in modules():
        names = (name.removeprefix("eightbit.") for _, name in imported(path) if name.startswith("eightbit."))
        found = {name if name in known else name.rpartition(".")[0] for name in names}
        graph[module_of(path)] = (found & known) - {module_of(path)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as cause:
        pytest.fail(f"modules that import one another: {' -> '.join(cause.args[1])}")


def test_arithmetic_knows_numpy_only():
    offenders = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in modules()
        if room_of(module_of(path)) == "arith"
        for line, name in imported(path)
        if name.split(".")[0] in ONNX_LIBRARIES | {"torch", "tensorflow", "scipy"}
    ]
    assert offenders == []


@pytest.mark.parametrize("module", ["program", "engine"])
def test_the_integer_program_and_its_engine_know_no_onnx(module: str):
    paths = [PACKAGE / "integer" / f"{module}.py", *(PACKAGE / "integer" / module).glob("**/*.py")]
    paths = [path for path in paths if path.exists()]
    assert paths, f"integer/{module}.py is missing"
    offenders = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in paths
        for line, name in imported(path)
        if name.split(".")[0] in ONNX_LIBRARIES or name.startswith(ONNX_SIDE)
    ]
    assert offenders == []
