"""Float operators that make images larger or smaller: resizing, transposed convolution."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eightbit.deploy.layout.views import View, channels_last
from eightbit.deploy.tflite import movement
from eightbit.deploy.tflite.build import FLOAT, Builder
from eightbit.deploy.tflite.islands import FloatNode
from eightbit.deploy.tflite.layers import VALID
from eightbit.graph.model import attribute, constant, dims, input_at, ints
from eightbit.graph.windows import window

HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")


def resize(op: FloatNode, b: Builder) -> None:
    """An image larger or smaller, by its neighbours or between them."""
    x = b.read(op.inputs[0], channels_last(4))
    y = b.make(op.outputs[0], x.order)
    how = _sampling(op.node)
    kind = (
        "RESIZE_BILINEAR" if attribute(op.node, "mode", "nearest") == "linear" else "RESIZE_NEAREST_NEIGHBOR"
    )
    size = b.constant(np.array(y.shape[2:], np.int32))
    options = {"alignCorners": how == "align_corners", "halfPixelCenters": how in HALF_PIXEL}
    b.add(kind, (b.laid(x), size), y.buffer, **options)


def _sampling(node: ir.Node) -> str:
    return str(attribute(node, "coordinate_transformation_mode", "half_pixel"))


def resizable(node: ir.Node) -> str | None:
    """Images alone, lengths that the scales meet exactly; neighbours where both round alike."""
    x, y = (
        None if v is None or v.shape is None else v.shape.numpy() for v in (node.inputs[0], node.outputs[0])
    )
    mode, how = str(attribute(node, "mode", "nearest")), _sampling(node)
    if x is None or y is None or len(x) != 4 or tuple(x[:2]) != tuple(y[:2]) or input_at(node, 1) is not None:
        return "it resizes other axes than an image's two"
    scales = constant(input_at(node, 2))
    axes = ints(node, "axes") or tuple(range(4))
    if (
        scales is not None
        and scales.size
        and any(x[a] * s != y[a] for a, s in zip(axes, scales, strict=True))
    ):
        return f"its scales {scales.tolist()} meet no whole lengths"
    others = ("antialias", 0), ("exclude_outside", 0), ("keep_aspect_ratio_policy", "stretch")
    if any(attribute(node, name, usual) != usual for name, usual in others):
        return "it resizes with " + ", ".join(
            name for name, usual in others if attribute(node, name, usual) != usual
        )
    whole = all(big % small == 0 for big, small in zip(y[2:], x[2:], strict=True))
    nearest = str(attribute(node, "nearest_mode", "round_prefer_floor"))
    alike = (mode == "linear" and how in (*HALF_PIXEL, "asymmetric", "align_corners")) or (
        mode == "nearest"
        and (
            (how, nearest) == ("asymmetric", "floor")
            or (how in HALF_PIXEL and whole and nearest[:5] == "round")
        )
    )
    return None if alike else f"it resizes in mode {mode}, {how}, {nearest}"


def transposed_conv(op: FloatNode, b: Builder) -> None:
    """TRANSPOSE_CONV of every place that a window reaches, cut to what the node's pads leave."""
    x, y = b.read(op.inputs[0], channels_last(4)), b.make(op.outputs[0], channels_last(4))
    filters = b.tensors[b.views[op.inputs[1]].buffer].data
    way = window(op.node, b.views[op.inputs[1]].shape[2:])
    assert filters is not None and way is not None and way.pads is not None  # or it were not refused
    reach = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], way.strides, way.kernel, strict=True)]
    laid = (x.shape[0], *reach, y.shape[1])
    full = View(b.of_type(f"{op.name}.full", laid, FLOAT), (laid[0], laid[3], *reach), channels_last(4))
    operands = [b.constant(np.array(laid, np.int32)), b.constant(filters.transpose(1, 2, 3, 0)), b.laid(x)]
    operands += [b.views[name].buffer for name in op.inputs[2:] if name]
    strides = {"strideH": way.strides[0], "strideW": way.strides[1]}
    b.add("TRANSPOSE_CONV", operands, full.buffer, padding=VALID, **strides)
    kept = [slice(begin, begin + n) for begin, n in zip(way.pads, y.shape[2:], strict=False)]
    movement.strided(b, full, [slice(None), slice(None), *kept], y.buffer)


def transposable(node: ir.Node) -> str | None:
    """Two axes, one group, no gaps, a constant weight, and no output beyond the last window."""
    weight, shape = constant(input_at(node, 1)), dims(node.outputs[0])
    way = None if weight is None else window(node, weight.shape[2:])
    if weight is None or weight.ndim != 4 or way is None or way.pads is None or shape is None:
        return "its weight or its padding is not constant, or it has other axes than an image's two"
    if way.groups != 1 or any(d != 1 for d in way.dilations):
        return "it has groups or gaps"
    beyond = zip(ints(node, "output_padding") or (0, 0), way.pads[2:], strict=True)
    return "its output is padded" if any(more > pad for more, pad in beyond) else None
