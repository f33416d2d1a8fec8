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

from eightbit.graph.embeddings import code_table, float_table
from eightbit.graph.model import add_constant
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
    graph = model.graph
    known: dict[str, tuple[ir.Value, ir.Value]] = {}
    for node in list(graph):
        table = tables.get(str(node.name))
        if table is None:
            continue
        source, ids, rows, name = node.inputs[0], node.inputs[1], node.outputs[0], str(node.name)
        assert source is not None and ids is not None
        stem = str(source.name)
        if stem not in known:
            scales = np.ascontiguousarray(table.scale.reshape(-1, 1))
            known[stem] = (
                add_constant(graph, f"{stem}_q", table.weight),
                add_constant(graph, f"{stem}_s", scales),
            )
        codes, scale = known[stem]
        picked = ir.node("Gather", [codes, ids], name=name)
        cast = ir.node("Cast", picked.outputs, {"to": ir.DataType.FLOAT}, name=f"{name}_to_float")
        steps = ir.node("Gather", [scale, ids], name=f"{name}_scale")
        scaled = ir.node("Mul", [cast.outputs[0], steps.outputs[0]], name=f"{name}_scaled")
        made = [picked, cast, steps, scaled]
        of_step = None if rows.shape is None else ir.Shape([*rows.shape[:-1], 1])
        for part, suffix, dtype, shape in (
            (picked, "_codes", ir.DataType.from_numpy(table.weight.dtype), rows.shape),
            (cast, "_codes_f", ir.DataType.FLOAT, rows.shape),
            (steps, "_steps", ir.DataType.FLOAT, of_step),
            (scaled, "_rows", ir.DataType.FLOAT, rows.shape),
        ):
            value = part.outputs[0]
            value.name, value.type, value.shape = f"{rows.name}{suffix}", ir.TensorType(dtype), shape
        ir.convenience.replace_nodes_and_values(graph, node, [node], made, [rows], scaled.outputs)
        if not source.uses() and stem in graph.initializers:
            del graph.initializers[stem]


def encoded_tables(qdq: ir.Model) -> dict[str, tuple[str, EncodedLayer]]:
    """The name of the table, and its integers, for each Gather that picks rows of codes."""
    found = {}
    for node in qdq.graph:
        table = code_table(node)
        if table is not None:
            name = str(table.constants[0].name).removesuffix("_q")
            found[str(node.name)] = name, EncodedLayer(table.codes, table.scale)
    return found
