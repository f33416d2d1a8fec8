"""The patterns of `Recipe.overrides`: which nodes each means, and what to say where it means none.

A pattern is one of node names in shell style (`"classifier*"`), or with `op:` before it one of op types (`"op:Conv"`).
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

OP = "op:"
"""Before a pattern of op types."""


def matches(pattern: str, node: str, op: str) -> bool:
    """Whether a pattern means the node of this name and op type; an input of the graph has the op type "".

    >>> matches("op:*Pool", "pool1", "MaxPool"), matches("pool?", "pool1", "MaxPool"), matches("op:*", "image", "")
    (True, True, False)
    """
    if pattern.startswith(OP):
        return op != "" and fnmatchcase(op, pattern.removeprefix(OP))
    return fnmatchcase(node, pattern)


def named(name: str) -> str:
    """A pattern that means the node of this name alone.

    >>> named("a[0]"), named("op:a")
    ('a[[]0]', '[o]p:a')
    """
    text = "".join(f"[{c}]" if c in "*?[" else c for c in name)
    return f"[{text[0]}]{text[1:]}" if text.startswith(OP) else text


def no_match(pattern: str, nodes: Iterable[tuple[str, str]]) -> str:
    """What to say of a pattern that means none of `nodes`, (name, op type) each."""
    known = list(nodes)
    ops = list(dict.fromkeys(op for _, op in known if op))
    if pattern.startswith(OP):
        return f"override {pattern!r} matches no node; the ops of the graph are {_some(ops)}"
    meant = f"; for every {pattern} write {OP + pattern!r}" if pattern in ops else ""
    return f"override {pattern!r} matches no node; the graph has {_some([name for name, _ in known])}{meant}"


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
