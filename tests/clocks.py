"""Assertions that a clock decides: a busy machine would break them, and a fast one would hide what they look for."""

import ast

CLOCKS = {
    *("time", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "thread_time"),
    *("timeit", "interleaved"),
}


def timed_asserts(source: str) -> list[str]:
    """The assertions of a module or a cell that name something computed from a clock, as their source.

    Followed are assignments by name, in the order of the lines, and of a tuple its first name (`interleaved` gives
    times and a count). That a time is positive may be asserted, and how many there are.
    """
    kinds = ast.Assign | ast.AugAssign | ast.For | ast.Assert
    nodes = sorted((n for n in ast.walk(ast.parse(source)) if isinstance(n, kinds)), key=lambda n: n.lineno)
    timed: set[str] = set()
    found = []
    for node in nodes:
        if isinstance(node, ast.Assert):
            if _reads(node.test, timed) and not _only_positive(node.test):
                found.append(ast.unparse(node))
            continue
        if _reads(node.iter if isinstance(node, ast.For) else node.value, timed):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            first = (
                target.elts[0] if isinstance(target, ast.Tuple) and isinstance(node, ast.Assign) else target
            )
            timed |= {name.id for name in ast.walk(first) if isinstance(name, ast.Name)}
    return found


def _reads(value: ast.AST, timed: set[str]) -> bool:
    """Whether an expression calls a clock or names what came from one; `len(...)` tells no time."""
    if isinstance(value, ast.Call):
        called = ast.unparse(value.func)
        if called == "len":
            return False
        if called.rpartition(".")[2] in CLOCKS or called.startswith("timeit."):
            return True
    if isinstance(value, ast.Name):
        return value.id in timed
    return any(_reads(part, timed) for part in ast.iter_child_nodes(value))


def _only_positive(test: ast.expr) -> bool:
    """Whether every comparison in `test` is `x > 0` or `x >= 0`."""
    comparisons = [node for node in ast.walk(test) if isinstance(node, ast.Compare)]
    return bool(comparisons) and all(
        isinstance(c.ops[0], ast.Gt | ast.GtE)
        and isinstance(c.comparators[0], ast.Constant)
        and c.comparators[0].value == 0
        for c in comparisons
    )
