"""What stays in float: connected float nodes between codes and codes, cut out as small ONNX models.

Nodes are sorted into levels by how often the path to them changes between float and codes; an island is a connected
part of one level. A path that leaves a level never comes back to it, so no island waits for its own result.

An island of element-by-element operators that reads one tensor of codes and ends in one QuantizeLinear is a function
of one code: it is run once on all of them (256, or 65,536) and becomes a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from eightbit.arith.affine import dequantize, quantize
from eightbit.errors import EngineError
from eightbit.graph.forms import ELEMENTWISE, Form, ops
from eightbit.graph.model import constant, title
from eightbit.graph.run import session
from eightbit.integer import program as p
from eightbit.integer.lower.codes import CodeTensors


def find_islands(qdq: ir.Model, nodes: Mapping[ir.Node, str], codes: CodeTensors) -> list[p.Op]:
    """The islands that the float `nodes` (in graph order) form, as Lookup where one code decides, else FloatIsland.

    `nodes` say why each is in float. A constant that is an output of the graph is an island of its own, which has no
    input and stands for no node.
    """
    given = [v for v in qdq.graph.outputs if v.is_initializer() and not v.is_graph_input()]
    if not nodes and not given:
        return []
    cutter = _Cutter(qdq, codes, nodes)
    return [
        *(cutter.hand_out(value) for value in given),
        *(cutter.cut(group) for group in _groups(qdq, nodes)),
    ]


def _groups(qdq: ir.Model, nodes: Iterable[ir.Node]) -> list[list[ir.Node]]:
    """Connected float nodes of one level."""
    in_float = set(nodes)
    level: dict[ir.Node, int] = {}
    parent: dict[ir.Node, ir.Node] = {}

    def root(node: ir.Node) -> ir.Node:
        while parent.setdefault(node, node) is not node:
            node = parent[node]
        return node

    for node in qdq.graph:
        sources = [s for s in (v.producer() for v in _reads(node)) if s is not None and s in level]
        floating = node in in_float
        level[node] = max((level[s] + ((s in in_float) != floating) for s in sources), default=0)
        if floating:
            for source in sources:
                if source in in_float and level[source] == level[node]:
                    parent[root(node)] = root(source)
            root(node)
    groups: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        groups.setdefault(root(node), []).append(node)
    return list(groups.values())


def _reads(node: ir.Node) -> list[ir.Value]:
    """Values a node reads, those its subgraphs take from outside included."""
    values = [v for v in node.inputs if v is not None]
    for attribute in node.attributes.values():
        graphs = (
            [attribute.value]
            if attribute.type == ir.AttributeType.GRAPH
            else attribute.value
            if attribute.type == ir.AttributeType.GRAPHS
            else []
        )
        for graph in graphs:
            inner = {v for n in graph.all_nodes() for v in n.outputs} | set(graph.inputs)
            inner |= set(graph.initializers.values())
            values += [v for n in graph.all_nodes() for v in n.inputs if v is not None and v not in inner]
    return values


class _Cutter:
    """Cuts groups of nodes out of one graph."""

    def __init__(self, qdq: ir.Model, codes: CodeTensors, reasons: Mapping[ir.Node, str]) -> None:
        self.proto = ir.to_proto(qdq)
        self.reasons = reasons
        self.codes = codes
        self.position = {node: i for i, node in enumerate(qdq.graph)}
        self.weights = {t.name: t for t in self.proto.graph.initializer}
        self.outputs = {v.name for v in qdq.graph.outputs}

    def hand_out(self, value: ir.Value) -> p.FloatIsland:
        """An island that hands out a constant."""
        name = str(value.name)
        node = helper.make_node("Constant", [], [name], name, value=self.weights[name])
        return p.FloatIsland(name, (), (name,), self._serialized([node], [], [value], []), (), ())

    def cut(self, group: list[ir.Node]) -> p.Op:
        """One island: a table if one code decides, else a float model."""
        inside = self._with_constants(group)
        made = {v for node in inside for v in node.outputs}
        reads = [v for node in inside for v in _reads(node) if v not in made]
        inputs = [v for v in dict.fromkeys(reads) if v.name not in self.weights and constant(v) is None]
        outputs = [
            v
            for node in group
            for v in node.outputs
            if v.name and (v.name in self.outputs or any(use.node not in inside for use in v.uses()))
        ]
        model = self._model(inside, inputs, outputs)
        names = tuple(title(node) for node in group)
        table = self._table(group, inputs, outputs, model)
        if table is not None:
            return table
        return p.FloatIsland(
            names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}",
            tuple(str(v.name) for v in inputs),
            tuple(str(v.name) for v in outputs),
            model,
            names,
            tuple(self.reasons[node] for node in group),
        )

    def _with_constants(self, group: list[ir.Node]) -> set[ir.Node]:
        """The group and the nodes that only unpack constants for it (a DequantizeLinear of a weight)."""
        inside = set(group)
        waiting = list(group)
        while waiting:
            for value in _reads(waiting.pop()):
                source = value.producer()
                if (
                    source is not None
                    and source not in inside
                    and all(v.name in self.weights or constant(v) is not None for v in _reads(source))
                ):
                    inside.add(source)
                    waiting.append(source)
        return inside

    def _model(self, inside: Iterable[ir.Node], inputs: list[ir.Value], outputs: list[ir.Value]) -> bytes:
        ordered = sorted(inside, key=self.position.__getitem__)
        nodes = [self.proto.graph.node[self.position[node]] for node in ordered]
        needed = {v.name for node in ordered for v in _reads(node)}
        # ONNX Runtime's fusions look at shapes: an island is told what the whole graph knew, to be fused alike.
        shaped = [v for node in ordered for v in node.outputs if v.shape is not None and v.dtype is not None]
        weights = [self.weights[name] for name in self.weights if name in needed]
        return self._serialized(
            nodes, inputs, outputs, weights, [v for v in shaped if v.name and v not in outputs]
        )

    def _serialized(
        self,
        nodes: list[onnx.NodeProto],
        inputs: list[ir.Value],
        outputs: list[ir.Value],
        weights: list[onnx.TensorProto],
        shaped: Iterable[ir.Value] = (),
    ) -> bytes:
        ins, outs, inner = ([_info(value) for value in values] for values in (inputs, outputs, shaped))
        graph = helper.make_graph(nodes, "island", ins, outs, weights, value_info=inner)
        model = helper.make_model(
            graph, opset_imports=self.proto.opset_import, ir_version=self.proto.ir_version
        )
        model.functions.extend(self.proto.functions)
        return model.SerializeToString()

    def _table(
        self, group: list[ir.Node], inputs: list[ir.Value], outputs: list[ir.Value], model: bytes
    ) -> p.Lookup | None:
        """The island as a table of all codes, or None if it is no function of one code."""
        if len(inputs) != 1 or len(outputs) != 1 or outputs[0].name in self.outputs:
            return None
        if any(node.op_type not in ELEMENTWISE or node.domain not in ("", "ai.onnx") for node in group):
            return None
        sizes = [constant(v) for node in group for v in node.inputs if v is not None]
        if any(array is not None and array.size != 1 for array in sizes):
            return None
        source, target = self.codes.read(inputs[0]), self.codes.written(outputs[0])
        if source is None or target is None:
            return None
        before, after = self.codes.tensors[source], self.codes.tensors[target]
        x = dequantize(p.all_codes(before.itype), before.params)
        rank = 1 if inputs[0].shape is None else max(1, len(inputs[0].shape))
        feed = {str(inputs[0].name): x.reshape((x.size,) + (1,) * (rank - 1))}
        loose = onnx.load_model_from_string(model)
        for info in (*loose.graph.input, *loose.graph.output, *loose.graph.value_info):
            info.type.tensor_type.ClearField("shape")
        try:
            result = session(loose.SerializeToString(), threads=1).run(None, feed)[0]
        except Exception as cause:  # ONNX Runtime raises its own classes, one per status code
            reason = (str(cause).splitlines() or [type(cause).__name__])[0]
            raise EngineError(f"ONNX Runtime cannot run {', '.join(map(title, group))}: {reason}") from cause
        table = quantize(np.asarray(result, np.float32).reshape(x.size), after.params)
        kind = "+".join(node.op_type for node in group)
        alone = len(group) == 1 and group[0].op_type not in ops(Form.FUNCTION)
        replaces = () if alone else tuple(title(node) for node in group)
        return p.Lookup(title(group[-1]), (source,), (target,), table, kind, replaces)


def _info(value: ir.Value) -> onnx.ValueInfoProto:
    if not isinstance(value.type, ir.TensorType | None):
        return ir.to_proto(value)  # a sequence or an optional
    dtype = value.dtype or ir.DataType.FLOAT
    shape = None if value.shape is None else [d if isinstance(d, int) else str(d) for d in value.shape]
    return helper.make_tensor_value_info(str(value.name), int(dtype), shape)
