"""What a user holds: a float `Model`, and the `QuantizedModel` made from it.

`load` and `quantize` are the road of the whole package in two calls; each stage they walk through is a module of its
own (`graph`, `quant`, `integer`, `deploy`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir

from eightbit.arith.affine import QuantParams
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.data.feeds import feed
from eightbit.data.replay import replayable
from eightbit.data.results import Array, like
from eightbit.data.specs import TensorSpec, output_specs, specs
from eightbit.deploy.c.folder import CFolder, write_c
from eightbit.deploy.engines import Runner, engine_of
from eightbit.deploy.repository import Repository, write_repository
from eightbit.deploy.tflite.file import TfliteFile, write_tflite
from eightbit.errors import EngineError, ExportError, LoadError, QuantizationError, printable
from eightbit.graph.forms import NO_FORM
from eightbit.graph.model import first_codes, title
from eightbit.graph.notes import notes
from eightbit.graph.packing import unpack_in_place
from eightbit.graph.pickling import HoldsGraph
from eightbit.graph.prepare.fold import infer_shapes, prepare
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples
from eightbit.graph.save import save_graph
from eightbit.graph.source.example import example_from, takes
from eightbit.graph.source.load import load_graph
from eightbit.graph.source.naming import named
from eightbit.graph.source.operands import check_operands
from eightbit.integer.lower import lower
from eightbit.integer.program import Program
from eightbit.quant.choose.placement import Island, Placement
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.encode.layers import wide_layers
from eightbit.quant.observe.calibrate import Progress
from eightbit.quant.quantize import begin, finish
from eightbit.quant.write.weights_file import read_weights, with_weights, write_weights
from eightbit.safety.check import FLOOR, Check
from eightbit.safety.repair import checked
from eightbit.values.fields import Between, argument, check


class _Runnable(HoldsGraph):
    """A graph with named inputs and outputs. It copies and pickles; sessions are made anew where they are needed.

    A graph whose nodes lack names of their own is copied, and the copy's nodes get some.
    """

    def __init__(self, graph: ir.Model) -> None:
        self.ir: ir.Model = named(graph)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each input; a free dimension is None."""
        return specs(self.ir)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each output, as for `inputs`. Raises LoadError for one without dtype or rank."""
        return output_specs(self.ir)

    def __repr__(self) -> str:
        return printable(
            f"{type(self).__name__}({', '.join(map(str, self.inputs))}; {len(self.ir.graph)} nodes)"
        )


class Model(_Runnable):
    """A float graph, ready to run: `model(x)`."""

    @cached_property
    def _session(self) -> FloatSession:
        return FloatSession(self.ir)

    def __call__(self, *inputs: Any) -> Any:
        """Run in ONNX Runtime: one argument an input, or one dict by name. One output comes back bare, more as a tuple.

        NaN and Inf go through, as any number does. Outputs are NumPy arrays, or PyTorch or TensorFlow tensors if
        tensors were given. Raises EngineError if an input does not fit.
        """
        return _bare(self._session.run(_feeds(inputs, self.inputs, nan=True)), inputs)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the float graph as ONNX: a file that `load` reads, whole or not at all. Raises ExportError."""
        return save_graph(self.ir, path, load_graph)

    @property
    def notes(self) -> tuple[str, ...]:
        """What loading did that its caller should know of, a sentence each; mostly there is nothing."""
        return notes(self.ir)

    def __repr__(self) -> str:
        return printable("\n".join([super().__repr__(), *(f"  note: {text}" for text in self.notes)]))


@dataclass(frozen=True)
class Report:
    """What quantization did: the nodes left in float with the reasons, the parameters of each tensor, the recipe.

    `notes` are those of the float model, on what loading did, and on layers that were rounded otherwise than it says.
    `check` is what a few samples say of the outputs (None if they were not looked at); the text has what of it calls
    for attention.
    """

    islands: tuple[Island, ...]
    params: Mapping[str, QuantParams]
    recipe: Recipe
    notes: tuple[str, ...] = ()
    check: Check | None = None

    def __post_init__(self) -> None:
        check(self)

    def __str__(self) -> str:
        what = "weights quantized, activations in float" if self.recipe.weights_only else ""
        if self.recipe.dynamic:
            what = f"activations quantized in every run; {len(self.islands)} nodes left in float"
        counted = f"{len(self.params)} tensors quantized; {len(self.islands)} nodes left in float"
        nodes = [f"  {i.node} ({i.op}): {i.reason}" for i in self.islands]
        if self.recipe.holds_pairs:
            nodes.insert(0, f"  for {self.recipe.processor}: no pair of 8-bit weights can leave int16")
        notes = (*self.notes, *(() if self.check is None else self.check.remarks))
        return printable("\n".join([what or counted, *nodes, *(f"  note: {text}" for text in notes)]))


class QuantizedModel(_Runnable):
    """A graph of int8 codes, ready to run in ONNX Runtime (`q(x)`) or in the NumPy engine."""

    def __init__(self, graph: ir.Model, report: Report | None = None) -> None:
        super().__init__(graph)
        self.report = report

    @cached_property
    def program(self) -> Program:
        """The integer program: the same model as a list of integer operations."""
        return lower(self.ir)

    @cached_property
    def _started(self) -> dict[tuple[str, Arithmetic | None], Runner]:
        return {}

    def __call__(self, *inputs: Any) -> Any:
        """Run in ONNX Runtime; arguments and results as in `Model`."""
        return self.run(*inputs)

    def run(
        self, *inputs: Any, engine: str = "onnxruntime", arithmetic: str | Arithmetic | None = None
    ) -> Any:
        """Run in `engine`: "onnxruntime", "numpy", "native" (the network's C, compiled for this machine), "openvino".

        Others run the .tflite that `export` writes: "tflm" in TFLite Micro, "litert" in LiteRT with XNNPACK's kernels,
        "litert-builtin" in LiteRT with its own.

        `arithmetic` is how accumulators become codes: "onnx", "tflite" or "single" (see `Arithmetic`). ONNX Runtime has
        its own, "onnx"; the NumPy engine has them all ("onnx" unless told otherwise), C the other two ("tflite"),
        TFLite Micro "tflite", and OpenVINO and LiteRT none that has a name. Engines that share one give the same
        integers. Raises EngineError if the engine or its arithmetic is unknown, for an operation that they lack, and
        for an input that does not fit; NaN has no code, and is refused. Raises MissingExtra for an engine that is not
        installed.
        """
        feeds = _feeds(inputs, self.inputs)
        found = engine_of(engine)
        chosen = found.chosen(None if arithmetic is None else Arithmetic.of(arithmetic, EngineError))
        if (engine, chosen) not in self._started:
            self._started[engine, chosen] = found.start(self, chosen, None)
        return _bare(self._started[engine, chosen].run(feeds), inputs)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the quantized graph as ONNX: a file that `open` reads, whole or not at all. Raises ExportError.

        Weights whose codes fit four or two bits are packed, two or four to a byte; `open` unpacks them.
        """
        return save_graph(self.ir, path, _opened)


def load(source: Any, example: Any = None, *, constants: Mapping[str, Any] | None = None) -> Model:
    """A float model from a torch.nn.Module (with an `example` input), a keras.Model, a model's path or an ONNX proto.

    Paths: files of ONNX, of Keras (.keras, .h5), of torch.export (.pt2), and folders of TensorFlow SavedModels.

    `constants` hold inputs to one value, by name: `load("vad.onnx", constants={"sr": 16000})` leaves the model without
    the input and with the one branch that is taken. The graph is prepared for quantization: BatchNorm and constants
    folded, names kept. Raises LoadError, also for a graph that holds codes already.

    >>> import torch
    >>> load(torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()), example=torch.zeros(1, 8))
    Model(input: float32 (?, 8); 2 nodes)
    """
    graph = load_graph(source, example, constants=constants)
    node = first_codes(graph)
    if node is not None:
        raise LoadError(
            f"{_called(source)} is quantized already: node {node.name!r} is a {node.op_type}; use eightbit.open, which "
            "reads quantized models, or give the float model"
        )
    return Model(prepare(graph))


def quantize(
    model: Any,
    calibration: Any = None,
    recipe: Recipe | None = None,
    *,
    check: bool = True,
    floor: float = FLOOR,
    progress: Progress | None = None,
) -> QuantizedModel:
    """Turn a model into int8: weights, activations and biases, by `recipe` (default: `Recipe()`).

    `model` is what `load` returns or accepts. `calibration` holds inputs as the model takes them: one array, a dict,
    or an iterable of batches (tuples, dicts, DataLoader, tf.data.Dataset); None will do for a recipe that looks at no
    data (`activations=FLOAT` or `Activations(dynamic=True)`, rounding to the nearest). A torch module without a `load`
    takes its example from the first calibration batch. Raises LoadError, CalibrationError or QuantizationError.

    At the end the first calibration samples go through both models, and `report.check` of the result says how near the
    outputs are. Where the SQNR of one is below `floor`, in dB, it names the weights and activations that cost most. The
    default recipe then gives the fewest of them that keep every output above it 16 bits, or leaves them in float, and
    warns if neither will do; any other recipe is a choice, and stays as it is. `check=False` leaves all this out. A
    module that was trained in integers is what it has learned, and not checked.

    >>> import torch
    >>> q = quantize(torch.nn.Linear(8, 4), torch.randn(64, 8))
    >>> print(q.report)
    2 tensors quantized; 0 nodes left in float
    >>> q(torch.zeros(1, 8)).shape
    torch.Size([1, 4])
    """
    if hasattr(model, "quantized"):  # a module that was trained in integers has its own
        return _as_trained(model, calibration, recipe)
    floor = argument("floor", floor, Annotated[float, Between(0, 100)])
    model, calibration = with_data(model, calibration)
    chosen = Recipe.of(recipe).settled(calibration is not None)
    data = replayable(calibration, model.inputs) if check or chosen.sequential else calibration
    staged = begin(model.ir, data, chosen, progress=progress)
    found, outcome = finish(staged, chosen, data, progress=progress), None
    if check:
        found, chosen, outcome = checked(model.ir, data, staged, found, chosen, floor)
    graph, placement, params = found
    q = QuantizedModel(graph)
    notes = (*model.notes, *_roundings(model.ir, placement, chosen))
    q.report = Report(_islands(q, placement, chosen), params, chosen, notes, outcome)
    return q


def _roundings(graph: ir.Model, placement: Placement, recipe: Recipe) -> tuple[str, ...]:
    """A sentence on the layers whose weights went to the nearest code although the recipe looks at data."""
    wide = wide_layers(graph, placement.layers) if recipe.needs_moments else {}
    if not wide:
        return ()
    name, count = next(iter(wide.items()))
    named = f"{name!r} ({count} inputs)" + (f" and {len(wide) - 1} more" if len(wide) > 1 else "")
    return (f"too wide for the moments of the data, rounded to the nearest, bias not corrected: {named}",)


def _islands(q: QuantizedModel, placement: Placement, recipe: Recipe) -> tuple[Island, ...]:
    """The nodes that run in float, as the program says, with the reasons that the placement had for them.

    Of an op without a form of its own the program knows more: between codes it is a table. Where activations are not
    static codes everything else runs in float, by the recipe's own words.
    """
    if recipe.weights_only or recipe.dynamic:
        return placement.islands
    reasons = {island.node: island for island in placement.islands if island.reason != NO_FORM}
    return tuple(reasons.get(island.node, island) for island in in_float(q.ir, q.program))


def in_float(qdq: ir.Model, program: Program) -> tuple[Island, ...]:
    """The nodes of a QDQ graph that `program`, its own, computes in float; without those that only carry numbers there.

    These are the borders of codes, and sums of one term: they keep a layer in float, and compute nothing.
    """
    reasons = program.in_float
    return tuple(
        Island(title(node), node.op_type, reasons[title(node)])
        for node in qdq.graph
        if title(node) in reasons
        and node.op_type not in ("QuantizeLinear", "DequantizeLinear")
        and not (node.op_type == "Sum" and len(node.inputs) == 1)
    )


def _as_trained(module: Any, calibration: Any, recipe: Recipe | None) -> QuantizedModel:
    """The int8 model that a trainable module has become."""
    if calibration is not None or recipe is not None:
        raise QuantizationError(
            f"a {type(module).__name__} has learned its scales and codes; call quantize(module) alone"
        )
    q: QuantizedModel = module.quantized()
    return q


def open(path: str | os.PathLike[str]) -> QuantizedModel:
    """Read back what `QuantizedModel.save` wrote. Raises LoadError, also for a graph without quantized tensors."""
    return QuantizedModel(_opened(path))


def _opened(source: str | os.PathLike[str] | bytes) -> ir.Model:
    """The graph of a file that `QuantizedModel.save` wrote, or of its bytes."""
    graph = load_graph(source)
    if first_codes(graph) is None:
        raise LoadError(
            f"{_called(source)} is a float model, with no DequantizeLinear in it; use eightbit.load, which reads those"
        )
    unpack_in_place(graph)
    infer_shapes(graph)  # the file leaves them out
    check_operands(graph)
    return graph


FORMATS = ("c", "tflite", "triton")
"""What `export` writes."""


def export(
    q: QuantizedModel,
    place: str | os.PathLike[str],
    *,
    format: str | None = None,
    arithmetic: str | Arithmetic = Arithmetic.TFLITE,
    name: str = "net",
    data: Any = None,
) -> CFolder | TfliteFile | Repository:
    """Write the network for another runtime: C99 ("c"), a .tflite file ("tflite") or a model repository ("triton").

    `format` None is "tflite" where `place` ends in .tflite, else "c".

    The folder of C needs no library and no memory but its own: net.c, net.h, kernels, a Makefile. The codes that come
    out are those of the NumPy engine in the same `arithmetic`, "tflite" or "single". One call takes one sample. `data`,
    inputs as the model takes them, become the vectors of the self-test (`make check`); otherwise they are random.
    `name` is what files and functions are called. Printing what comes back shows the arena, `eightbit.plot.arena` draws
    it.

    A .tflite is int8 throughout, channels last, one sample a call; it runs in LiteRT, and in TFLite Micro with the
    integers of the NumPy engine in "tflite" arithmetic. It needs the extra `litert`, and none of the other options.

    A repository is the ONNX file as Triton and KServe serve it, `name`/config.pbtxt and `name`/1/model.onnx; with free
    batches the server may put requests together. It takes `name` alone.

    Raises ExportError for what the format cannot say, all reasons at once: operations left in float, dynamic layers, 16
    bits, free lengths beside the batch (ONNX says them all); MissingExtra.
    """
    chosen = Arithmetic.of(arithmetic, ExportError)
    where = os.fspath(place)
    kind = format or ("tflite" if where.endswith(".tflite") else "c")
    if kind not in FORMATS:
        raise ExportError(f"unknown format {format!r}; choose {', '.join(map(repr, FORMATS))}")
    named = name != "net" and kind == "tflite"
    if kind != "c" and (chosen is not Arithmetic.TFLITE or named or data is not None):
        what = "arithmetic, name and data are for C" if kind == "tflite" else "arithmetic and data are for C"
        raise ExportError(
            f"{where}: {what}; leave them out for {'a .tflite' if kind == 'tflite' else 'a repository'}"
        )
    if kind == "tflite":
        return write_tflite(q.program, place)
    if kind == "triton":
        return write_repository(q.ir, place, name)
    found = None if data is None else list(samples(q.ir, data, ExportError))
    return write_c(q.program, place, chosen, name=name, samples=found)


def save_weights(q: QuantizedModel, path: str | os.PathLike[str]) -> Path:
    """Write the quantized weights alone, as safetensors: codes (packed), scales, biases, and a map in its metadata.

    Raises QuantizationError for a model without quantized weights, ExportError.
    """
    return write_weights(q.ir, path)


def load_weights(model: Model, path: str | os.PathLike[str]) -> QuantizedModel:
    """The float model with the weights of a file that `save_weights` wrote: the same integers, activations in float.

    Raises LoadError, naming the layer, for a file that is damaged or was made from another model.
    """
    return QuantizedModel(with_weights(model.ir, read_weights(path, model.ir)))


def with_data(source: Any, data: Any) -> tuple[Model, Any]:
    """A `Model` whatever the source, and the data to use with it: where every function on a model and data begins.

    `source` is a `Model`, or what `load` takes; a torch module, or a Keras model that does not say what it takes, gets
    its example from the first batch of the data, and the data that come back still begin with it. Raises LoadError, or
    CalibrationError for data without a batch.
    """
    if isinstance(source, Model):
        return source, data
    arguments = takes(source)
    if arguments is None:
        return load(source), data
    example, data = example_from(arguments, data)
    return load(source, example), data


def _called(source: Any) -> str:
    """How a message calls what was to be loaded: a file by its path."""
    if isinstance(source, bytes):
        return "this file"
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"this {type(source).__name__}"


def _feeds(
    inputs: tuple[Any, ...], wanted: tuple[TensorSpec, ...], *, nan: bool = False
) -> dict[str, np.ndarray]:
    return feed(inputs[0] if len(inputs) == 1 else inputs, wanted, EngineError, nan=nan)


def _bare(outputs: Mapping[str, Array], given: Any) -> Any:
    """One output bare, more as a tuple, each of the kind that was `given`."""
    values = tuple(map(like(given), outputs.values()))
    return values[0] if len(values) == 1 else values
