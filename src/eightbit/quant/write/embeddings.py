"""Embedding tables to codes: a float graph and the names of its look-ups in, int8 rows with a scale each out.

A row is the vector of one token, and rows differ in size, so each has a scale of its own: in MiniLM's table of words
one scale for all keeps 27 dB, one a row 43 (`graph.embeddings` shows the nodes). Rows are rounded to the nearest codes,
whatever the recipe rounds layers with: a row is not summed with others, so there is nothing to make up for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from eightbit.graph.coded import CODES, float_name
from eightbit.graph.embeddings import code_table, float_table
from eightbit.graph.model import register_constant
from eightbit.graph.names import counted, unique_name, unique_node_name, unique_stem
from eightbit.quant.choose.recipe import PerChannel, Recipe
from eightbit.quant.encode.weights import EncodedLayer, fit_scale
from eightbit.quant.methods.rounding import Nearest


def encode_tables(model: ir.Model, names: Iterable[str], recipe: Recipe) -> dict[str, EncodedLayer]:
    """The codes (V, K) and scales float32 (V,) that `recipe` gives the tables of the named Gathers."""
    wanted = set(names)
    found = {}
    for node in model.graph:
        name = str(node.name)
        table = float_table(node) if name in wanted else None
        if table is not None:
            choice = replace(recipe.for_layer(name, node.op_type).weights, granularity=PerChannel())
            scale = fit_scale(table, choice)
            codes = Nearest().codes(table[None], scale[None, :, None], choice.itype, None)[0]
            found[name] = EncodedLayer(np.ascontiguousarray(codes, choice.itype.dtype), scale)
    return found


def insert_tables(model: ir.Model, tables: Mapping[str, EncodedLayer]) -> None:
    """Let the named Gathers of `model` read codes, in place."""
    known: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    with counted(model.graph):
        for node in [n for n in model.graph if n.name in tables]:
            source = node.inputs[0]
            assert source is not None
            if source not in known:
                known[source] = _constants(model.graph, str(source.name), tables[str(node.name)])
            _rewrite(model.graph, node, *known[source])
            if source.is_initializer() and not source.uses() and not source.is_graph_output():
                del model.graph.initializers[str(source.name)]


def _constants(graph: ir.Graph, name: str, table: EncodedLayer) -> tuple[ir.Value, ir.Value]:
    """The codes (V, K) and scales (V, 1) of the table called `name`, new in the graph."""
    stem = unique_stem(graph, name, (CODES, "_s"))
    scales = np.ascontiguousarray(table.scale.reshape(-1, 1))
    return register_constant(graph, stem + CODES, table.weight), register_constant(graph, f"{stem}_s", scales)


def _rewrite(graph: ir.Graph, node: ir.Node, codes: ir.Value, scale: ir.Value) -> None:
    """Let one Gather pick codes and scales."""
    ids, rows, name = node.inputs[1], node.outputs[0], str(node.name)
    picked = ir.node("Gather", [codes, ids], name=name)
    cast = ir.node("Cast", picked.outputs, {"to": ir.DataType.FLOAT})
    steps = ir.node("Gather", [scale, ids])
    scaled = ir.node("Mul", [cast.outputs[0], steps.outputs[0]])
    for part, ending in ((cast, "to_float"), (steps, "scale"), (scaled, "scaled")):
        part.name = unique_node_name(graph, f"{name}_{ending}")
    of_step = None if rows.shape is None else ir.Shape([*rows.shape[:-1], 1])
    floats = ir.TensorType(ir.DataType.FLOAT)
    for part, suffix, kind, shape in (
        (picked, "_codes", codes.type, rows.shape),
        (cast, "_codes_f", floats, rows.shape),
        (steps, "_steps", floats, of_step),
        (scaled, "_rows", floats, rows.shape),
    ):
        value = part.outputs[0]
        value.name, value.type, value.shape = unique_name(graph, f"{rows.name}{suffix}"), kind, shape
    made = [picked, cast, steps, scaled]
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, [rows], scaled.outputs)


def encoded_tables(qdq: ir.Model) -> dict[str, tuple[str, EncodedLayer]]:
    """The name of the table, and its integers, for each Gather that picks rows of codes."""
    found = {}
    for node in qdq.graph:
        table = code_table(node)
        if table is not None:
            name = float_name(table.constants[0])
            found[str(node.name)] = name, EncodedLayer(table.codes, table.scale)
    return found
