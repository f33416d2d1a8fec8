"""The embedding look-ups of a graph: four nodes around a table of codes, as one operation of the program."""

from __future__ import annotations

import onnx_ir as ir

from eightbit.graph.embeddings import code_table
from eightbit.graph.model import dims
from eightbit.integer import program as p


def embeddings(qdq: ir.Model) -> tuple[list[p.Op], set[ir.Node]]:
    """The operation of every look-up in a table of codes, and the nodes that they stand for."""
    ops: list[p.Op] = []
    covered: set[ir.Node] = set()
    for node in qdq.graph:
        table = code_table(node)
        if table is not None:
            ends = (str(table.ids.name),), (str(table.last.outputs[0].name),)
            ids = dims(table.ids), (table.ids.dtype or ir.DataType.INT64).numpy().name
            ops.append(p.Embedding(str(node.name), *ends, table.codes, table.scale, *ids))
            covered |= table.nodes
    return ops, covered
