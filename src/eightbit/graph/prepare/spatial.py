"""Convolutions and pools get explicit padding; every mean over the whole picture is a GlobalAveragePool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from eightbit.graph.model import (
    add_constant,
    attribute,
    constant,
    dims,
    input_at,
    ints,
    is_op,
    rank,
    replace_node,
)
from eightbit.graph.names import unique_name, unique_node_name
from eightbit.graph.windows import window

WINDOWED = ("Conv", "MaxPool", "AveragePool")


def explicit_windows(model: ir.Model) -> int:
    """Write out kernel_shape, strides, dilations, group and pads, resolving auto_pad; returns how many.

    SAME_UPPER and SAME_LOWER need known spatial sizes, or strides of 1; a node without them keeps its auto_pad. An
    AveragePool says its dilations only where they are not 1: ONNX Runtime's integer kernel refuses the attribute,
    whatever it holds.
    """
    count = 0
    for node in model.graph:
        if not is_op(node, *WINDOWED):
            continue
        before = {name: attr.value for name, attr in node.attributes.items()}
        way = window(node)
        if way is None:
            continue
        found: dict[str, Sequence[int] | int] = {
            "kernel_shape": way.kernel,
            "strides": way.strides,
            "dilations": way.dilations,
        }
        if node.op_type == "Conv":
            found["group"] = way.groups
        if node.op_type == "AveragePool" and set(way.dilations) == {1}:
            del found["dilations"]
            node.attributes.pop("dilations", None)
        if way.pads is not None:
            found["pads"] = way.pads
            node.attributes.pop("auto_pad", None)
        for name, value in found.items():
            node.attributes[name] = ir.convenience.convert_attribute(name, value)
        count += before != {name: attr.value for name, attr in node.attributes.items()}
    return count


def fold_pad(model: ir.Model) -> int:
    """Fold spatial zero padding into the Conv or AveragePool that reads it; returns how many readers took it.

    An AveragePool takes it only if it has no padding of its own that it leaves out of the mean, and never
    with ceil_mode. A MaxPool pads with minus infinity, so it takes zeros only where they cannot win: its
    input is >= 0 (it comes out of Relu, Clip from >= 0, Sigmoid or Softmax) and no window is padding alone.
    """
    count = 0
    for node in list(model.graph):
        margins = _zero_margins(node)
        source = input_at(node, 0)
        if margins is None or source is None or node.outputs[0].is_graph_output():
            continue
        for use in tuple(node.outputs[0].uses()):
            reader = use.node
            pads = ints(reader, "pads")
            if use.idx != 0 or pads is None or not _takes_padding(reader, pads):
                continue
            total = [p + m for p, m in zip(pads, margins, strict=True)]
            if reader.op_type != "Conv" and not _windows_filled(reader, total):
                continue  # ONNX Runtime refuses a pool with padding as wide as its window
            if reader.op_type == "MaxPool" and not _non_negative(source):
                continue
            reader.attributes["pads"] = ir.AttrInt64s("pads", total)
            if reader.op_type == "AveragePool":
                reader.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
            reader.replace_input_with(0, source)
            count += 1
    return count


def mean_to_global_pool(model: ir.Model) -> int:
    """Write a mean over all spatial axes as GlobalAveragePool (and Reshape to (N, C)); returns how many."""
    count = 0
    for node in list(model.graph):
        source = input_at(node, 0)
        axes_total = rank(source)
        if source is None or axes_total is None or axes_total < 3 or source.dtype != ir.DataType.FLOAT:
            continue
        shape = dims(source)
        assert shape is not None
        if is_op(node, "ReduceMean"):
            axes = constant(input_at(node, 1))
            found = attribute(node, "axes") if axes is None else axes.reshape(-1).tolist()
            if found is None or {int(a) % axes_total for a in found} != set(range(2, axes_total)):
                continue
            keep = bool(attribute(node, "keepdims", 1))
        elif is_op(node, "AveragePool"):
            if (
                ints(node, "kernel_shape") != shape[2:]
                or any(ints(node, "pads") or ())
                or len(node.outputs) != 1
            ):
                continue
            keep = True
        else:
            continue
        if not keep and shape[1] is None:
            continue
        pool = ir.node("GlobalAveragePool", [source], name=node.name)
        if keep:
            replace_node(node, pool)
        else:
            pooled = pool.outputs[0]
            pooled.name, pooled.dtype = unique_name(model.graph, f"{node.name}.pool"), ir.DataType.FLOAT
            pooled.shape = (
                ir.Shape([source.shape[0], shape[1], *[1] * (axes_total - 2)]) if source.shape else None
            )
            pool.name = unique_node_name(model.graph, f"{node.name}.pool")
            target = add_constant(model.graph, f"{node.name}.1", np.array([-1, shape[1]], np.int64))
            replace_node(node, [pool, ir.node("Reshape", [pooled, target], name=node.name)])
        count += 1
    return count


def _zero_margins(node: ir.Node) -> list[int] | None:
    """Begins and ends that a Pad node adds to the spatial axes, if it adds zeros and only there."""
    if not is_op(node, "Pad") or attribute(node, "mode", "constant") != "constant":
        return None
    pads, axes_total = constant(input_at(node, 1)), rank(node.inputs[0])
    fill = input_at(node, 2)
    filled = constant(fill)
    if pads is None or axes_total is None or (fill is not None and (filled is None or filled.any())):
        return None
    axes = range(axes_total)
    if input_at(node, 3) is not None:
        given = constant(node.inputs[3])
        if given is None:
            return None
        axes = [int(a) % axes_total for a in given]  # type: ignore[assignment]
    full = np.zeros((2, axes_total), np.int64)
    full[:, list(axes)] = pads.reshape(2, -1)
    if full[:, :2].any() or (full < 0).any():
        return None
    return [int(p) for p in full[:, 2:].reshape(-1)]


def _takes_padding(reader: ir.Node, pads: Sequence[int]) -> bool:
    if "auto_pad" in reader.attributes and attribute(reader, "auto_pad") != "NOTSET":
        return False
    if is_op(reader, "Conv"):
        return True
    if is_op(reader, "MaxPool"):
        return not attribute(reader, "ceil_mode", 0) and len(reader.outputs) == 1
    inclusive = bool(attribute(reader, "count_include_pad", 0)) or not any(pads)
    return is_op(reader, "AveragePool") and inclusive and not attribute(reader, "ceil_mode", 0)


def _non_negative(value: ir.Value) -> bool:
    node = value.producer()
    if is_op(node, "Clip"):
        low = constant(input_at(node, 1)) if node is not None else None
        return low is not None and bool(low >= 0)
    return is_op(node, "Relu", "Sigmoid", "Softmax")


def _windows_filled(pool: ir.Node, pads: Sequence[int]) -> bool:
    """Whether each window reaches past the padding: pads below the kernel size, no dilation."""
    kernel = ints(pool, "kernel_shape") or ()
    dense = all(d == 1 for d in ints(pool, "dilations") or ())
    return dense and all(p < k for p, k in zip(pads, (*kernel, *kernel), strict=True))
