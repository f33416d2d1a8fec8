"""Constants that hold the same: one in the file, and layers that share a weight stay alike on the way there.

While the graph is worked on, a layer's weight is its own: preparing makes copies of a shared one. What is done to the
copies (`rescale`, `quant.encode`) is the same for all that hold the same, or the int8 file would hold each, and be
larger than the float one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import onnx_ir as ir

from eightbit.graph.model import constant, input_at, is_op

SMALLEST = 1024
"""Numbers of a constant that is worth a look: as many for a weight as for its codes, whatever their width."""


def shared(model: ir.Model) -> ir.Model:
    """A copy in which large constants that hold the same are one; `model` itself where there are none.

    Scales and zero points are left alone: each belongs to one tensor, which may learn it.
    """
    grids = {
        value
        for node in model.graph
        if is_op(node, "QuantizeLinear", "DequantizeLinear")
        for value in node.inputs[1:]
    }
    fixed = {value for value in model.graph.initializers.values() if value.is_graph_output()}
    found = alike(value for value in model.graph.initializers.values() if value not in grids | fixed)
    if not found:
        return model
    names = [[str(value.name) for value in values] for values in found]
    result = model.clone()
    weights = result.graph.initializers
    for first, *others in names:
        for name in others:
            ir.convenience.replace_all_uses_with(weights[name], weights[first])
            del weights[name]
    return result


def tied(nodes: Iterable[ir.Node]) -> dict[str, ir.Value]:
    """The layers among `nodes` whose weight, input 1, others have as well: by name, with the first one's weight."""
    weights = {str(node.name): value for node in nodes if (value := input_at(node, 1)) is not None}
    first = {value: group[0] for group in alike(weights.values()) for value in group}
    found = {name: first.get(value, value) for name, value in weights.items() if constant(value) is not None}
    readers = Counter(found.values())
    return {name: value for name, value in found.items() if readers[value] > 1}


def alike(values: Iterable[ir.Value]) -> list[list[ir.Value]]:
    """Groups of two and more constants of at least SMALLEST numbers that hold the same, each in the order given."""
    likely: defaultdict[object, list[ir.Value]] = defaultdict(list)
    for value in dict.fromkeys(values):
        array = constant(value)
        if array is not None and array.size >= SMALLEST:
            likely[value.dtype, array.shape, array.reshape(-1)[:64].tobytes()].append(value)
    groups: defaultdict[object, list[ir.Value]] = defaultdict(list)
    for key, candidates in likely.items():
        for value in candidates if len(candidates) > 1 else []:
            array = constant(value)
            assert array is not None
            groups[key, array.tobytes()].append(value)
    return [group for group in groups.values() if len(group) > 1]
