"""Which names are taken, and new ones beside them.

A search for a free name looks at every tensor of a graph. Where many are made up one after another, `counted` looks
once and keeps count: a name that was taken stays taken until the count ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import onnx_ir as ir

COUNT = "eightbit.names"


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


def tensor_names(graph: ir.Graph) -> Iterator[str]:
    """Names of all tensors of `graph`, those inside its nodes' graphs included."""
    for part in (graph, *graph.subgraphs()):
        yield from (str(value.name) for value in (*part.inputs, *part.initializers.values()))
        yield from (str(value.name) for node in part for value in node.outputs)


@contextmanager
def counted(graph: ir.Graph) -> Iterator[None]:
    """While the block runs, `unique_name` on this graph counts names instead of searching for them.

    Whoever names a tensor in the block asks `unique_name` for it.
    """
    graph.meta[COUNT] = Names(tensor_names(graph))
    try:
        yield
    finally:
        del graph.meta[COUNT]


def unique_name(graph: ir.Graph, stem: str) -> str:
    """`stem`, or `stem_1`, `stem_2`, ... whichever no tensor of the graph uses yet."""
    names = graph.meta.get(COUNT) or Names(tensor_names(graph))
    return names.fresh(stem)
