"""A graph and feeds in, arrays out, by OpenVINO on the CPU: the file that ONNX Runtime runs, in another runtime.

OpenVINO reads the QDQ graph, joins each layer with the quantization behind it, and runs it on codes. Our graph writes
codes behind every node, those that only move them too, for ONNX Runtime's sake; OpenVINO would convert them there and
back, 114 times in a six-layer BERT, so it is handed the graph without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.errors import EngineError, MissingExtra
from eightbit.graph.forms import Form, carried, ops
from eightbit.graph.model import bypass, constant, fixed_shape, is_op, title
from eightbit.graph.run import check_threads, to_bytes

Array = NDArray[np.generic]
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
"""What is computed in float is computed in float32; on processors with bfloat16 OpenVINO would choose that."""


class OpenVino:
    """A graph ready to run on the CPU; `threads=None` uses every core.

    Raises MissingExtra without OpenVINO, EngineError if it refuses the graph, or would compute something else.
    """

    def __init__(self, graph: ir.Model, *, threads: int | None = None) -> None:
        try:
            import openvino
        except ImportError as cause:
            raise MissingExtra("openvino", "openvino") from cause
        check_threads(threads)
        _refuse_padded_means(graph)
        self._names = [str(v.name) for v in graph.graph.outputs]
        settings = PRECISION if threads is None else PRECISION | {"INFERENCE_NUM_THREADS": str(threads)}
        core = openvino.Core()
        self._compiled = _tried(
            "refuses",
            lambda: core.compile_model(core.read_model(to_bytes(coded_once(graph))), "CPU", settings),
        )

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; `{output name: array}`. Raises EngineError with OpenVINO's reason."""
        given = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        found = _tried("could not run", lambda: self._compiled(given))
        return {name: np.array(found[i]) for i, name in enumerate(self._names)}


def coded_once(qdq: ir.Model) -> ir.Model:
    """The graph without the codes that nodes which only move codes would write again: numbers that are codes already.

    `Q(Reshape(DQ(c)))` is `Reshape(c)` where scale and zero point of both are the same constants of the graph, for the
    whole tensor, so every number stays what it was. Codes that are an output of the model are kept.
    """
    found, steps = qdq.clone(), dict[ir.Value | None, Sequence[ir.Value | None]]()
    for node in list(found.graph):
        source, made = next(iter(node.inputs), None), node.outputs[0]
        if is_op(node, "DequantizeLinear") and fixed_shape(node.inputs[1]) == ():
            steps[made] = node.inputs[1:]
        elif is_op(node, *ops(Form.MOVE)) and source in steps:
            steps.update(dict.fromkeys(carried(node), steps[source]))
        elif is_op(node, "QuantizeLinear") and source is not None and steps.get(source) == node.inputs[1:]:
            for reader, _ in list(made.uses()):
                if is_op(reader, "DequantizeLinear") and reader.inputs[1:] == steps[source]:
                    bypass(reader, source)
            if not made.uses() and not made.is_graph_output():
                found.graph.remove(node, safe=True)
    return found


def _refuse_padded_means(graph: ir.Model) -> None:
    """Raise EngineError for means over padding of codes: OpenVINO counts the padding as code 0, and not as zero."""
    for node in graph.graph:
        if node.op_type != "AveragePool" or not node.attributes.get_int("count_include_pad", 0):
            continue
        padded = any(node.attributes.get_ints("pads", ())) or node.attributes.get_string(
            "auto_pad", "NOTSET"
        ).startswith("SAME")
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        if not padded or source is None or source.op_type != "DequantizeLinear":
            continue
        zero_point = constant(source.inputs[2]) if len(source.inputs) > 2 else None
        if zero_point is not None and np.any(zero_point):
            raise EngineError(
                f"node {title(node)!r} averages its padding, which OpenVINO counts as code 0 instead of "
                f"{int(zero_point.flat[0])}: run another engine, or export the model with count_include_pad=0"
            )


def _tried(what: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as cause:  # OpenVINO raises RuntimeError, and what pybind11 makes of C++'s own
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        raise EngineError(f"OpenVINO {what} the model: {(lines or [type(cause).__name__])[-1]}") from cause
