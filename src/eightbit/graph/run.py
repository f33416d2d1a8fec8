"""A float graph and feeds in, arrays out, by ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from eightbit.errors import EngineError
from eightbit.graph.model import MAX_BYTES, constant, dims, initializer_bytes
from eightbit.graph.processor import pairs_saturate

FLOAT_PRODUCTS = ("session.qdq_matmulnbits_accuracy_level", "1")
"""Products of quantized weights and float activations are taken in float32. ONNX Runtime's own setting, 4, rounds the
activations of such a MatMul to eight bits without a word, whether the graph asks for it or not."""
EXACT_PAIRS = ("session.x64quantprecision", "1")
"""Kernels that add products of uint8 and int8 without saturation, for processors whose fast ones saturate. On others
the setting would double the time of int8 and change nothing."""

QUIET_THREADS = ("session.force_spinning_stop", "1")
"""A session's threads rest as soon as its run ends. By default they wait for the next one at full speed, and two models
that take turns on two cores slow each other down threefold."""

HELD = 2**28
"""Bytes of tensors that are looked at together."""
MOST_THREADS = max(256, 4 * (os.cpu_count() or 1))
"""Threads of a session: beyond any processor's cores they only cost memory, and a hundred thousand end the process."""


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The graph as an `onnx.ModelProto`, weights inside. Raises EngineError above the 2 GiB of protobuf."""
    size = initializer_bytes(model)
    if size > MAX_BYTES:
        raise EngineError(f"the model's weights take {size:,} bytes; one protobuf file holds {MAX_BYTES:,}")
    return ir.to_proto(model)


def to_bytes(model: ir.Model) -> bytes:
    """The graph as the bytes of an .onnx file, weights inside. Raises EngineError above 2 GiB."""
    return to_proto(model).SerializeToString()


class FloatSession:
    """`model` ready to run; `outputs` may name any tensors of the graph, default: the graph's outputs.

    With `optimize=False` ONNX Runtime runs the nodes as written. `threads=None` uses every core.
    Raises EngineError if a name is unknown or ONNX Runtime refuses the graph.
    """

    def __init__(
        self,
        model: ir.Model,
        outputs: Sequence[str] | None = None,
        *,
        optimize: bool = True,
        threads: int | None = None,
    ) -> None:
        graph = model.graph
        self.outputs = tuple(str(o.name) for o in graph.outputs) if outputs is None else tuple(outputs)
        # Inputs and weights are no results of a node: ONNX Runtime will not return them, so we do.
        self._inputs = {str(v.name) for v in graph.inputs}
        weights = {n: constant(graph.initializers[n]) for n in self.outputs if n in graph.initializers}
        self._constants = {n: _as_returned(array) for n, array in weights.items() if array is not None}
        given = self._inputs | set(self._constants)
        self._computed = [n for n in dict.fromkeys(self.outputs) if n not in given]
        self._session: ort.InferenceSession | None = None
        self._sizes: dict[str, float] = {}  # bytes of each result for a byte that is fed
        if self._computed:
            proto = to_proto(model)
            self._sizes = _sizes(graph.inputs, _expose(proto, model, self._computed))
            self._session = session(proto.SerializeToString(), optimize=optimize, threads=threads)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; returns `{output name: array}`. Raises EngineError with ONNX Runtime's reason."""
        computed = self._run(self._computed, feeds)
        results = dict(zip(self._computed, computed, strict=True)) | self._given(feeds)
        return {name: results[name] for name in self.outputs}

    def each(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """The results of `run` one after another, in any order: in more runs than one where together they are large.

        For whoever looks at every tensor of a network and keeps none: at 800 x 608 pixels they take gigabytes.
        """
        yield from self._given(feeds).items()
        fed = sum(x.nbytes for x in feeds.values())
        group: list[str] = []
        size = 0.0
        for name in self._computed:
            own = self._sizes[name] * fed
            if group and size + own > HELD:
                yield from self._some(group, feeds, fed)
                group, size = [], 0.0
            group.append(name)
            size += own
        if group:
            yield from self._some(group, feeds, fed)

    def _some(
        self, names: list[str], feeds: Mapping[str, np.ndarray], fed: int
    ) -> Iterator[tuple[str, np.ndarray]]:
        arrays = self._run(names, feeds)
        self._sizes |= {name: array.nbytes / max(1, fed) for name, array in zip(names, arrays, strict=True)}
        for name in names:
            yield name, arrays.pop(0)

    def _run(self, names: list[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            return [] if self._session is None else list(self._session.run(names, dict(feeds)))
        except Exception as cause:
            raise EngineError(f"ONNX Runtime could not run the model: {_first_line(cause)}") from cause

    def _given(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The results that no node computes."""
        return self._constants | {name: feeds[name] for name in self.outputs if name in self._inputs}


def check_threads(threads: int | None) -> None:
    """Raises EngineError for more threads than a machine bears, and for none."""
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise EngineError(
            f"threads={threads}: give 1 to {MOST_THREADS}; this machine has {os.cpu_count()} cores"
        )


def session_options(threads: int | None = None, *, proven: bool = False) -> ort.SessionOptions:
    """The settings that every ONNX Runtime session of this package has: quiet, and exact.

    `threads=None` is every core. `proven` says that no pair of products in the graph can saturate: then the fast
    kernels are exact. Raises EngineError for more threads than a machine bears.
    """
    check_threads(threads)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(*FLOAT_PRODUCTS)
    options.add_session_config_entry(*QUIET_THREADS)
    if threads is not None:
        options.intra_op_num_threads = threads
    if pairs_saturate() and not proven:
        options.add_session_config_entry(*EXACT_PAIRS)
    return options


def session(
    model: bytes, *, optimize: bool = True, threads: int | None = None, proven: bool = False
) -> ort.InferenceSession:
    """A quiet ONNX Runtime CPU session on the bytes of a model. Raises EngineError if it is refused."""
    options = session_options(threads, proven=proven)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as cause:  # ONNX Runtime raises its own classes, one per status code
        raise EngineError(f"ONNX Runtime refuses the model: {_first_line(cause)}") from cause


def _expose(proto: onnx.ModelProto, model: ir.Model, names: Sequence[str]) -> dict[str, ir.Value]:
    """Make the tensors `names` the outputs of `proto` (types as known; shapes are left to the runtime).

    Returns them. A sequence comes back as a list of arrays when it is run.
    """
    values = {v.name: v for node in model.graph for v in node.outputs if v.name}
    unknown = [n for n in names if n not in values]
    if unknown:
        raise EngineError(
            f"the graph has no tensor named {unknown[0]!r}; it has {', '.join(list(values)[:8])}, ..."
        )
    del proto.graph.output[:]
    for name in names:
        dtype = values[name].dtype
        info = proto.graph.output.add(name=name)
        if not isinstance(values[name].type, ir.TensorType | None):
            info.CopyFrom(ir.to_proto(values[name]))
        elif dtype is not None:
            info.type.tensor_type.elem_type = int(dtype)
    return {name: values[name] for name in names}


def _sizes(inputs: Iterable[ir.Value], values: Mapping[str, ir.Value]) -> dict[str, float]:
    """Bytes of each value for a byte of the inputs, as far as shapes are known; as many where they are not."""

    def elements(value: ir.Value) -> float:
        return float(np.prod([d or 1 for d in dims(value) or ()]))

    fed = max(1.0, sum(map(elements, inputs)))
    return {name: elements(value) / fed if dims(value) else 1.0 for name, value in values.items()}


def _as_returned(array: np.ndarray) -> np.ndarray:
    """A constant as ONNX Runtime returns one: strings are objects."""
    return np.char.decode(array, "utf-8").astype(object) if array.dtype.kind == "S" else array


def _first_line(cause: BaseException) -> str:
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
