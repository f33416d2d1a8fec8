"""One walk from the inputs to the outputs, after which nothing about constants and shapes is left to find out.

At each node what lies before it is settled. So its outputs' shapes are inferred from final ones, it is computed now if
its inputs are constants, and shape arithmetic that reads its outputs finds their lengths: one walk is enough for a
network of any depth, and a second one changes nothing.
"""

from __future__ import annotations

import onnx_ir as ir

from eightbit.graph.prepare.constants import fold_constant
from eightbit.graph.prepare.infer import Inference
from eightbit.graph.prepare.shapes import Known, fold_shape, fold_target, reshaped


def settle(model: ir.Model) -> int:
    """Fold constants and shape arithmetic and infer shapes, in place; returns how many nodes went or were settled.

    The graph is in topological order before and after.
    """
    inference, count = Inference(model), 0
    inference.name_lengths(model.graph.inputs)
    known: Known = {}
    for node in list(model.graph):
        inference.infer(node)
        if fold_constant(node, model.opset_imports) or fold_shape(node, known):
            count += 1
            continue
        count += fold_target(node, known)
        shape = reshaped(node, known)
        if shape is not None:
            inference.set_shape(node.outputs[0], shape)
        inference.name_lengths(node.outputs)
    return count


def forget_stale_shapes(model: ir.Model) -> bool:
    """Drop all inner shapes that a file states if its own inputs contradict them, in place; whether they did.

    Scripts that free the batch axis of a file change its inputs and leave the rest, so that a 1 stands for the batch
    in tensors that inference alone would not know.
    """
    inference = Inference(model)
    for node in model.graph:
        inference.infer(node)
    if inference.stale:
        for node in model.graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = None
    return inference.stale
