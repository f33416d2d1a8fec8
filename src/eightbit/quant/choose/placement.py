"""Where integers go in a graph: the names of its nodes by what becomes of them, and the tensors that become codes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Island:
    """A node left in float, and why."""

    node: str
    op: str
    reason: str


@dataclass(frozen=True)
class Placement:
    """Names only: a placement of one graph can be applied to any copy of it.

    `layers` and `integer` are node names; `sources` maps each tensor to be quantized to the tensor whose range it
    takes (itself, or where its codes come from); `absorbed` maps a clamp to the node that saturates in its place;
    `tables` are the Gathers that pick rows of a table of codes; `functions` the nodes that spell out functions of one
    number: between codes each of those is rounded once, and becomes a table in the integer program.
    """

    layers: tuple[str, ...]
    integer: tuple[str, ...]
    moves: tuple[str, ...]
    absorbed: dict[str, str]
    sources: dict[str, str]
    islands: tuple[Island, ...]
    tables: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()

    def in_integers(self, nodes: Collection[str]) -> Placement:
        """The same, with nodes that were left in float, or to a function, among the integer ones."""
        return replace(
            self,
            integer=(*self.integer, *nodes),
            islands=tuple(island for island in self.islands if island.node not in nodes),
            functions=tuple(name for name in self.functions if name not in nodes),
        )

    @property
    def observed(self) -> tuple[str, ...]:
        """The tensors whose ranges calibration must find."""
        return tuple(dict.fromkeys(self.sources.values()))
