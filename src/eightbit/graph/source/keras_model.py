"""Keras models and TensorFlow SavedModels -> float graph, through tf2onnx.

The model's forward code runs once under TensorFlow's tracing, for inference: augmentation and dropout fall away. What
it reads (weights, and tensors that a layer holds) is frozen into constants before tf2onnx sees the graph, and calls of
functions are written out: a grouped convolution is one. TensorFlow is imported only if a model of it is given.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from eightbit.data.specs import CASTS, Place, set_places
from eightbit.errors import LoadError, MissingExtra
from eightbit.graph.names import Names
from eightbit.graph.source import naming
from eightbit.graph.source.quiet import silence
from eightbit.graph.source.reason import reason

COMPILED = ("_XlaMustCompile", "_noinline")
"""Attributes that keep a function from being written out where it is called."""
TABLE = "LookupTable"
"""What the types of TensorFlow's operations on tables begin with."""
SIGNATURE = "serving_default"


def is_keras(source: Any) -> bool:
    """Whether `source` is a keras.Model, without importing keras."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(source, keras.Model)


def needs_example(model: Any) -> bool:
    """Whether a keras.Model says nothing of its inputs: a subclassed one never does, a Sequential once it is built."""
    return not getattr(model, "inputs", None)


def from_keras(model: Any, example: Any = None) -> ir.Model:
    """A keras.Model with its inputs as the source takes them (NHWC) and a free batch axis.

    Inputs are named as the model names them; inputs in a dict by their keys. `example` is one input set, needed by
    models that say nothing of their inputs (`needs_example`), and otherwise ignored.
    Raises LoadError if there is none, or the model cannot be exported.
    """
    tf, keras = _packages()
    if keras.backend.backend() != "tensorflow":
        raise LoadError(
            f"Keras runs on {keras.backend.backend()} here; save {model.name} as a .keras file and load that with the "
            "environment variable KERAS_BACKEND=tensorflow"
        )
    names: list[str | None] = [None]
    if not needs_example(model):
        arguments = [model.inputs[0] if isinstance(model, keras.Sequential) else model.input]
    elif example is not None:
        arguments, names = _arguments(model, example, keras)
    else:
        raise LoadError(
            f"the inputs of {model.name}, a {type(model).__name__}, are known only once it is called; give an "
            "example: load(model, example=x)"
        )
    taken, specs, places = Names(), [], {}
    for index, (part, name) in enumerate(zip(arguments, names, strict=True)):
        for place, tensor in _leaves(part):
            shape = (None, *tensor.shape[1:]) if len(tensor.shape) else ()
            dtype = keras.backend.standardize_dtype(tensor.dtype)
            keys = [key for key in place if isinstance(key, str)]
            specs.append(tf.TensorSpec(shape, dtype, taken.fresh(".".join(keys) or name or tensor.name)))
            places[specs[-1].name] = (index, *place) if len(arguments) > 1 else place

    def forward(*flat: Any) -> Any:
        rest = iter(flat)
        return model(*[_packed(part, rest) for part in arguments], training=False)

    try:
        with silence(), _no_draws(keras):
            traced = tf.function(forward, autograph=False).get_concrete_function(*specs)
    except Exception as cause:
        raise LoadError(f"Keras could not export {model.name}: {reason(cause)}") from cause
    layers = [layer.name for layer in model._flatten_layers(include_self=False)]
    graph = _converted(traced, [s.name for s in specs], model.name, layers)
    if not needs_example(
        model
    ):  # a model with declared inputs casts to their dtypes, a subclassed one does not
        graph.metadata_props[CASTS] = "1"
    set_places(graph, places)
    return graph


def from_keras_file(path: Path) -> ir.Model:
    """The model in a .keras or .h5 file. Raises LoadError, also for a file of weights alone."""
    _, keras = _packages()
    try:
        with silence():
            model = keras.saving.load_model(path, compile=False)
    except Exception as cause:
        raise LoadError(
            f"Keras could not read {path}: {reason(cause)}; if the model needs its own code, or unsafe loading, make "
            "it in Python and give it to eightbit.load"
        ) from cause
    return from_keras(model)


def from_saved_model(folder: Path) -> ir.Model:
    """The signature "serving_default", or the only one, of a TensorFlow SavedModel. Raises LoadError."""
    tf, _ = _packages()
    try:
        with silence():
            loaded = tf.saved_model.load(str(folder))
    except Exception as cause:
        raise LoadError(f"TensorFlow could not read {folder}: {reason(cause)}") from cause
    signatures = dict(loaded.signatures)
    chosen = signatures.get(SIGNATURE) or (next(iter(signatures.values())) if len(signatures) == 1 else None)
    if chosen is None:
        raise LoadError(
            f"{folder} has the signatures {sorted(signatures)}, none of them '{SIGNATURE}'; export the model with one "
            "signature, for inference"
        )
    names = {f"{spec.name}:0": name for name, spec in chosen.structured_input_signature[1].items()}
    inputs = [t.name for t in chosen.inputs if t.dtype != tf.resource]
    return _converted(chosen, [names.get(name, name) for name in inputs if name in names], folder.name, ())


def _packages() -> tuple[Any, Any]:
    for package in ("tensorflow", "keras", "tf2onnx"):
        try:
            with silence():
                __import__(package)
        except ImportError:
            raise MissingExtra(package, "tensorflow") from None
    return sys.modules["tensorflow"], sys.modules["keras"]


def _converted(function: Any, inputs: list[str], name: str, layers: Iterable[str]) -> ir.Model:
    """The ONNX graph of a traced function whose inputs are to be called `inputs`."""
    scope_of = naming.keras_scope(name, layers)
    for op in function.graph.get_operations():
        if op.type.startswith(TABLE):
            layer = scope_of(ir.Node("", op.type, [], name=op.name)) or op.name
            raise LoadError(
                f"layer '{layer}' of {name} looks up words or numbers in a table, which has no form in ONNX; load the "
                "model from behind it, and look them up before"
            )
    try:
        with silence():
            proto = _to_onnx(function, inputs, name)
    except Exception as cause:
        raise LoadError(f"tf2onnx could not convert {name}: {reason(cause)}") from cause
    graph = ir.from_proto(proto)
    for part in graph.graphs():
        for node in part:
            if node.domain == "" and not onnx.defs.has(node.op_type):
                raise LoadError(
                    f"layer '{scope_of(node) or node.name}' of {name} computes TensorFlow's {node.op_type}, which has "
                    "no form in ONNX; leave the layer out of the model that is loaded, or write it with other "
                    "operations"
                )
    naming.rename(graph, scope_of, keep_parameters=False)
    return graph


def _to_onnx(function: Any, inputs: list[str], name: str) -> onnx.ModelProto:
    """tf2onnx on the frozen graph of `function`.

    Its optimizer copies all weights for each of its passes, so that one that fails can be left out. Without the
    copies the export takes a third less time; if a pass does fail, we start again with them.
    """
    tf: Any = sys.modules["tensorflow"]
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
    from tf2onnx import optimizer, tf_loader, tfonnx

    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
    definition = frozen.graph.as_graph_def(add_shapes=True)
    _write_out_calls(definition)
    definition = tf_loader.fix_freezing_errors_part2(definition)
    given, results = [t.name for t in frozen.inputs], [t.name for t in frozen.outputs]
    names = dict(zip(given, inputs, strict=True))
    if isinstance(function.structured_outputs, Mapping):
        keys = {v.name: k for k, v in function.structured_outputs.items() if hasattr(v, "name")}
        names |= {r: keys[t.name] for r, t in zip(results, function.outputs, strict=True) if t.name in keys}
    with tf.Graph().as_default():
        definition = tf_loader.tf_optimize(given, results, definition)
    for careful in (False, True):
        with tf.device("/cpu:0"), tf.Graph().as_default() as imported:
            tf.import_graph_def(definition, name="")
            graph = tfonnx.process_tf_graph(
                imported,
                continue_on_error=True,
                input_names=given,
                output_names=results,
                tensors_to_rename=names,
                custom_op_handlers=HANDLERS,
            )
        try:
            proto: onnx.ModelProto = optimizer.optimize_graph(graph, careful).make_model(name)
            return proto
        except Exception:
            if careful:
                raise
    raise AssertionError("unreachable")


@contextmanager
def _no_draws(keras: Any) -> Iterator[None]:
    """While the block runs, generators of seeds keep their state.

    Some augmentation layers draw lots for inference as well and drop them; what is left is a write to a variable.
    """
    generator = keras.random.SeedGenerator
    draw = generator.next
    generator.next = lambda self, ordered=True: self.state.value
    try:
        yield
    finally:
        generator.next = draw


def _write_out_calls(definition: Any) -> None:
    """Let TensorFlow's optimizer write out every call: with constants for variables, no call has a state."""
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    calls = [n for n in nodes if n.op in ("StatefulPartitionedCall", "PartitionedCall")]
    for call in calls:
        call.op = "PartitionedCall"
    for holder in (*calls, *definition.library.function):
        for attribute in COMPILED:
            holder.attr.pop(attribute, None)


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
    """tf2onnx's handler of Erfc, which it leaves as it is: 1 - Erf(x). The exact GELU computes with it."""
    node.type = "Erf"
    one, names = _one(ctx, node, name)
    ctx.insert_new_node_on_output(
        "Sub", node.output[0], inputs=[one, node.output[0]], name=names.fresh(f"{name}_sub")
    )


def _expm1(ctx: Any, node: Any, name: str, args: Any) -> None:
    """The same of Expm1: Exp(x) - 1."""
    node.type = "Exp"
    one, names = _one(ctx, node, name)
    ctx.insert_new_node_on_output(
        "Sub", node.output[0], inputs=[node.output[0], one], name=names.fresh(f"{name}_sub")
    )


def _log1p(ctx: Any, node: Any, name: str, args: Any) -> None:
    """The same of Log1p: Log(x + 1)."""
    node.type = "Log"
    one, names = _one(ctx, node, name)
    ctx.insert_new_node_on_input(node, "Add", [node.input[0], one], name=names.fresh(f"{name}_add"))


def _one(ctx: Any, node: Any, name: str) -> tuple[str, Names]:
    """A constant 1 of the type that `node` reads, and the names that are taken in its graph."""
    names = Names(each.name for each in ctx.get_nodes())  # outputs are named after their nodes
    one = np.array(1, ir.DataType(ctx.get_dtype(node.input[0])).numpy())
    return ctx.make_const(names.fresh(f"{name}_one"), one).output[0], names


HANDLERS: dict[str, tuple[Any, list[Any]]] = {
    "Erfc": (_erfc, []),
    "Expm1": (_expm1, []),
    "Log1p": (_log1p, []),
}


def _arguments(model: Any, example: Any, keras: Any) -> tuple[list[Any], list[str | None]]:
    """Positional arguments of a subclassed model's call, as tensors, and their names.

    A tuple is spread if the model's call asks for as many arguments.
    """
    parameters = inspect.signature(model.call).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    spread = isinstance(example, tuple) and len(example) == len(needed)
    parts = list(example) if spread else [example]
    return [keras.tree.map_structure(partial(_tensor, keras=keras), part) for part in parts], [
        *needed[: len(parts)]
    ]


def _tensor(value: Any, keras: Any) -> Any:
    """A tensor of the dtype in which Keras takes it: NumPy's float64 becomes its own float type."""
    tensor = keras.ops.convert_to_tensor(value)
    return keras.ops.cast(tensor, keras.config.floatx()) if tensor.dtype == "float64" else tensor


def _leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """The tensors in `value` and where they lie, in the order in which TensorFlow flattens."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _leaves(value[key], (*place, str(key)))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _leaves(part, (*place, index))
    else:
        yield place, value


def _packed(value: Any, flat: Iterator[Any]) -> Any:
    """`value` with its tensors replaced by those that `flat` yields, in the order of `_leaves`."""
    if isinstance(value, Mapping):
        return {key: _packed(value[key], flat) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_packed(part, flat) for part in value]
    return next(flat)
