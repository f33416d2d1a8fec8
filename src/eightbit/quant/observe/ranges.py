"""Which range each tensor of a placement gets: by whose choice, from what it saw, or known without data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from eightbit.arith.affine import TINY, QuantParams, params_from_range
from eightbit.graph.forms import ELEMENTWISE, LAYERS, Form, activations, ops
from eightbit.graph.model import constant, is_op
from eightbit.quant.choose.placement import Placement
from eightbit.quant.choose.recipe import Activations, Recipe
from eightbit.quant.methods.calibrators import MSE, MinMax, kept_db, predicted_sqnr_db
from eightbit.quant.methods.observers import Histogram, Limits, State

FIXED_LIMITS = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0)}
"""Outputs whose limits are known without data."""
CODES = 2**8
"""Codes of a tensor: what its largest number is to its scale."""
RESIDUAL_FLOOR_DB = 28
"""In MiniLM, sums below it cost 0.5 to 4 points of cosine each when they were quantized; those above 31 cost none."""
JOINED_FLOOR_DB = 20
"""What codes of one range have to keep of each tensor that a Concat joins for the model's user."""
MOST_LOST = 0.25
"""Share of the numbers that may become zero in front of a root or a logarithm. In basic-pitch and Silero, whose spectra
go through both, it is 0.34 to 0.72 of those that matter; in the divisions of PP-OCR's norms, below 0.15."""
STEEP = frozenset({"Log", "Sqrt", "Reciprocal"})
"""Functions that are steepest at zero."""
CARRYING = ELEMENTWISE | ops(Form.MOVE) | {"Concat", "ReduceSum", "ReduceSumSquare", "ReduceL2"}
"""Ops through which numbers near zero come out near zero, or the sum of such numbers."""


def choices(model: ir.Model, placement: Placement, recipe: Recipe) -> dict[str, Activations]:
    """The choice for each observed tensor: that of the node which writes it, or of one that it saturates for.

    Where only the largest value of many is read, a search for the least mean error would cut off just that one, so
    nothing is.
    """
    largest = _read_for_the_largest(model)
    kinds = {str(node.name): node.op_type for node in model.graph}
    writers = {str(out.name): str(node.name) for node in model.graph for out in node.outputs}
    found = {}
    for name in placement.observed:
        writer = writers.get(name, name)  # an input of the graph is its own writer
        own = recipe.codes_of(writer, kinds[writer] if name in writers else "")
        if own == recipe.codes and writer in placement.absorbed:
            source = placement.absorbed[writer]
            own = recipe.codes_of(source, kinds[source])
        found[name] = replace(own, range=MinMax()) if name in largest and isinstance(own.range, MSE) else own
    return found


def _read_for_the_largest(model: ir.Model) -> set[str]:
    """The tensors of which a maximum over all places is taken, and nothing else is read."""
    through = ELEMENTWISE | ops(Form.MOVE)
    found: set[str] = set()
    for node in reversed(list(model.graph)):
        value = node.outputs[0]
        readers = [use.node for use in value.uses()]
        if (
            not value.is_graph_output()
            and readers
            and all(
                is_op(reader, "GlobalMaxPool", "ReduceMax")
                or (reader.op_type in through and str(reader.outputs[0].name) in found)
                for reader in readers
            )
        ):
            found.add(str(value.name))
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


def outweighed(
    model: ir.Model, placement: Placement, states: Mapping[str, State], recipe: Recipe
) -> dict[str, str]:
    """Concats with which nothing computes, and in whose one range an input would be lost, with the reason.

    A detector hands out boxes in pixels and scores below one: codes that reach the pixels have none between two scores.
    """
    wanted, idle = choices(model, placement, recipe), _idle(model, placement)
    found = {}
    for node in model.graph:
        value = node.outputs[0]
        state, choice = states.get(str(value.name)), wanted.get(str(value.name))
        if not is_op(node, "Concat") or node.name not in placement.integer or value not in idle:
            continue
        if choice is None or not isinstance(state, Histogram):
            continue
        joint = choice.range.limits(state, choice.itype, choice.symmetric)
        for part in activations(node):
            source = placement.sources[str(part.name)]
            own, seen = wanted[source], states.get(source)
            if isinstance(seen, Histogram):
                kept = kept_db(joint, seen, choice.itype, choice.symmetric)
                alone = predicted_sqnr_db(own.range, seen, own.itype, own.symmetric)
                if kept < min(JOINED_FLOOR_DB, alone):
                    found[str(node.name)] = (
                        f"codes of one range for all that it joins would keep {kept:.0f} dB of '{part.name}'"
                    )
    return found


def _idle(model: ir.Model, placement: Placement) -> set[ir.Value]:
    """The tensors with whose codes nothing computes: they leave the graph, or float ops read them, through moves."""
    busy = {*placement.layers, *placement.integer, *placement.functions, *placement.absorbed}
    joining = {str(n.name) for n in model.graph if is_op(n, "Concat")}
    passing = joining.union(placement.moves)
    found: set[ir.Value] = set()

    def reads(node: ir.Node) -> bool:
        if node.name in passing:
            return not found.issuperset(node.outputs)
        return node.name in busy

    for node in reversed(list(model.graph)):
        found.update(v for v in node.outputs if not any(reads(use.node) for use in v.uses()))
    return found


def drowned(
    model: ir.Model, placement: Placement, states: Mapping[str, State], recipe: Recipe
) -> dict[str, str]:
    """Nodes whose numbers near zero would become zero, and are read by a root or a logarithm, with the reason.

    The spectrum of a sound spans many octaves. The quiet ones add nothing to the noise that a range is chosen by, and
    behind a logarithm they are half of what is heard. Layers that filter the sound before are left in float with them.
    """
    wanted = choices(model, placement, recipe)
    inside = {*placement.layers, *placement.integer}
    why: dict[ir.Value, str] = {}  # what the numbers near zero of a tensor are read by
    fed: set[ir.Value] = set()  # tensors that reach a layer left in float
    found: dict[str, str] = {}
    for node in reversed(list(model.graph)):
        name, value = str(node.name), node.outputs[0]
        by, coder = why.get(value), placement.absorbed.get(name, name)
        if by is not None and coder in inside:
            lost = _lost(states.get(str(value.name)), wanted.get(str(value.name)))
            if value in fed:
                found[coder] = f"it feeds {by}, which is in float"
            elif lost > MOST_LOST:
                found[coder] = f"{lost:.0%} of its numbers would be zero in codes, and a {by} reads them"
        heard = [v for v in node.inputs if v is not None]
        if name in found and name in placement.layers:
            why.update(dict.fromkeys(heard, f"'{name}'"))
            fed.update(heard)
        elif node.op_type in STEEP or (node.op_type in CARRYING and by is not None):
            why.update(dict.fromkeys(heard, by or node.op_type))
            fed.update(heard if value in fed else ())
        elif is_op(node, "Div"):
            why.update(dict.fromkeys(heard[1:], "Div"))
    return found


def _lost(state: State | None, choice: Activations | None) -> float:
    """The share of the numbers other than zero that codes of this choice would make zero."""
    if choice is None or not isinstance(state, Histogram) or state.exponent is None:
        return 0.0
    limits = choice.range.limits(state, choice.itype, choice.symmetric)
    scale = float(params_from_range(*limits, choice.itype, symmetric=choice.symmetric).scale)
    centers, counts = state.occupied()
    return float(counts[np.abs(centers) < scale / 2].sum() / counts.sum())
