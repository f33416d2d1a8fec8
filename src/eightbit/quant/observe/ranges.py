"""Which range each tensor of a placement gets: by whose choice, from what it saw, or known without data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from eightbit.arith.affine import TINY, QuantParams, params_from_range
from eightbit.graph.forms import LAYERS, activations
from eightbit.graph.model import constant, is_op
from eightbit.quant.choose.placement import Placement
from eightbit.quant.choose.recipe import Activations, Recipe
from eightbit.quant.methods.calibrators import predicted_sqnr_db
from eightbit.quant.methods.observers import Histogram, Limits, State

FIXED_LIMITS = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0)}
"""Outputs whose limits are known without data."""
CODES = 2**8
"""Codes of a tensor: what its largest number is to its scale."""
RESIDUAL_FLOOR_DB = 28
"""In MiniLM, sums below it cost 0.5 to 4 points of cosine each when they were quantized; those above 31 cost none."""


def choices(model: ir.Model, placement: Placement, recipe: Recipe) -> dict[str, Activations]:
    """The choice for each observed tensor: that of the node which writes it, or of one that it saturates for."""
    ops = {str(node.name): node.op_type for node in model.graph}
    writers = {str(out.name): str(node.name) for node in model.graph for out in node.outputs}
    found = {}
    for name in placement.observed:
        writer = writers.get(name, name)  # an input of the graph is its own writer
        own = recipe.codes_of(writer, ops[writer] if name in writers else "")
        if own == recipe.codes and writer in placement.absorbed:
            source = placement.absorbed[writer]
            own = recipe.codes_of(source, ops[source])
        found[name] = own
    return found


def fixed_limits(model: ir.Model, placement: Placement) -> dict[str, Limits]:
    """The limits of the tensors that need no data to know them."""
    nodes = (node for node in model.graph if node.op_type in FIXED_LIMITS and node.name in placement.integer)
    return {str(node.outputs[0].name): FIXED_LIMITS[node.op_type] for node in nodes}


def beyond_float32(model: ir.Model, placement: Placement, states: Mapping[str, State]) -> dict[str, str]:
    """Nodes on numbers so small that the scales of their codes are no normal float32, with the reason.

    Engines multiply by scales, and by the product of those of two factors, and divide by them.
    """
    found = {}
    wanted = {*placement.layers, *placement.integer}

    def peak(value: ir.Value | None) -> float:
        array, state = constant(value), states.get("" if value is None else str(value.name))
        if array is not None:
            return float(np.abs(array).max(initial=0))
        return 0.0 if state is None else state.peak

    for node in model.graph:
        name = str(node.name)
        for value in (*activations(node), *node.outputs) if name in wanted else ():
            if 0 < peak(value) < CODES * TINY:
                found[name] = (
                    f"tensor '{value.name}' reaches {peak(value):.1e} only: float32 has no scale for its codes"
                )
        if name in wanted and is_op(node, *LAYERS, "Mul"):
            product = peak(node.inputs[0]) * peak(node.inputs[1])
            if 0 < product < CODES**2 * TINY:
                found[name] = "the scales of its two factors multiply to less than float32 holds"
    return found


def constant_ranges(model: ir.Model, placement: Placement, recipe: Recipe) -> dict[str, QuantParams]:
    """Parameters of the constant operands of integer ops, from the values themselves."""
    found = {}
    for node in model.graph:
        if node.name not in placement.integer or node.op_type == "Clip":
            continue
        for value in node.inputs:
            array = constant(value)
            if value is not None and array is not None:
                choice = recipe.codes_of(str(node.name), node.op_type)  # as fine as what the node writes
                lo, hi = float(array.min(initial=0)), float(array.max(initial=0))  # no element is a range
                found[str(value.name)] = params_from_range(lo, hi, choice.itype, symmetric=choice.symmetric)
    return found


def strained_sums(
    model: ir.Model, placement: Placement, states: Mapping[str, State], recipe: Recipe
) -> dict[str, str]:
    """Additions that only float ops read and whose sum does not fit eight bits, with the reason.

    The residual stream of a transformer holds a few values a hundred times larger than the rest. Where the next op is
    a LayerNorm in float, codes for the sum save nothing, and cost what the histogram says.
    """
    found = {}
    inside = {*placement.layers, *placement.integer, *placement.moves, *placement.absorbed}
    for node in model.graph:
        value = node.outputs[0]
        if node.op_type != "Add" or node.name not in placement.integer or value.is_graph_output():
            continue
        state = states.get(str(value.name))
        if any(use.node.name in inside for use in value.uses()) or not isinstance(state, Histogram):
            continue
        own = recipe.codes_of(str(node.name), node.op_type)
        kept = predicted_sqnr_db(own.range, state, own.itype, own.symmetric)
        if kept < RESIDUAL_FLOOR_DB:
            found[str(node.name)] = (
                f"outliers: codes would keep {kept:.0f} dB of its sum, less than {RESIDUAL_FLOOR_DB}"
            )
    return found
