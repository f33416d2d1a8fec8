"""What a recipe makes of the nodes that can be integer: the placement of a graph.

Static codes go wherever they can; a node that can be integer stays in float if the recipe says so, if calibration
found it unfit, or if its neighbours leave nothing to gain. Weights alone and dynamic layers: `weight_only`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from eightbit.errors import QuantizationError
from eightbit.graph.forms import Form, activations, clamp_bounds
from eightbit.graph.model import is_op, sole_consumer
from eightbit.quant.choose.capable import Capable
from eightbit.quant.choose.patterns import matches, no_match
from eightbit.quant.choose.placement import Island, Placement
from eightbit.quant.choose.recipe import Layer, Recipe, Weights
from eightbit.quant.choose.weight_only import dynamic_layers, weights_alone


def chosen(can: Capable, recipe: Recipe, strained: Mapping[str, str] | None = None) -> Placement:
    """Decide for every node that can be integer whether it is.

    `strained` names nodes that calibration found unfit for codes, with the reason. Raises QuantizationError for an
    override whose pattern matches no node, and for a graph of which nothing can become codes.
    """
    _check_overrides(can, recipe)
    if recipe.weights_only:
        return weights_alone(can, recipe)
    if recipe.dynamic:
        return dynamic_layers(can, recipe)
    draft = _Draft(can, recipe, strained or {})
    for node in can.model.graph:
        draft.put(node)
    placement = draft.finished(can.model)
    if not placement.observed:
        islands = [f"{i.node} ({i.op}): {i.reason}" for i in placement.islands]
        said = f"{len(islands)} nodes, {'; '.join(islands[:5])}" if islands else "it has no node"
        raise QuantizationError(f"nothing in this graph can be quantized: {said}")
    return placement


def layers_of(can: Capable, recipe: Recipe) -> tuple[str, ...]:
    """The layers that `recipe` does not keep in float; raises QuantizationError as `chosen` does for overrides."""
    _check_overrides(can, recipe)
    ops = {_name(node): node.op_type for node in can.model.graph}
    return tuple(name for name in can.named(Form.LAYER) if not recipe.keeps_float(name, ops[name]))


def _check_overrides(can: Capable, recipe: Recipe) -> None:
    """Refuse an override that matches no node, or chooses weights where no match has any that can be codes."""
    nodes = [(_name(node), node.op_type) for node in can.model.graph]
    inputs = [(_name(value), "") for value in can.model.graph.inputs]
    weighted = can.named(Form.LAYER, Form.TABLE)
    for pattern, choice in recipe.overrides.items():
        writes = isinstance(choice, Layer) and choice.activations is not None
        known = nodes + (inputs if writes else [])
        found = [name for name, op in known if matches(pattern, name, op)]
        if not found:
            raise QuantizationError(no_match(pattern, known))
        weights = isinstance(choice, Layer) and isinstance(choice.weights, Weights)
        if weights and not {*found} & {*weighted}:
            what = (f"{n} ({can.refusals[n]})" if n in can.refusals else n for n in found[:8])
            raise QuantizationError(
                f"override {pattern!r} chooses weights, and no node that it matches has any that can be codes: "
                f"{', '.join(what)}; choose activations, or a pattern that matches a layer"
            )


@dataclass
class _Draft:
    """A placement under construction, one node after another in topological order."""

    can: Capable
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
        name = _name(node)
        reason = self._refusal(node)
        if reason is not None:
            self.islands.append(Island(name, node.op_type, reason))
            return
        form, out = self.can.forms[name], _name(node.outputs[0])
        if form is Form.TABLE:
            self.tables.append(name)
        elif form is Form.MOVE:
            self.moves.append(node)
            if _name(node.inputs[0]) in self.computed:
                self.computed.add(out)
        elif form is Form.CLAMP:
            before = self._absorber(node)
            if before is None or any(
                self.recipe.codes_of(_name(n), n.op_type).symmetric for n in (node, before)
            ):
                self.clamps.append(node)
            else:
                self.absorbed[name] = _name(before)
                self.marked.discard(_name(node.inputs[0]))
                self.marked.add(out)
            self.computed.add(out)
        else:
            (self.layers if form is Form.LAYER else self.integer).append(name)
            self.marked.update(_name(value) for value in activations(node))
            self.marked.add(out)
            self.computed.add(out)

    def _refusal(self, node: ir.Node) -> str | None:
        """Why a node stays in float, None if it does not."""
        name = _name(node)
        if name in self.can.refusals:
            return self.can.refusals[name]
        if self.recipe.keeps_float(name, node.op_type):
            return "the recipe keeps it in float"
        return self.strained.get(name) or self._poor_company(node)

    def _poor_company(self, node: ir.Node) -> str | None:
        """Why an op on activations gains nothing from codes, or loses by them: what its inputs are."""
        if self.can.forms[_name(node)] is not Form.INTEGER:
            return None
        if not any(value.is_graph_input() or _name(value) in self.computed for value in activations(node)):
            return "none of its inputs comes from an integer op"
        return None

    def _absorber(self, clamp: ir.Node) -> ir.Node | None:
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
        return producer if lo <= 0.0 <= hi and (name in self.layers or name in self.integer) else None

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
