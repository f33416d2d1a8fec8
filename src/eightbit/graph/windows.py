"""The window of a Conv or a pool, with all that ONNX lets a file leave out: strides, dilations, pads or auto_pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from eightbit.arith.windows import same_pads
from eightbit.graph.model import attribute, dims, fixed_shape, input_at, ints, is_op


@dataclass(frozen=True)
class Window:
    """A way over an input (N, C, ...): one number a spatial axis, and the `groups` of channels of a convolution.

    `pads` are all begins, then all ends; None where `auto_pad` is SAME and asks for a length that is not known yet.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    auto_pad: str = "NOTSET"
    groups: int = 1

    def pads_over(self, lengths: Sequence[int | None]) -> tuple[int, ...] | None:
        """The pads over spatial axes of these lengths; None where a length that is not known decides."""
        if self.pads is not None:
            return self.pads
        upper = self.auto_pad == "SAME_UPPER"
        axes = zip(lengths, self.kernel, self.strides, self.dilations, strict=True)
        ends = [same_pads(*axis, upper=upper) for axis in axes]
        known = [pair for pair in ends if pair is not None]
        return (*(b for b, _ in known), *(e for _, e in known)) if len(known) == len(ends) else None


def window(node: ir.Node, kernel: tuple[int, ...] | None = None) -> Window | None:
    """The window of a Conv or a pool; None where neither the node nor the caller says its size, `kernel`."""
    value = input_at(node, 1) if is_op(node, "Conv") else None
    weight = fixed_shape(value) or dims(value)
    if weight is not None and kernel is None and None not in weight[2:]:
        kernel = tuple(d for d in weight[2:] if d is not None)
    kernel = ints(node, "kernel_shape") or kernel
    if kernel is None:
        return None
    ones, zeros = (1,) * len(kernel), (0,) * (2 * len(kernel))
    strides, dilations = ints(node, "strides") or ones, ints(node, "dilations") or ones
    auto_pad = str(attribute(node, "auto_pad", "NOTSET"))
    pads = {"NOTSET": ints(node, "pads") or zeros, "VALID": zeros}.get(auto_pad)
    found = Window(kernel, strides, dilations, pads, auto_pad, int(attribute(node, "group", 1)))
    shape = dims(node.inputs[0])
    return replace(found, pads=found.pads_over((None,) * len(kernel) if shape is None else shape[2:]))
