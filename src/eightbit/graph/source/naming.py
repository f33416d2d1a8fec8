"""Short names that mean something to the author of the model, and are the same on every load.

Recipes select layers by these names ("layer1.0.conv1", "classifier*"), so a node takes the path of the
module or layer that it came from: PyTorch's exporter leaves it in the node's metadata, Keras' in the
node's name. A weighted node gets the bare path; the others get it if they are its only kind, and
"path.op" if not. A tensor is named after the node that computes it, a weight "path.weight".
Graph inputs and outputs keep their names. Files from elsewhere keep all names; gaps are filled.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable

import onnx_ir as ir

from eightbit.graph.model import WEIGHTED_OPS
from eightbit.graph.names import Names, tensor_names

TORCH_SCOPES = "pkg.torch.onnx.name_scopes"
TORCH_CLASSES = "pkg.torch.onnx.class_hierarchy"
EXPORTER_CONSTANT = re.compile(r"val_\d+")  # what PyTorch's exporter calls a tensor without a name

ScopeOf = Callable[[ir.Node], str | None]


def torch_scope(node: ir.Node) -> str | None:
    """Path of the torch module that `node` came from ("" for the outermost); None without metadata.

    A weight "layer1.0.conv1.weight" tells better than the metadata, which name the BatchNorm that the
    exporter folded into the convolution.
    """
    scopes = node.metadata_props.get(TORCH_SCOPES)
    if scopes is None:
        return None
    weight = node.inputs[1] if node.op_type in WEIGHTED_OPS else None
    if weight is not None and weight.is_initializer() and len(weight.uses()) == 1:
        path, _, kind = str(weight.name).rpartition(".")
        if kind == "weight" and path:
            return path
    modules = _list(scopes)[:-1]  # the last entry is the operator, not a module
    return modules[-1] if modules else ""


def keras_scope(root: str, layers: Iterable[str]) -> ScopeOf:
    """A function from a tf2onnx node to the path of its Keras layer, for a model named `root`.

    TensorFlow calls the scope of layer "conv2d_1" "conv2d_1_2" if "conv2d_1" is taken, as it is once the
    model has been called before. So a scope that could be two layers is the one with a suffix added.
    """
    names = set(layers)

    def layer(part: str, suffixed: bool) -> str | None:
        stripped = re.sub(r"_\d+$", "", part)
        order = [stripped, part] if suffixed else [part, stripped]
        return next((name for name in order if name in names), None)

    def path(full: str) -> str | None:
        parts = full.split("/")
        suffixed = parts[0] != root
        found = [name for p in parts[1:] if (name := layer(p, suffixed)) is not None]
        return "/".join(found) if found else None

    def scope(node: ir.Node) -> str | None:
        if node.op_type == "Transpose":
            return None  # put in between layouts by tf2onnx, named after whichever layer came next
        if node.op_type in WEIGHTED_OPS and len(node.inputs) > 1 and node.inputs[1] is not None:
            found = path(str(node.inputs[1].name))
            if found is not None:
                return found
        return path(str(node.name))

    return scope


def rename(model: ir.Model, scope_of: ScopeOf, *, keep_parameters: bool) -> None:
    """Rename nodes, intermediate tensors and initializers of the main graph, in place.

    With `keep_parameters`, initializers keep their names unless an exporter made them up.
    """
    graph = model.graph
    fixed = {str(v.name) for v in (*graph.inputs, *graph.outputs)}
    for node, name in _node_names(graph, scope_of).items():
        node.name = name
    kept = [n for n in graph.initializers if keep_parameters and not EXPORTER_CONSTANT.fullmatch(n)]
    inner = (name for part in graph.subgraphs() for name in tensor_names(part))
    names = Names([*fixed, *kept, *inner])
    changes: dict[ir.Value, str] = {}
    for node in graph:
        for i, value in enumerate(node.outputs):
            if value.name not in fixed and value.name:
                changes[value] = names.fresh(str(node.name) if i == 0 else f"{node.name}.{i}")
        for i, read in enumerate(node.inputs):
            if read is None or not read.is_initializer() or read in changes or read.name in names.taken:
                continue
            changes[read] = names.fresh(f"{node.name}.{_role(node, i)}")
    for number, value in enumerate(changes):  # through names that nobody can have: swaps do not collide
        value.name = f"\x00{number}"
    for value, name in changes.items():
        value.name = name


def named(model: ir.Model) -> ir.Model:
    """`model` itself if the nodes of its main graph have names of their own, else a copy in which they have."""
    nodes = [node.name for node in model.graph]
    if all(nodes) and len(set(nodes)) == len(nodes):
        return model
    copy = model.clone()
    fill_names(copy)
    return copy


def fill_names(model: ir.Model) -> None:
    """Give every node of the main graph a unique name, in place; existing unique names stay."""
    names, kept = Names(str(node.name) for node in model.graph if node.name), set()
    for node in model.graph:
        if node.name and node.name not in kept:
            kept.add(node.name)
            continue
        stem = node.name or next((v.name for v in node.outputs if v.name), None) or node.op_type.lower()
        node.name = names.fresh(stem)


def _node_names(graph: ir.Graph, scope_of: ScopeOf) -> dict[ir.Node, str]:
    scopes = {node: scope_of(node) or "" for node in graph}
    crowd: dict[str, set[str]] = {}  # the kinds of operation in each scope
    for node, scope in scopes.items():
        crowd.setdefault(scope, set()).add(node.op_type)
    found: dict[ir.Node, str] = {}
    names = Names()
    # Weighted nodes choose first, so that "fc" is the Gemm even where an Add follows in the same module.
    for node in sorted(graph, key=lambda n: n.op_type not in WEIGHTED_OPS):
        scope, op = scopes[node], node.op_type.lower()
        weighted = node.op_type in WEIGHTED_OPS and len(node.inputs) > 1 and _is_weight(node.inputs[1])
        alone = len(crowd[scope]) == 1 and not _is_container(node)
        stem = op if not scope else scope if weighted or alone else f"{scope}.{op}"
        found[node] = names.fresh(stem)
    return found


def _is_weight(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()


def _is_container(node: ir.Node) -> bool:
    """Whether the innermost torch module around `node` is the author's own, which holds many operations."""
    classes = node.metadata_props.get(TORCH_CLASSES)
    return classes is not None and not any(c.startswith("torch.nn.modules.") for c in _list(classes)[-2:-1])


def _role(node: ir.Node, index: int) -> str:
    if node.op_type in WEIGHTED_OPS:
        return {1: "weight", 2: "bias"}.get(index, str(index))
    return str(index)


def _list(text: str) -> list[str]:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    return [str(item) for item in found] if isinstance(found, list | tuple) else []
