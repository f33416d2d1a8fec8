"""A QDQ graph and feeds in, arrays out, by ONNX Runtime: the runtime that the engine is held against.

Besides the outputs it can hand over every integer tensor that the optimized graph really computes, and say which
nodes it left in float.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from eightbit.deploy.saturation import proven
from eightbit.errors import EngineError
from eightbit.files import ended_in_order
from eightbit.graph.coded import quantizer
from eightbit.graph.model import is_op
from eightbit.graph.processor import pairs_saturate, this_processor
from eightbit.graph.run import session, session_options, to_bytes
from eightbit.integer.program import Codes, FloatIsland, canonical

Array = NDArray[np.generic]
CODE_TYPES = tuple(getattr(onnx.TensorProto, name) for name in ("UINT8", "INT8", "UINT16", "INT16"))


class OnnxRuntime:
    """A QDQ graph ready to run on the CPU with every graph optimization; `threads=None` uses every core.

    Raises EngineError if ONNX Runtime refuses the graph.
    """

    def __init__(self, qdq: ir.Model, *, threads: int | None = None) -> None:
        self._names = [str(v.name) for v in qdq.graph.outputs]
        self._session = session(to_bytes(qdq), threads=threads, proven=_proven(qdq))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; `{output name: array}`. Raises EngineError with ONNX Runtime's reason."""
        return dict(zip(self._names, _run(self._session, self._names, feeds), strict=True))


class IntegerTensors:
    """The codes of every quantized tensor of a QDQ graph, as ONNX Runtime's optimized graph computes them.

    The graph is optimized at the EXTENDED level (where the QLinear kernels are chosen), written out, given its tensors
    of codes as outputs and run as it then stands. `runtime_graph` is what `optimized` made of the graph, if that was
    called already; it is changed.
    """

    def __init__(
        self, qdq: ir.Model, *, threads: int | None = None, runtime_graph: onnx.ModelProto | None = None
    ) -> None:
        proto = optimized(qdq) if runtime_graph is None else runtime_graph
        types = _code_types(qdq, proto)
        self._names = list(types)
        del proto.graph.output[:]
        for name, dtype in types.items():
            proto.graph.output.add(name=name).type.tensor_type.elem_type = dtype
        if not self._names:
            raise EngineError("the graph holds no quantized tensor; give one that eightbit.quantize made")
        self._session = session(
            proto.SerializeToString(), optimize=False, threads=threads, proven=_proven(qdq)
        )

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Codes]:
        """`{name of the Q output: canonical codes}`; see `program.canonical`."""
        arrays = _run(self._session, self._names, feeds)
        return {name: canonical(codes) for name, codes in zip(self._names, arrays, strict=True)}


def integer_tensors(qdq: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Codes]:
    """All quantized tensors of one run, as canonical codes (see `IntegerTensors`)."""
    return IntegerTensors(qdq).run(feeds)


def _proven(qdq: ir.Model) -> bool:
    """Whether sessions of `qdq` can leave the exact kernels out; asked of its weights only where it counts.

    Warns where the want of proof costs time; not where EIGHTBIT_PROCESSOR says that files are for another processor.
    """
    if not pairs_saturate():
        return False
    found = proven(qdq)
    sums = any(is_op(node, "QuantizeLinear", "DynamicQuantizeLinear") for node in qdq.graph)
    if sums and not found and this_processor() == "x86-avx2":
        warnings.warn(SLOW, stacklevel=3)
    return found


SLOW = (
    "this processor has no VNNI, and the model was not made for it: exact sums of its products take about twice as "
    "long; quantize with Recipe(processor='x86-avx2')"
)


def optimized(qdq: ir.Model) -> onnx.ModelProto:
    """The graph after ONNX Runtime's EXTENDED optimizations, as it would run."""
    options = session_options(proven=_proven(qdq))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with ended_in_order(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(to_bytes(qdq), options, providers=["CPUExecutionProvider"])
        except Exception as cause:  # ONNX Runtime raises its own classes, one per status code
            raise EngineError(f"ONNX Runtime refuses the model: {str(cause).splitlines()[0]}") from cause
        return onnx.load(path)


def optimized_ops(qdq: ir.Model) -> list[tuple[str, str]]:
    """(op type, node name) of every node of the optimized graph, to see what was left in float."""
    return [(node.op_type, node.name) for node in optimized(qdq).graph.node]


def run_island(island: FloatIsland, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run a float island of an integer program: `{float tensor: array}` in and out."""
    return dict(
        zip(island.outputs, _run(_island_session(island.model), list(island.outputs), feeds), strict=True)
    )


@lru_cache(maxsize=64)
def _island_session(model: bytes) -> ort.InferenceSession:
    return session(model)


def _run(runner: ort.InferenceSession, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
    try:
        results: list[Array] = runner.run(names, dict(feeds))
    except Exception as cause:
        raise EngineError(f"ONNX Runtime could not run the model: {str(cause).splitlines()[0]}") from cause
    return results


def _code_types(qdq: ir.Model, proto: onnx.ModelProto) -> dict[str, int]:
    """The tensors of codes in `qdq` that the nodes of the optimized `proto` compute, with their types.

    The optimizer may turn int8 codes to uint8; where it recorded a type, that one counts.
    """
    recorded = {v.name: v.type.tensor_type.elem_type for v in (*proto.graph.value_info, *proto.graph.output)}
    computed = {name for node in proto.graph.node for name in node.output}
    types = {}
    for node in qdq.graph:
        value = node.outputs[0]
        q = quantizer(value)
        if q is None or value.name not in computed:
            continue
        zero_point = q.inputs[2] if len(q.inputs) > 2 else None
        dtype = value.dtype or (zero_point.dtype if zero_point is not None else ir.DataType.UINT8)
        found = recorded.get(str(value.name)) or int(dtype or ir.DataType.UINT8)
        if found in CODE_TYPES:
            types[str(value.name)] = found
    return types
