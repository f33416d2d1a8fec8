"""Which names are taken, and new ones beside them.

Every name that this package makes up is asked for here. Tensors and nodes each have a space of names, which a graph
shares with the graphs inside its nodes: ONNX lets an inner graph read the outer one's tensors, so a name stands for one
tensor in all of them.

A search for a free name looks at every tensor of a graph. Where many are made up one after another, `counted` looks
once and keeps count: a name that was taken stays taken until the count ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import onnx_ir as ir

COUNT = "eightbit.names"
LONGEST = 120
"""Characters of a name that is made up: it is written wherever its tensor is read, so of a longer stem the end has to
do, which mostly tells more than the beginning."""


class Names:
    """The names that are taken.

    >>> names = Names(["x"])
    >>> names.fresh("x"), names.fresh("x"), names.fresh("y")
    ('x_1', 'x_2', 'y')
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self._last: dict[str, int] = {}  # the number that each stem's newest name ends in

    def fresh(self, stem: str) -> str:
        """`stem`, or the first of `stem_1`, `stem_2`, ... that is not taken; from now on it is."""
        name, count = stem, self._last.get(stem, 0)
        while name in self.taken:
            count += 1
            name = f"{stem}_{count}"
        self._last[stem] = count
        self.taken.add(name)
        return name

    def family(self, stem: str, endings: Iterable[str]) -> str:
        """`stem`, or the first of `stem_2`, `stem_3`, ... whose names with the `endings` are all free; they are taken.

        >>> Names(["x_q"]).family("x", ("_q", "_s"))
        'x_2'
        """
        endings, found, count = tuple(endings), stem, 1
        while any(found + ending in self.taken for ending in endings):
            count += 1
            found = f"{stem}_{count}"
        self.taken.update(found + ending for ending in endings)
        return found


def tensor_names(graph: ir.Graph) -> Iterator[str]:
    """Names of all tensors of `graph`, those inside its nodes' graphs included."""
    for part in (graph, *graph.subgraphs()):
        yield from (str(value.name) for value in (*part.inputs, *part.initializers.values()))
        yield from (str(value.name) for node in part for value in node.outputs)


def node_names(graph: ir.Graph) -> Iterator[str]:
    """Names of all nodes of `graph`, those inside its nodes' graphs included."""
    for part in (graph, *graph.subgraphs()):
        yield from (str(node.name) for node in part)


@dataclass(frozen=True)
class _Count:
    """The names of one graph that are taken while `counted` runs."""

    graph: ir.Graph
    tensors: Names
    nodes: Names


@contextmanager
def counted(graph: ir.Graph) -> Iterator[None]:
    """While the block runs, the functions below count the names of this graph instead of searching for them.

    Whoever names a tensor or a node in the block asks them for it. A block inside a block counts on.
    """
    if _count(graph) is not None:
        yield
        return
    graph.meta[COUNT] = _Count(graph, Names(tensor_names(graph)), Names(node_names(graph)))
    try:
        yield
    finally:
        del graph.meta[COUNT]


def unique_name(graph: ir.Graph, stem: str) -> str:
    """`stem`, or `stem_1`, `stem_2`, ... whichever no tensor of the graph uses yet; the end of a stem that is long."""
    return _tensors(graph).fresh(stem[-LONGEST:])


def unique_node_name(graph: ir.Graph, stem: str) -> str:
    """The same for a node."""
    count = _count(graph)
    names = Names(node_names(graph)) if count is None else count.nodes
    return names.fresh(stem[-LONGEST:])


def unique_stem(graph: ir.Graph, stem: str, endings: Iterable[str]) -> str:
    """`stem`, or `stem_2`, `stem_3`, ... behind which each of `endings` makes a name that no tensor uses yet."""
    return _tensors(graph).family(stem[-LONGEST:], endings)


def _tensors(graph: ir.Graph) -> Names:
    count = _count(graph)
    return Names(tensor_names(graph)) if count is None else count.tensors


def _count(graph: ir.Graph) -> _Count | None:
    """The count that runs on `graph`; that of a graph which it was cloned from is none of its own."""
    found: _Count | None = graph.meta.get(COUNT)
    return found if found is not None and found.graph is graph else None
