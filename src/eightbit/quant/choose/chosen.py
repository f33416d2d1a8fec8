"""What a recipe makes of the nodes that can be integer: the placement of a graph.

Static codes go wherever they can; a node that can be integer stays in float if the recipe says so, if calibration
found it unfit, or if its neighbours leave nothing to gain. A function of one number that the graph spells out in
several nodes is rounded once, at its end. Weights alone and dynamic layers: `weight_only`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from eightbit.errors import QuantizationError
from eightbit.graph.forms import NO_FORM, Form, activations, carried, clamp_bounds
from eightbit.graph.functions import function_roots
from eightbit.graph.model import is_op, sole_consumer
from eightbit.quant.choose.capable import Capable
from eightbit.quant.choose.patterns import matches, no_match
from eightbit.quant.choose.placement import Island, Placement
from eightbit.quant.choose.recipe import Layer, Recipe, Weights
from eightbit.quant.choose.weight_only import dynamic_layers, weights_alone

UNREAD = "only float nodes read it"
USEFUL = ("MatMul", "Add", "AveragePool", "GlobalAveragePool")
"""Integer ops that stay whoever reads them."""


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
    roots = _roots(can)
    draft = _Draft(can, recipe, strained or {}, roots).filled()
    unread = draft.unread()
    if unread:
        draft = _Draft(can, recipe, {**unread, **(strained or {})}, roots).filled()
    placement = draft.finished()
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
    roots: Mapping[ir.Node, ir.Value]
    layers: list[str] = field(default_factory=list)
    integer: list[str] = field(default_factory=list)
    clamps: list[ir.Node] = field(default_factory=list)
    moves: list[ir.Node] = field(default_factory=list)
    islands: list[Island] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    absorbed: dict[str, str] = field(default_factory=dict)
    marked: set[str] = field(default_factory=set)  # tensors that some integer node reads or writes
    computed: set[str] = field(
        default_factory=set
    )  # tensors that come out of integer nodes, or moves of them

    def filled(self) -> _Draft:
        """This draft, when every node was decided for."""
        for node in self.can.model.graph:
            self.put(node)
        return self

    def put(self, node: ir.Node) -> None:
        """Decide for one node; those before it are decided."""
        name = _name(node)
        if self._is_part(node):
            self._put_part(node)
            return
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
                self.computed.update(map(_name, carried(node)))
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

    def _is_part(self, node: ir.Node) -> bool:
        """Whether a node is one of several that spell out a function of codes, and nothing keeps it from them."""
        root, name = self.roots.get(node), _name(node)
        if root is None or name in self.strained or self.recipe.keeps_float(name, node.op_type):
            return False
        neighbours = [value.producer() for value in node.inputs if value is not None]
        neighbours += [use.node for use in node.outputs[0].uses()]
        several = any(other in self.roots for other in neighbours)
        coded = root.is_graph_input() or _name(root) in self.computed
        return several and coded and self.can.refusals.get(name, NO_FORM) == NO_FORM

    def _put_part(self, node: ir.Node) -> None:
        """Leave the roundings inside a function out; one that is an output of the graph ends in codes, as ops do."""
        root, out = self.roots[node], node.outputs[0]
        self.functions.append(_name(node))
        if _name(node) in self.can.forms:
            self.computed.add(_name(out))
            ends = {
                _name(value) for value in (root, out) if value.is_graph_input() or value.is_graph_output()
            }
            self.marked.update(ends)

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
        producer = _saturating(clamp)
        name = None if producer is None else _name(producer)
        return producer if name in self.layers or name in self.integer else None

    def unread(self) -> dict[str, str]:
        """Ops on activations and functions whose codes only float nodes would read, with the reason: they only round.

        A product of two tensors saves time all the same, a pool moves fewer bytes, and a sum is judged by what it holds
        (`strained_sums`).
        """
        ops = {_name(node): node.op_type for node in self.can.model.graph}
        apart = {name for name in self.integer if ops[name] in USEFUL}
        idle = ({*self.integer} - apart) | {*self.functions, *map(_name, self.clamps)}
        through = idle | {*self.absorbed, *map(_name, self.moves), *map(_name, self.roots)}
        serving = self._serving({*self.layers, *apart}, through)
        return dict.fromkeys(idle - serving, UNREAD)

    def _serving(self, working: set[str], through: set[str]) -> set[str]:
        """The nodes that do something with codes: the `working`, and `through` which codes reach one."""
        found: set[str] = set()
        for node in reversed(list(self.can.model.graph)):
            if _name(node) in working or (_name(node) in through and self._is_read(node, found)):
                found.add(_name(node))
        return found

    def _is_read(self, node: ir.Node, serving: set[str]) -> bool:
        """Whether codes that `node` writes are read by one `serving`, or leave the graph as codes."""
        given = any(value.is_graph_output() for value in node.outputs) and _name(node) in self.can.forms
        return given or any(_name(use.node) in serving for value in node.outputs for use in value.uses())

    def finished(self) -> Placement:
        """Settle what depends on nodes further down: outputs that may stay in float, clamps and moves left alone."""
        self._release_outputs()
        sources = _spread(self.marked, self.moves)
        for node in self.clamps:  # a clamp that nothing absorbs runs on codes where its input has them
            if _name(node.inputs[0]) in sources:
                self.integer.append(_name(node))
                sources.setdefault(_name(node.outputs[0]), _name(node.outputs[0]))
            else:
                self.islands.append(Island(_name(node), node.op_type, "its input is in float"))
        sources = _spread(set(sources), self.moves)
        moved = [node for node in self.moves if _name(node.inputs[0]) in sources]
        left = [node for node in self.moves if node not in moved and _is_float(node.inputs[0])]
        self.islands.extend(Island(_name(node), node.op_type, "its input is in float") for node in left)
        carried_names = tuple(_name(node) for node in moved)
        return Placement(
            tuple(self.layers),
            tuple(self.integer),
            carried_names,
            self.absorbed,
            sources,
            tuple(self.islands),
            tuple(self.tables),
            tuple(self.functions),
        )

    def _release_outputs(self) -> None:
        """A Gemm or MatMul that only float nodes read scales its accumulators to float: one rounding less."""
        inside = {*self.layers, *self.integer, *self.absorbed, *(_name(node) for node in self.clamps)}
        serving = self._serving(inside, {*self.functions, *(_name(node) for node in self.moves)})
        for node in self.can.model.graph:
            if is_op(node, "Gemm", "MatMul") and node.name in inside and not self._is_read(node, serving):
                self.marked.discard(_name(node.outputs[0]))


def _roots(can: Capable) -> dict[ir.Node, ir.Value]:
    """The functions of one number in a graph, but for the clamps that an integer op before them can saturate for.

    Such a clamp behind an op that is a tree's end, or no part of one, costs nothing as it is.
    """
    roots = function_roots(can.model)

    def saturated(clamp: ir.Node) -> bool:
        before = _saturating(clamp)
        if before is None or can.forms.get(_name(before)) not in (Form.LAYER, Form.INTEGER):
            return False
        beyond = [*(v.producer() for v in before.inputs if v is not None)]
        beyond += [use.node for use in clamp.outputs[0].uses()]
        return before not in roots or not any(node in roots for node in beyond)

    clamps = [node for node in roots if can.forms.get(_name(node)) is Form.CLAMP]
    return function_roots(can.model, apart={node for node in clamps if saturated(node)})


def _saturating(clamp: ir.Node) -> ir.Node | None:
    """The node that feeds a clamp and nothing else, if saturated codes can do the clamp's work (see `_absorber`)."""
    value = clamp.inputs[0]
    producer = None if value is None else value.producer()
    if value is None or producer is None or sole_consumer(value) is not clamp:
        return None
    lo, hi = clamp_bounds(clamp)
    return producer if lo <= 0.0 <= hi else None


def _spread(marked: set[str], moves: list[ir.Node]) -> dict[str, str]:
    """Give the tensors on both sides of a move one source, from the marked tensors outwards; a map tensor -> source."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    pairs = [(node.inputs[0], value) for node in moves for value in carried(node)]
    for source, value in pairs:  # topological order: the first tensor of a chain becomes its root
        parent[root(_name(value))] = root(_name(source))
    roots = {root(name) for name in marked}
    tensors = dict.fromkeys(_name(value) for pair in pairs for value in pair)
    return {name: root(name) for name in [*sorted(marked), *tensors] if root(name) in roots}


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def _name(thing: ir.Node | ir.Value | None) -> str:
    assert thing is not None and thing.name
    return thing.name
