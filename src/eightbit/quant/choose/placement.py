"""Where integers can go: a prepared float graph and a recipe in, the tensors and nodes to quantize out.

A *layer* multiplies by constant weights, an *integer* op computes on activations alone, a *move* carries codes from
place to place and shares its input's scale, a *clamp* vanishes into the saturation of the op before it, a *table*
hands out rows of codes. Anything else is a float island, and is listed with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from eightbit.errors import QuantizationError
from eightbit.graph.embeddings import float_table
from eightbit.graph.model import attribute, constant, input_at, ints, is_op, sole_consumer
from eightbit.quant.choose.recipe import Layer, Recipe

LAYERS = {"Conv", "Gemm", "MatMul"}
INTEGER = {"Add", "Mul", "MatMul", "AveragePool", "GlobalAveragePool", "Softmax", "Sigmoid", "Concat"}
MOVES = {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad"}
CLAMPS = {"Relu", "Clip"}
MASKS = ("Where", "Cast")
"""Ops that make masks: tensors of a few extreme values, which no scale fits."""
FIXED_LIMITS = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0)}
"""Outputs whose limits are known without data."""


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
    `tables` are the Gathers that pick rows of a table of codes.
    """

    layers: tuple[str, ...]
    integer: tuple[str, ...]
    moves: tuple[str, ...]
    absorbed: dict[str, str]
    sources: dict[str, str]
    islands: tuple[Island, ...]
    tables: tuple[str, ...] = ()

    @property
    def observed(self) -> tuple[str, ...]:
        """The tensors whose ranges calibration must find."""
        return tuple(dict.fromkeys(self.sources.values()))


def place(model: ir.Model, recipe: Recipe, strained: Mapping[str, str] | None = None) -> Placement:
    """Decide for every node of a prepared graph whether it runs in integers.

    `strained` names nodes that calibration found unfit for codes, with the reason. Raises QuantizationError for an
    override whose pattern matches no node.
    """
    nodes = [_name(node) for node in model.graph]
    inputs = [_name(value) for value in model.graph.inputs]
    for pattern, choice in recipe.overrides.items():
        names = nodes + (inputs if isinstance(choice, Layer) and choice.activations else [])
        if not any(fnmatchcase(name, pattern) for name in names):
            raise QuantizationError(
                f"override {pattern!r} matches no node; the graph has {', '.join(names[:8])}"
                + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            )
    draft = _Draft(recipe, strained or {})
    for node in model.graph:
        draft.put(node)
    return draft.finished(model)


@dataclass
class _Draft:
    """A placement under construction, one node after another in topological order."""

    recipe: Recipe
    strained: Mapping[str, str]
    layers: list[str] = field(default_factory=list)
    integer: list[str] = field(default_factory=list)
    clamps: list[ir.Node] = field(default_factory=list)
    moves: list[ir.Node] = field(default_factory=list)
    islands: list[Island] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    absorbed: dict[str, str] = field(default_factory=dict)
    marked: set[str] = field(default_factory=set)  # tensors that some integer node reads or writes
    computed: set[str] = field(
        default_factory=set
    )  # tensors that come out of integer nodes, or moves of them

    def put(self, node: ir.Node) -> None:
        """Decide for one node; those before it are decided."""
        reason = _refusal(node, self.recipe) or self.strained.get(_name(node)) or self._poor_company(node)
        out = _name(node.outputs[0])
        if reason is not None:
            self.islands.append(Island(_name(node), node.op_type, reason))
        elif node.op_type == "Gather":
            self.tables.append(_name(node))
        elif node.op_type in MOVES:
            self.moves.append(node)
            if _name(node.inputs[0]) in self.computed:
                self.computed.add(out)
        elif node.op_type in CLAMPS:
            before = self._absorber(node)
            names = (_name(node), before or "")
            if before is None or any(self.recipe.codes_of(name).symmetric for name in names):
                self.clamps.append(node)
            else:
                self.absorbed[_name(node)] = before
                self.marked.discard(_name(node.inputs[0]))
                self.marked.add(out)
            self.computed.add(out)
        else:
            (self.layers if is_layer(node) else self.integer).append(_name(node))
            self.marked.update(_name(value) for value in activations(node))
            self.marked.add(out)
            self.computed.add(out)

    def _poor_company(self, node: ir.Node) -> str | None:
        """Why an op on activations gains nothing from codes, or loses by them: what its inputs are."""
        if node.op_type not in INTEGER or is_layer(node):
            return None
        inputs = list(activations(node))
        if any(is_op(value.producer(), *MASKS) for value in inputs):
            return "one of its inputs is a mask, not a signal"
        if not any(value.is_graph_input() or _name(value) in self.computed for value in inputs):
            return "none of its inputs comes from an integer op"
        return None

    def _absorber(self, clamp: ir.Node) -> str | None:
        """The integer node whose saturation can do the clamp's work: it feeds the clamp and nothing else.

        The output's range lies within the clamp's bounds, so its codes saturate at or before them. That needs bounds
        with zero between them, because every range is widened to hold zero, and asymmetric codes (symmetric ones
        would reach below a Relu's zero).
        """
        value = clamp.inputs[0]
        producer = None if value is None else value.producer()
        if value is None or producer is None or sole_consumer(value) is not clamp:
            return None
        lo, hi = clamp_bounds(clamp)
        name = _name(producer)
        return name if lo <= 0.0 <= hi and (name in self.layers or name in self.integer) else None

    def finished(self, model: ir.Model) -> Placement:
        """Settle what depends on nodes further down: outputs that may stay in float, clamps and moves left alone."""
        self._release_outputs(model)
        sources = _spread(self.marked, self.moves)
        for node in self.clamps:  # a clamp that nothing absorbs runs on codes where its input has them
            if _name(node.inputs[0]) in sources:
                self.integer.append(_name(node))
                sources.setdefault(_name(node.outputs[0]), _name(node.outputs[0]))
            else:
                self.islands.append(Island(_name(node), node.op_type, "its input is in float"))
        sources = _spread(set(sources), self.moves)
        carried = [node for node in self.moves if _name(node.inputs[0]) in sources]
        left = [node for node in self.moves if node not in carried and _is_float(node.inputs[0])]
        self.islands.extend(Island(_name(node), node.op_type, "its input is in float") for node in left)
        carried_names = tuple(_name(node) for node in carried)
        return Placement(
            tuple(self.layers),
            tuple(self.integer),
            carried_names,
            self.absorbed,
            sources,
            tuple(self.islands),
            tuple(self.tables),
        )

    def _release_outputs(self, model: ir.Model) -> None:
        """A Gemm or MatMul that only float nodes read scales its accumulators to float: one rounding less."""
        inside = {*self.layers, *self.integer, *self.absorbed, *(_name(node) for node in self.clamps)}
        moving = {_name(node) for node in self.moves}

        def needed(value: ir.Value) -> bool:
            if value.is_graph_output():
                return True
            nodes = [use.node for use in value.uses()]
            return any(n.name in inside or (n.name in moving and needed(n.outputs[0])) for n in nodes)

        for node in model.graph:
            if is_op(node, "Gemm", "MatMul") and node.name in inside and not needed(node.outputs[0]):
                self.marked.discard(_name(node.outputs[0]))


def _refusal(node: ir.Node, recipe: Recipe) -> str | None:
    """Why this node cannot, or shall not, run in integers; None if it can."""
    known = LAYERS | INTEGER | MOVES | CLAMPS
    is_table = float_table(node) is not None
    if node.domain not in ("", "ai.onnx") or not (node.op_type in known or is_table):
        return "no integer form of this op"
    if recipe.keeps_float(_name(node)):
        return "the recipe keeps it in float"
    if is_table:
        return None
    if any(value is not None and value.dtype not in (None, ir.DataType.FLOAT) for value in _data(node)):
        return "its data are not float32"
    if not list(activations(node)):
        return "all its inputs are constant"
    return _SPECIAL[node.op_type](node) if node.op_type in _SPECIAL else None


def _gemm(node: ir.Node) -> str | None:
    alpha, beta, trans_a = (attribute(node, *pair) for pair in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)))
    if (alpha, beta, trans_a) != (1.0, 1.0, 0):
        return f"Gemm with alpha {alpha}, beta {beta}, transA {trans_a}; 1, 1, 0 are supported"
    return _layer(node)


def _layer(node: ir.Node) -> str | None:
    weight = constant(node.inputs[1])
    if weight is None:
        return "its weight is not constant"
    if input_at(node, 2) is None:
        return None
    bias = constant(node.inputs[2])
    if bias is None:
        return "its bias is not constant"
    channels = weight.shape[channel_axis(node)]
    return None if bias.size == channels else f"its bias has {bias.size} values for {channels} channels"


def _pad(node: ir.Node) -> str | None:
    value = input_at(node, 2)
    fill = 0.0 if value is None else constant(value)
    if attribute(node, "mode", "constant") == "constant" and (fill is None or np.any(fill != 0)):
        return "it pads with a value other than 0"
    return None


def _clip(node: ir.Node) -> str | None:
    bounds = [value for value in node.inputs[1:] if value is not None]
    return "its bounds are not constant" if any(constant(value) is None for value in bounds) else None


def _one_output(node: ir.Node) -> str | None:
    return "its second output is used" if any(value.uses() for value in node.outputs[1:]) else None


def _average_pool(node: ir.Node) -> str | None:
    dilations = ints(node, "dilations") or ()
    if any(d != 1 for d in dilations):
        return f"its windows are dilated by {dilations}; the integer kernels average neighbours"
    axes = len(ints(node, "kernel_shape") or ())
    return f"it averages over {axes} axes; 1 and 2 have an integer form" if axes > 2 else None


_SPECIAL = {
    "Gemm": _gemm,
    "Conv": _layer,
    "Pad": _pad,
    "Clip": _clip,
    "MaxPool": _one_output,
    "AveragePool": _average_pool,
}


def is_layer(node: ir.Node) -> bool:
    """Whether the node multiplies by a constant weight, its second input."""
    return node.op_type in LAYERS and constant(node.inputs[1]) is not None


def channel_axis(node: ir.Node) -> int:
    """The axis of a layer's weight along which its output channels lie; of a table, the axis of its rows."""
    if node.op_type in ("Conv", "Gather"):
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    weight = constant(node.inputs[1])
    assert weight is not None
    return weight.ndim - 1


def activations(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs of a node that calibration sees: its data, without constants."""
    for value in _data(node):
        if value is not None and constant(value) is None:
            yield value


def _data(node: ir.Node) -> tuple[ir.Value | None, ...]:
    if node.op_type in MOVES | CLAMPS or is_layer(node):
        return tuple(node.inputs[:1])
    return tuple(node.inputs)


def clamp_bounds(clamp: ir.Node) -> tuple[float, float]:
    """The bounds (lo, hi) of a Relu or of a Clip with constant bounds."""
    if clamp.op_type == "Relu":
        return 0.0, float("inf")
    lo, hi = constant(input_at(clamp, 1)), constant(input_at(clamp, 2))
    return (-float("inf") if lo is None else float(lo)), (float("inf") if hi is None else float(hi))


def _spread(marked: set[str], moves: list[ir.Node]) -> dict[str, str]:
    """Give the tensors on both sides of a move one source, from the marked tensors outwards; a map tensor -> source."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    for node in moves:  # topological order: the first tensor of a chain becomes its root
        parent[root(_name(node.outputs[0]))] = root(_name(node.inputs[0]))
    roots = {root(name) for name in marked}
    tensors = dict.fromkeys(
        name for node in moves for name in (_name(node.inputs[0]), _name(node.outputs[0]))
    )
    return {name: root(name) for name in [*sorted(marked), *tensors] if root(name) in roots}


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def _name(thing: ir.Node | ir.Value | None) -> str:
    assert thing is not None and thing.name
    return thing.name
