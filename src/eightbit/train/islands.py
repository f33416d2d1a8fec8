"""Float islands with a gradient: the nodes of a small ONNX model, run by a framework that can differentiate them.

In: a `FloatIsland`, its inputs as tensors. Out: its outputs. What depends on constants and shapes alone is computed by
ONNX's reference, in NumPy; `nodes` has a rule for the other ops. One that is not there is an error with its name: the
layers before it could not learn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from eightbit.integer import program as p
from eightbit.train.nodes import FROZEN, RULES, Value
from eightbit.train.ops import Ops


@dataclass(frozen=True, eq=False)
class Island:
    """The graph of an island, and what computes its nodes that depend on constants and shapes alone, by number.

    `known` are the outputs of such nodes.
    """

    graph: onnx.GraphProto
    evaluators: Mapping[int, ReferenceEvaluator]
    known: frozenset[str]

    @property
    def without_gradient(self) -> list[str]:
        """The nodes that have none here, each with the path of its module or layer."""
        rest = [node for i, node in enumerate(self.graph.node) if i not in self.evaluators]
        return [_at(n) for n in rest if n.op_type not in RULES or n.domain not in ("", "ai.onnx")]


def island(op: p.FloatIsland, known: Iterable[str]) -> Island:
    """An island whose inputs `known` are arrays that depend on constants and shapes alone."""
    return _island(op.model, frozenset(known).intersection(op.inputs))


@lru_cache(maxsize=256)
def _island(data: bytes, given: frozenset[str]) -> Island:
    model = onnx.load_model_from_string(data)
    opsets = {o.domain: o.version for o in model.opset_import}
    names = {"", *given, *(t.name for t in model.graph.initializer)}
    evaluators: dict[int, ReferenceEvaluator] = {}
    made: set[str] = set()
    for i, node in enumerate(model.graph.node):
        ours = node.domain in ("", "ai.onnx") and not any(a.HasField("g") or a.graphs for a in node.attribute)
        settled = node.op_type not in FROZEN and all(name in names for name in node.input)
        ours = ours and bool(
            node.input or node.op_type == "Constant"
        )  # random numbers have no inputs, either
        if ours and settled:
            evaluators[i] = ReferenceEvaluator(node, opsets=opsets)
        if ours and (settled or node.op_type == "Shape"):
            names |= set(node.output)
            made |= set(node.output)
    return Island(model.graph, evaluators, frozenset(made))


def run_island(op: p.FloatIsland, inputs: Mapping[str, Value], ops: Ops) -> dict[str, Value]:
    """The outputs of an island by name; those that depend on constants and shapes alone are arrays."""
    found = island(op, [name for name, value in inputs.items() if isinstance(value, np.ndarray)])
    values: dict[str, Value] = {t.name: numpy_helper.to_array(t) for t in found.graph.initializer}
    values.update(inputs)
    for i, node in enumerate(found.graph.node):
        made: Any
        if i in found.evaluators:
            feeds = {name: values[name] for name in node.input if name}
            made = list(map(np.asarray, found.evaluators[i].run(None, feeds)))
        else:
            given = [values[name] if name else None for name in node.input]
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            made = RULES[node.op_type](ops, attributes, *given)
        values.update(zip(node.output, made if isinstance(made, list) else [made], strict=False))
    return {info.name: values[info.name] for info in found.graph.output}


def _at(node: onnx.NodeProto) -> str:
    """What a node is, and where: names that `load` gives are the module's path, and the op where it has several."""
    module = re.sub(rf"\.{node.op_type.lower()}(_\d+)?$", "", node.name)
    return f"{node.op_type} in {module!r}" + ("" if module == node.name else f" (node {node.name!r})")
