"""How much noise each source of quantization error puts on a network's outputs, all sources in one go.

In: a float graph, codes for its layers, parameters for its activations, some samples. Out: for each source, the power
of the outputs' error that it alone would cause. A source is the weight of a layer or a tensor of activations; its
error d is known exactly. To first order the outputs' error is the sum of J d over the sources, with J the network's
own derivative; one run with every d switched on, with signs s, gives sum s J d, and a weighing design of runs
(`design`) gives every J d by itself. No derivative is computed, so any op will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.arith.affine import QuantParams, fake_quantize
from eightbit.data.feeds import Feeds
from eightbit.graph.model import add_constant, constant, input_at
from eightbit.graph.names import counted, unique_name, unique_node_name
from eightbit.graph.run import FloatSession
from eightbit.quant.encode.weights import EncodedLayer
from eightbit.quant.observe.layout import Layout
from eightbit.safety.design import Signs, one_by_one, weighing_design
from eightbit.safety.parts import apart, joints

BLOCK = 2**13
"""Values of an output that are weighed at a time."""


class Kind(Enum):
    """What is quantized."""

    WEIGHTS = "weights"
    ACTIVATIONS = "activations"


@dataclass(frozen=True)
class Source:
    """The weights of the node `name`, or the tensor of activations called `name`."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Noise:
    """What the probes found. `power` is that of the outputs' error relative to the outputs, by source; `energy` the sum
    of squares of the source's own error, and `outputs` the number of values of the tensor it lies on, both by sample.
    """

    power: Mapping[Source, float]
    energy: Mapping[Source, float]
    values: Mapping[Source, float]
    runs: int


NOTHING = np.zeros((), np.float32)
ALONE = np.ones((1, 1), np.float32)
"""The design of one source."""
_Outputs = list[NDArray[np.floating]]


def probe(
    model: ir.Model,
    layers: Mapping[str, EncodedLayer],
    params: Mapping[str, QuantParams],
    data: Iterable[Feeds],
    design: Callable[[int], Signs] = weighing_design,
) -> Noise:
    """The noise of every source: `layers` by node name, `params` by tensor name, `data` one sample at a time.

    `design` makes the signs (runs, sources), whose columns are orthogonal. With `one_by_one` an error that throws
    an output off (beyond the bounds of a logarithm) is NaN for its own source alone.
    """
    sources = [Source(Kind.WEIGHTS, name) for name in layers]
    sources += [Source(Kind.ACTIVATIONS, name) for name in params]
    errors = _Errors(model, layers, params)
    graph, places = _with_injections(model, sources)
    session, signs = FloatSession(graph), design(len(sources))
    joined, names = joints(model), list(dict.fromkeys(str(value.name) for value in model.graph.outputs))
    power, energy, values = np.zeros((3, len(sources)))
    count = 0
    index, nothing = {s: i for i, s in enumerate(sources)}, dict.fromkeys(places.values(), NOTHING)
    for sample in data:

        def outputs(given: Mapping[str, NDArray[np.float32]], sample: Feeds = sample) -> _Outputs:
            results = session.run({**sample, **nothing, **given}).values()
            # By the model's names, not those of the sums in their places.
            named = apart(dict(zip(names, results, strict=True)), joined)
            return [y.ravel() for y in named.values() if y.dtype.kind == "f"]

        exact = outputs({})
        found: dict[Source, NDArray[np.float32]] = {}
        for source, error in errors.each(sample):
            i = index[source]
            energy[i] += float(np.square(error, dtype=np.float64).sum())
            values[i] += error.size
            if design is one_by_one:  # no error is kept: those of a large picture take gigabytes
                power[i] += _mean_power(exact, [outputs({places[source]: error})], ALONE).item()
            else:
                found[source] = error
        if design is not one_by_one:
            # Signed here, once, and not in the graph: a product by a sign would pass over every tensor in every run.
            signed = {1: found, -1: {s: np.negative(e, out=np.empty_like(e)) for s, e in found.items()}}
            runs = (
                outputs({places[s]: signed[int(sign)][s] for s, sign in zip(sources, row, strict=True)})
                for row in signs
            )
            power += _mean_power(exact, runs, signs)
        count += 1

    def mean(total: NDArray[np.float64]) -> dict[Source, float]:
        return dict(zip(sources, (total / count).tolist(), strict=True))

    return Noise(mean(power), mean(energy), mean(values), count * (1 + len(signs)))


def _mean_power(
    exact: Sequence[NDArray[np.floating]],
    runs: Iterable[Sequence[NDArray[np.floating]]],
    signs: NDArray[np.float32],
) -> NDArray[np.float64]:
    by_output = zip(exact, zip(*runs, strict=True), strict=True)
    return np.mean([_weighed(z, noisy, signs) for z, noisy in by_output], axis=0)


def _weighed(
    z: NDArray[np.floating], noisy: Sequence[NDArray[np.floating]], signs: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The power of each source's effect on one output, relative to the output `z` (N,): of `noisy` runs by `signs`.

    Some values at a time: an image has a hundred thousand, in hundreds of runs.
    """
    weights = (signs / np.square(signs).sum(axis=0)).T
    total, signal = np.zeros(signs.shape[1]), float(np.finfo(np.float64).tiny)
    for start in range(0, z.size, BLOCK):
        part = slice(start, start + BLOCK)
        finite = np.isfinite(z[part])  # a mask's infinities are no signal
        exact = z[part][finite].astype(np.float64)
        change = np.stack([y[part][finite] for y in noisy]).astype(np.float64) - exact
        total += np.square(weights @ change).sum(axis=1)
        signal += float(exact @ exact)
    return total / signal


class _Errors:
    """Computes the error of every source on the float network's own tensors."""

    def __init__(
        self,
        model: ir.Model,
        layers: Mapping[str, EncodedLayer],
        params: Mapping[str, QuantParams],
    ) -> None:
        self.params = params
        self.tensors: dict[Source, str] = {}
        graph = model.clone()
        with counted(graph.graph):
            for node in [n for n in graph.graph if n.name in layers]:
                name = str(node.name)
                twin = _error_layer(graph.graph, node, layers[name])
                self.tensors[Source(Kind.WEIGHTS, name)] = str(twin.outputs[0].name)
        self.session = FloatSession(graph, [*self.tensors.values(), *params])

    def each(self, sample: Feeds) -> Iterator[tuple[Source, NDArray[np.float32]]]:
        """The error of each source, in the shape of the tensor it lies on."""
        weights = {name: source for source, name in self.tensors.items()}
        for name, x in self.session.each(sample):
            if name in weights:
                yield weights[name], x
            if name in self.params:
                yield Source(Kind.ACTIVATIONS, name), np.asarray(fake_quantize(x, self.params[name]) - x)


def _error_layer(graph: ir.Graph, node: ir.Node, layer: EncodedLayer) -> ir.Node:
    """A copy of `node` with the weight's error for a weight: what the codes add to its output."""
    weight, bias = constant(node.inputs[1]), constant(input_at(node, 2))
    assert weight is not None
    error = layer.real_weight(Layout.of(node)) - weight.astype(np.float32)
    inputs = [node.inputs[0], add_constant(graph, f"{node.name}.error", error)]
    after = layer.real_bias
    if after is not None and node.op_type != "MatMul":
        before = np.float32(0) if bias is None else bias.reshape(-1)
        inputs.append(add_constant(graph, f"{node.name}.bias_error", (after - before).astype(np.float32)))
    out = _float(unique_name(graph, f"{node.name}.noise"))
    twin = ir.node(node.op_type, inputs, outputs=[out], name=unique_node_name(graph, f"{node.name}.noise"))
    for key, attribute in node.attributes.items():
        twin.attributes[key] = attribute
    graph.insert_after(node, [twin])
    return twin


def _with_injections(model: ir.Model, sources: list[Source]) -> tuple[ir.Model, dict[Source, str]]:
    """The graph with `+ error` behind the tensor of each source, and the names of the errors, which are new inputs."""
    result = model.clone()
    graph = result.graph
    nodes = {str(node.name): node for node in graph}
    tensors = {str(v.name): v for v in [*graph.inputs, *(out for node in graph for out in node.outputs)]}
    places = {}
    with counted(graph):
        for source in sources:
            value = nodes[source.name].outputs[0] if source.kind == Kind.WEIGHTS else tensors[source.name]
            error = _float(unique_name(graph, "error"))  # of any shape: none is one number, zero
            graph.inputs.append(error)
            _add_behind(graph, value, error)
            places[source] = str(error.name)
    return result, places


def _add_behind(graph: ir.Graph, value: ir.Value, error: ir.Value) -> None:
    """Let the readers of `value` read value + error."""
    users, producer = list(value.uses()), value.producer()
    noisy = _float(unique_name(graph, "noisy"), value.shape)
    add = ir.node("Add", [value, error], outputs=[noisy], name=unique_node_name(graph, "noisy"))
    for node, index in users:
        node.replace_input_with(index, noisy)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = noisy
    if producer is None:
        graph.insert_before(next(iter(graph)), add)
    else:
        graph.insert_after(producer, add)


def _float(name: str, shape: ir.Shape | None = None) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
