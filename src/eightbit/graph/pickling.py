"""Values that hold a graph, copied and pickled.

A graph is nodes that know their neighbours: pickled as such it would take a recursion as deep as the network. It goes
as the bytes of an ONNX file. What was made from it on first use (a session, which no process can hand to another, the
integer program) stays behind, and is made again where it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import onnx
import onnx_ir as ir

from eightbit.graph.run import to_bytes


class HoldsGraph:
    """Copies and pickles its attributes, each `onnx_ir.Model` as bytes, without its cached properties."""

    def __getstate__(self) -> dict[str, Any]:
        return {n: _Onnx(to_bytes(v)) if isinstance(v, ir.Model) else v for n, v in self._kept().items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({n: v.graph() if isinstance(v, _Onnx) else v for n, v in state.items()})

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self._kept())
        return made

    def _kept(self) -> dict[str, Any]:
        """The attributes that a copy has, too."""
        members = {name: value for kind in type(self).__mro__ for name, value in vars(kind).items()}
        return {n: v for n, v in self.__dict__.items() if not isinstance(members.get(n), cached_property)}


@dataclass(frozen=True)
class _Onnx:
    """A graph on its way, as the bytes of an ONNX file."""

    content: bytes

    def graph(self) -> ir.Model:
        return ir.from_proto(onnx.load_from_string(self.content))
