"""The slow way to a sensitivity: quantize one source, run everything, and again for the next."""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from eightbit.graph.model import input_at, set_constant
from eightbit.graph.run import FloatSession
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.observe.layout import Layout
from eightbit.quant.stage import Stage, encoded, fitted, placed
from eightbit.safety.probes import Kind, Source


def one_at_a_time(
    staged: Stage,
    recipe: Recipe,
    x: np.ndarray,
    kinds: Collection[Kind] = (Kind.WEIGHTS, Kind.ACTIVATIONS),
) -> dict[Source, float]:
    """The power of the first output's error, relative to the output, with one source quantized at a time."""
    placement = placed(staged, recipe)
    params = fitted(staged, placement, recipe)
    layers = encoded(staged, placement, params, recipe)
    exact = _run(staged.model, x)
    found = {}
    for name, layer in layers.items() if Kind.WEIGHTS in kinds else ():
        graph = staged.model.clone()
        node = next(n for n in graph.graph if n.name == name)
        set_constant(node, 1, layer.real_weight(Layout.of(node)))
        if (bias := layer.real_bias) is not None:
            before = input_at(node, 2)
            set_constant(node, 2, bias, stem=f"{name}.bias" if before is None else str(before.name))
        found[Source(Kind.WEIGHTS, name)] = _relative(_run(graph, x), exact)
    for name in placement.observed if Kind.ACTIVATIONS in kinds else ():
        graph = staged.model.clone()
        _put_codes_behind(graph.graph, name, params[name])
        found[Source(Kind.ACTIVATIONS, name)] = _relative(_run(graph, x), exact)
    return found


def _put_codes_behind(graph: ir.Graph, tensor: str, p) -> None:
    values = [*graph.inputs, *(out for node in graph for out in node.outputs)]
    value = next(v for v in values if v.name == tensor)
    users = list(value.uses())
    constants = []
    for name, array in (("s", np.asarray(p.scale)), ("z", np.asarray(p.zero_point, p.itype.dtype))):
        c = ir.Value(name=f"only_{name}", const_value=ir.tensor(array, name=f"only_{name}"))
        c.dtype, c.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        graph.register_initializer(c)
        constants.append(c)
    codes = ir.Value(name="only_q")
    after = ir.Value(name="only_dq", type=ir.TensorType(ir.DataType.FLOAT))
    pair = [
        ir.node("QuantizeLinear", [value, *constants], outputs=[codes]),
        ir.node("DequantizeLinear", [codes, *constants], outputs=[after]),
    ]
    for node, index in users:
        node.replace_input_with(index, after)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = after
    producer = value.producer()
    if producer is None:
        graph.insert_before(next(iter(graph)), pair)
    else:
        graph.insert_after(producer, pair)


def _run(graph: ir.Model, x: np.ndarray) -> np.ndarray:
    found = FloatSession(graph).run({str(graph.graph.inputs[0].name): x})
    return next(iter(found.values())).astype(np.float64)


def _relative(noisy: np.ndarray, exact: np.ndarray) -> float:
    return float((np.square(noisy - exact).sum(1) / np.square(exact).sum(1)).mean())
