"""A model of one opset -> the same function in another, or LoadError.

ONNX's converter takes a Resize of opset 10 for one of opset 11, though each places its samples elsewhere, and calls a
Scan of opset 8 by its new name; that is mended or refused here. Whatever else it may change shows when both are run in
ONNX Runtime once (`compared`): always for files older than opset 13, later ones if they hold an operator that was
given other attributes or inputs in between (`is_restated`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, version_converter

from eightbit.errors import EngineError, LoadError
from eightbit.graph.run import session

MIN_OPSET = 13  # the first with per-axis QuantizeLinear and axes as inputs; older ones are converted
COMMON_OPSET = 21
SAMPLED = 11
"""Since this opset, Resize says how it places its samples; before, it did as "asymmetric" and "floor" do now."""
SCAN_WITHOUT_BATCH = 9
MOST_AXES = 16  # as many scales a Resize can have
RANDOM = {
    *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"),
}
ADDED = {"Cast", "CastLike", "QuantizeLinear", "DequantizeLinear", "Reshape", "Shape"}
"""Operators with new attributes that, left out, change nothing."""
TOLERANCE = 1e-4
"""Of the peak of an output: the same kernels run on both sides, and only last digits may differ."""
SIZES = (8, 32, 1, 224)
"""Lengths that are tried for free axes beside the batch: too short a picture cannot be run."""
SECONDS = 20
"""After which a run is ended: files of strangers may hold loops without end."""


def opset_of(proto: onnx.ModelProto) -> int | None:
    """The version of the standard operators that a model uses; None if it uses none."""
    return next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)


def converted(proto: onnx.ModelProto, opset: int = COMMON_OPSET) -> onnx.ModelProto:
    """`proto` at another opset. Raises LoadError, naming the node, for what ONNX has no right rule for.

    Types and shapes of inner values are left out: the converter knows tensors only, and calls every sequence one.
    """
    before = opset_of(proto) or opset
    for node in _nodes(proto.graph):
        if node.op_type == "Scan" and before < SCAN_WITHOUT_BATCH:
            raise _unconverted(
                before, opset, f"node '{node.name}' is a Scan of opset 8, which has a batch axis"
            )
        if node.op_type == "GroupNormalization" and before < COMMON_OPSET <= opset:
            raise _unconverted(before, opset, f"node '{node.name}' is a GroupNormalization by groups")
    try:
        result = version_converter.convert_version(proto, opset)
    except Exception as cause:  # RuntimeError and its own ConvertError
        raise _unconverted(before, opset, first_line(cause)) from cause
    for graph in graphs(result.graph):
        del graph.value_info[:]
    if before < SAMPLED:
        known = _constants(result.graph)
        for node in _nodes(result.graph):
            if node.op_type == "Resize":
                scales = known.get(node.input[2]) if len(node.input) > 2 else None
                _sample_as_before(node, shrinks=scales is not None and bool((scales < 1).any()))
    return result


def is_restated(proto: onnx.ModelProto, opset: int) -> bool:
    """Whether `proto` holds an operator that takes other attributes or inputs in `opset` than in its own.

    Then a converter has to write its nodes anew. Those that only gained types, or `ADDED`, stay as they are.
    """
    own = opset_of(proto) or opset
    return any(_form(op, own) != _form(op, opset) for op in {n.op_type for n in _nodes(proto.graph)} - ADDED)


def _form(op: str, opset: int) -> tuple[object, ...] | None:
    """The attributes of an operator with their defaults, and its inputs; None in opsets that lack it."""
    try:
        schema = onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        return None
    attributes = {
        name: (str(a.type), a.required, str(a.default_value)) for name, a in schema.attributes.items()
    }
    return attributes, [(i.name, str(i.option)) for i in schema.inputs]


def compared(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """Run a file and its conversion on the same random numbers; None if they agree, or why they could not be run.

    Raises LoadError, naming the first node that computes something else, if they do not.
    """
    old, new = opset_of(before) or 0, opset_of(after) or 0
    said = f"the file was converted from opset {old} to {new}, and the two were not compared"
    if any(node.op_type in RANDOM for node in _nodes(before.graph)):
        return f"{said}: it draws random numbers"
    try:
        reference = session(before.SerializeToString(), optimize=False, threads=1)
    except EngineError as cause:
        return f"{said}: {cause}"
    found = _first_run(reference, before)
    if found is None:
        return f"{said}: no inputs were found on which ONNX Runtime runs it"
    feeds, right = found
    try:
        results = _run(session(after.SerializeToString(), optimize=False, threads=1), feeds)
    except Exception as cause:
        raise _unconverted(old, new, f"the result does not run: {first_line(cause)}") from cause
    if not all(map(_equal, right, results)):
        raise _unconverted(
            old, new, f"the result is another function{_first_difference(before, after, feeds)}"
        )
    return None


@cache
def newest_quantizable() -> int:
    """The newest opset whose QuantizeLinear and DequantizeLinear the installed ONNX Runtime has."""
    constants = [
        helper.make_tensor("s", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("z", TensorProto.INT8, [], [0]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    body = helper.make_graph(nodes, "probe", [x], [y], constants)
    for opset in range(onnx.defs.onnx_opset_version(), COMMON_OPSET, -1):
        probe = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        try:
            session(probe.SerializeToString(), threads=1)
            return opset
        except EngineError:
            continue
    return COMMON_OPSET


def _unconverted(old: int, new: int, why: str) -> LoadError:
    wanted = f"opset {MIN_OPSET} or newer" if old < new else f"opset {new} or older"
    return LoadError(
        f"the model uses opset {old} and cannot be converted to {new}: {why}; export it with {wanted}"
    )


def _sample_as_before(node: onnx.NodeProto, *, shrinks: bool) -> None:
    """Let a Resize place its samples as ONNX Runtime does for Resize of opset 10 and Upsample, in place."""
    found = {
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "ceil" if shrinks else "floor",
    }
    kept = [a for a in node.attribute if a.name not in found]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in found.items())])


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The small constants of a graph by name: initializers, and tensors of Constant nodes."""
    tensors = {t.name: t for inner in graphs(graph) for t in inner.initializer}
    for node in _nodes(graph):
        if node.op_type == "Constant":
            tensors |= {name: a.t for a in node.attribute if a.name == "value" for name in node.output}
    return {
        name: onnx.numpy_helper.to_array(t) for name, t in tensors.items() if math.prod(t.dims) <= MOST_AXES
    }


def _first_run(
    reference: ort.InferenceSession, proto: onnx.ModelProto
) -> tuple[dict[str, np.ndarray], list[np.ndarray]] | None:
    """Inputs on which a session runs, and its outputs; None if none were found."""
    for size in SIZES:
        feeds = _feeds(proto, size)
        if feeds is None:
            return None
        try:
            return feeds, _run(reference, feeds)
        except Exception:  # ONNX Runtime raises its own classes, one per status code
            continue
    return None


def _feeds(proto: onnx.ModelProto, size: int) -> dict[str, np.ndarray] | None:
    """Random inputs: a batch of two where axis 0 is free, `size` on other free axes. None where one is no tensor."""
    rng, feeds = np.random.default_rng(0), {}
    weights = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in weights:
            continue
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
            return None
        lengths = [
            d.dim_value if d.dim_value > 0 else size if axis else 2 for axis, d in enumerate(kind.shape.dim)
        ]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype.kind in "iub":
            feeds[value.name] = rng.integers(0, 2, lengths).astype(dtype)
        elif np.issubdtype(dtype, np.floating):
            feeds[value.name] = rng.standard_normal(lengths).astype(dtype)
        else:
            return None
    return feeds


def _run(reference: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.RunOptions()
    timer = threading.Timer(SECONDS, setattr, (options, "terminate", True))
    timer.start()
    try:
        return [np.asarray(array) for array in reference.run(None, feeds, options)]
    finally:
        timer.cancel()


def _equal(right: np.ndarray, found: np.ndarray) -> bool:
    if right.shape != found.shape or right.dtype != found.dtype:
        return False
    if not np.issubdtype(right.dtype, np.floating):
        return bool(np.array_equal(right, found))
    peak = float(np.abs(right[np.isfinite(right)]).max(initial=0.0))
    return bool(np.allclose(found, right, rtol=0, atol=TOLERANCE * peak, equal_nan=True))


def _first_difference(before: onnx.ModelProto, after: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> str:
    """From which node on the two differ, as far as their tensors have the same names."""
    names = {name for node in after.graph.node for name in node.output}
    shared = [(name, node) for node in before.graph.node for name in node.output if name in names]
    try:
        runs = [_run(_exposing(p, [name for name, _ in shared]), feeds) for p in (before, after)]
    except (
        Exception
    ):  # sequences among the tensors, say: the caller has said what is wrong, and this is where
        return ""
    for (_, node), right, found in zip(shared, *runs, strict=True):
        if not _equal(right, found):
            return f" from node '{node.name or node.output[0]}' ({node.op_type}) on"
    return ""


def _exposing(proto: onnx.ModelProto, names: list[str]) -> ort.InferenceSession:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return session(copy.SerializeToString(), optimize=False, threads=1)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph`, and those of its branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs(inner)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for inner in graphs(graph):
        yield from (node for node in inner.node if node.domain in ("", "ai.onnx"))


def first_line(cause: BaseException) -> str:
    """The first line of a message, and the next if it ends in a colon; the kind of an exception that says nothing."""
    lines = [" ".join(line.split()) for line in str(cause).splitlines() if line.strip()] or [
        type(cause).__name__
    ]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
