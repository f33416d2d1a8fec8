"""Hostile files, seeded: whatever is in a file, reading and running it ends in a result or in an EightbitError.

    python scripts/fuzz.py --models 500 --others 200 --seed 0 --keep found/

Sound files (float and int8 models, files of weights, archives of inputs, recipes) are damaged one at a time and used as
a user would, by a child process with limits of memory and time. Each ends in one of

    ok       it was read, and gave a result
    typed    an EightbitError
    untyped  another exception: a defect
    crash    the child ended: a defect, mostly inside ONNX Runtime
    hang     the child took longer than --seconds: a defect

The counts are printed; exit status 1 where one of the last three is not zero. `--keep` takes the files that found
something. A case has its number: `--case int8:17` with the same seed runs that one alone and shows what it raises.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import selectors
import struct
import subprocess
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from onnx import numpy_helper, parser

import eightbit as eb
from eightbit.data.npz import write_npz
from eightbit.errors import CalibrationError, EightbitError
from eightbit.graph.samples import npz_for
from eightbit.quant.choose.recipe_file import read_recipe
from eightbit.quant.choose.recipe_text import write_recipe

MODELS, OTHERS = ("float", "int8"), ("weights", "archive", "recipe")
SUFFIX = {"float": ".onnx", "int8": ".onnx", "weights": ".safetensors", "archive": ".npz", "recipe": ".toml"}
DEFECTS = ("untyped", "crash", "hang")
INTEGERS = (0, 1, -1, 2, 3, 5, 7, -2, 64, 255, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 1e38, -1e38, float("inf"), float("-inf"), float("nan"))
WORDS = ("", "x", "NOTSET", "VALID", "SAME_UPPER", "linear", "\x1b[2J", "$x$", "ü" * 7, "n" * 300)
OPERATORS = ("Relu", "Conv", "Gemm", "MatMul", "Add", "Div", "Reshape", "Transpose", "Softmax", "Gather", "Concat",
             "Slice", "MaxPool", "AveragePool", "GlobalAveragePool", "QuantizeLinear", "DequantizeLinear", "Cast",
             "Clip", "Pad", "Squeeze", "Unsqueeze", "Flatten", "LayerNormalization", "Identity", "Nonsense",
             "BatchNormalization", "DynamicQuantizeLinear", "MatMulInteger", "Resize", "Split", "Loop")  # fmt: skip

CONVOLUTIONS = """net (float[N,3,8,8] x) => (float[N,5] y) {
    a = Conv <pads=[1,1,1,1], kernel_shape=[3,3], strides=[1,1]> (x, w1, b1)
    r = Relu (a)
    d = Conv <group=4, pads=[1,1,1,1], kernel_shape=[3,3], dilations=[1,1]> (r, w2)
    s = Add (d, r)
    n = BatchNormalization <epsilon=0.001> (s, gain, b1, b1, gain)
    p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (n)
    q = AveragePool <kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1], count_include_pad=1> (p)
    c = Concat <axis=1> (p, q)
    e = Pad <mode="constant"> (c, pads)
    g = GlobalAveragePool (e)
    f = Flatten <axis=1> (g)
    y = Gemm <transB=1, alpha=1.0> (f, w3, b3)
}"""
ATTENTION = """net (int64[N,6] ids, float[N,1,6] mask) => (float[N,6,4] y) {
    h = Gather <axis=0> (words, ids)
    n = LayerNormalization <axis=-1, epsilon=0.00001> (h, gain)
    q = MatMul (n, wq)
    k = MatMul (n, wk)
    kt = Transpose <perm=[0,2,1]> (k)
    s = MatMul (q, kt)
    m = Add (s, mask)
    p = Softmax <axis=-1> (m)
    c = MatMul (p, n)
    f = Reshape <allowzero=0> (n, rows)
    u = Gemm <transB=1> (f, w3, b3)
    b = Reshape (u, back)
    l = Slice (c, zero, four, axes)
    t = Tanh (l)
    y = Add (t, b)
}"""
RECIPES = (
    eb.Recipe.plain(),
    eb.Recipe(),
    eb.Recipe(eb.Weights(bits=4, granularity=eb.PerGroup(4)), eb.FLOAT),
    eb.Recipe(activations=eb.Activations(dynamic=True)),
    eb.Recipe(eb.Weights(bits=9), eb.Activations(bits=16), equalize=False, bias_correction=False),
    eb.Recipe(eb.Weights(bits=2, granularity=eb.PerTensor()), eb.Activations(bits=5, symmetric=True)),
)


def sound_models() -> list[tuple[bytes, dict[str, np.ndarray]]]:
    """The bytes of small float networks, with inputs for them."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    convolutions = {"w1": normal(4, 3, 3, 3), "b1": normal(4), "w2": normal(4, 1, 3, 3), "w3": normal(5, 8)}
    convolutions |= {
        "b3": normal(5),
        "gain": np.ones(4, np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 0, 1]),
    }
    attention = {"words": normal(300, 16), "gain": np.ones(16, np.float32), "wq": normal(16, 16)}
    attention |= {"wk": normal(16, 16), "w3": normal(4, 16), "b3": normal(4)}
    attention |= {
        "rows": np.array([-1, 16]),
        "back": np.array([-1, 6, 4]),
        "zero": np.array([0]),
        "four": np.array([4]),
        "axes": np.array([2]),
    }
    mask = np.where(rng.random((6, 1, 6)) < 0.2, np.float32(-1e4), np.float32(0))
    return [
        (_model(CONVOLUTIONS, convolutions), {"x": normal(6, 3, 8, 8)}),
        (_model(ATTENTION, attention), {"ids": rng.integers(0, 300, (6, 6)), "mask": mask}),
    ]


def _model(body: str, weights: dict[str, np.ndarray]) -> bytes:
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {body}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    for node in proto.graph.node:
        node.name = node.output[0]
    data: bytes = proto.SerializeToString()
    return data


Sound = dict[str, list[tuple[int, bytes]]]
"""Of each kind of file: the number of the float model that it belongs to, and its bytes."""


def sound_files(folder: Path) -> Sound:
    """Sound files of every kind; `folder` also gets what the child needs beside them."""
    found: Sound = {kind: [] for kind in (*MODELS, *OTHERS)}
    for number, (data, inputs) in enumerate(sound_models()):
        path = folder / f"model{number}.onnx"
        path.write_bytes(data)
        found["float"].append((number, data))
        model = eb.load(path)
        for recipe in RECIPES:
            q = eb.quantize(model, inputs, recipe)
            found["int8"].append((number, q.save(folder / "int8.onnx").read_bytes()))
            if not recipe.dynamic:  # its products have no DequantizeLinear to read the weights from
                found["weights"].append((number, eb.save_weights(q, folder / "weights").read_bytes()))
            if number == 0:
                found["recipe"].append((number, write_recipe(recipe, folder / "recipe").read_bytes()))
        found["archive"].append((number, write_npz(inputs, folder / f"inputs{number}.npz").read_bytes()))
    return found


# --- damage -----------------------------------------------------------------------------------------------------------


def damaged(kind: str, data: bytes, rng: random.Random) -> bytes:
    """`data` with one to three faults."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        structured = {
            "float": damage_model,
            "int8": damage_model,
            "weights": damage_weights,
            "archive": damage_archive,
            "recipe": damage_recipe,
        }[kind]
        change = damage_bytes if rng.random() < 0.15 else structured
        try:
            data = change(data, rng)
        except Exception:  # what earlier faults left cannot be taken apart any more
            data = damage_bytes(data, rng)
    return data


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut off, left out, repeated or filled in."""
    at, size = rng.randrange(max(1, len(data))), rng.choice((1, 2, 8, 100))
    piece = bytes(rng.randrange(256) for _ in range(size))
    return rng.choice(
        (
            data[:at] + piece + data[at + size :],
            data[:at] + piece + data[at:],
            data[:at],
            data[:at] + data[at + size :],
            data[:at] + data[at : at + size] * 3 + data[at + size :],
            data[:at] + bytes(size) + data[at + size :],
        )
    )


def damage_model(data: bytes, rng: random.Random) -> bytes:
    """One part of an ONNX model changed: an attribute, a constant, a node, a border, a version."""
    proto = onnx.load_model_from_string(data)
    graph = proto.graph
    changes: list[Callable[[], object]] = [
        *[lambda: _damage_attribute(rng.choice(graph.node), rng)] * 4,
        *[lambda: _damage_tensor(rng.choice(graph.initializer), rng)] * 5,
        *[lambda: _damage_node(proto, rng)] * 4,
        *[lambda: _damage_border(rng.choice([*graph.input, *graph.output, *graph.value_info]), rng)] * 2,
        lambda: _damage_versions(proto, rng),
        lambda: _damage_metadata(proto, rng),
    ]
    rng.choice(changes)()
    changed: bytes = proto.SerializeToString()
    return changed


def _damage_attribute(node: onnx.NodeProto, rng: random.Random) -> None:
    schema = onnx.defs.get_schema(node.op_type) if onnx.defs.has(node.op_type) else None
    missing = sorted(set(schema.attributes if schema else ("axis",)) - {a.name for a in node.attribute})
    if missing and (not node.attribute or rng.random() < 0.4):
        name = rng.choice(missing)
        kind = schema.attributes[name].type.name if schema else "INT"
        ints = [rng.choice((*INTEGERS, 1, 1, 1)) for _ in range(rng.randrange(1, 6))]
        values = {"INT": ints[0], "INTS": ints, "FLOAT": rng.choice(FLOATS), "FLOATS": [rng.choice(FLOATS)]}
        node.attribute.append(onnx.helper.make_attribute(name, values.get(kind, rng.choice(WORDS))))
        return
    if not node.attribute:
        return
    attribute = rng.choice(node.attribute)
    ints = attribute.ints
    if len(ints) and rng.random() < 0.8:
        at = rng.randrange(len(ints))
        kept = rng.choice(
            ([*ints[:at], rng.choice(INTEGERS), *ints[at + 1 :]], ints[:at], [*ints, 1], [*ints, *ints], [])
        )
        del ints[:]
        ints.extend(kept)
    elif attribute.type == onnx.AttributeProto.INT and rng.random() < 0.8:
        attribute.i = rng.choice(INTEGERS)
    elif attribute.type == onnx.AttributeProto.FLOAT and rng.random() < 0.8:
        attribute.f = rng.choice(FLOATS)
    elif attribute.type == onnx.AttributeProto.STRING and rng.random() < 0.8:
        attribute.s = rng.choice(WORDS).encode()
    elif rng.random() < 0.5:
        node.attribute.remove(attribute)
    elif rng.random() < 0.5:
        attribute.type = rng.randrange(16)
    else:
        attribute.name = rng.choice(WORDS)


def _damage_tensor(tensor: onnx.TensorProto, rng: random.Random) -> None:
    kind = rng.randrange(9)
    if kind == 8:  # numbers apart instead of bytes, perhaps too few of them
        array = numpy_helper.to_array(tensor)
        numbers = array.reshape(-1)[: rng.choice((array.size, array.size - 1, 0))]
        tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, tensor.data_type, numbers.shape, numbers))
        tensor.dims[:] = array.shape
    elif kind == 0:  # dims alone, so that the bytes do not fit
        tensor.dims[:] = [rng.choice((*INTEGERS, 4, 16)) for _ in range(rng.randrange(5))]
    elif kind == 1:
        tensor.data_type = rng.randrange(30)
    else:
        array = _damaged_array(numpy_helper.to_array(tensor).copy(), rng)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _damaged_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """An array of another shape, length or type, or with other numbers in it."""
    kind = rng.randrange(2, 8)
    if kind == 2:
        array = array.reshape(-1)[: rng.choice((0, 1, 2, max(0, array.size - 1)))]
    elif kind == 3:
        array = rng.choice(
            (array[None], array[..., None], array.reshape(-1), array.T, array.reshape(-1)[:1].reshape(()))
        )
    elif kind == 4:
        array = np.concatenate([array.reshape(-1), array.reshape(-1)[:3]])
    elif kind == 5:
        array = array.astype(
            rng.choice((np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64, np.float16, bool))
        )
    elif array.size:
        values = (
            FLOATS
            if array.dtype.kind == "f"
            else [v for v in INTEGERS if abs(v) < 2 ** (8 * array.itemsize - 1)]
        )
        flat = array.reshape(-1)
        places = slice(None) if kind == 6 else rng.randrange(flat.size)
        flat[places] = np.array(rng.choice(values)).astype(array.dtype)
    return np.ascontiguousarray(array).reshape(array.shape)


def _damage_node(proto: onnx.ModelProto, rng: random.Random) -> None:
    graph = proto.graph
    node = rng.choice(graph.node)
    names = [n for each in graph.node for n in (*each.input, *each.output)]
    at = rng.randrange(max(1, len(node.input)))
    kind = rng.randrange(9)
    if kind == 0:
        graph.node.remove(node)
    elif kind == 1:
        graph.node.append(node)
    elif kind == 2 and node.input:
        node.input[at] = rng.choice([*names, "", "nowhere"])
    elif kind == 3 and node.input:
        del node.input[at]
    elif kind == 4:
        node.input.append(rng.choice([*names, ""]))
    elif kind == 5:
        node.op_type = rng.choice(OPERATORS)
    elif kind == 6 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice([*names, "", rng.choice(WORDS)])
    elif kind == 7:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "strange", "ai.onnx"))
    else:
        node.name = rng.choice((*WORDS, *(n.name for n in graph.node)))


def _damage_border(value: onnx.ValueInfoProto, rng: random.Random) -> None:
    tensor = value.type.tensor_type
    kind = rng.randrange(5)
    if kind == 0 and tensor.shape.dim:
        rng.choice(tensor.shape.dim).dim_value = rng.choice(INTEGERS)
    elif kind == 1 and tensor.shape.dim:
        rng.choice(tensor.shape.dim).dim_param = rng.choice(WORDS)
    elif kind == 2:
        tensor.elem_type = rng.randrange(30)
    elif kind == 3:
        value.name = rng.choice(WORDS)
    elif rng.random() < 0.5:
        tensor.shape.dim.add().dim_value = rng.choice(INTEGERS)
    else:
        value.ClearField("type")


def _damage_versions(proto: onnx.ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.3:
        proto.ir_version = rng.choice((0, 1, 3, 4, 9, 13, 99))
    elif rng.random() < 0.8:
        proto.opset_import[0].version = rng.choice((0, 1, 7, 10, 12, 13, 17, 19, 22, 25, 99))
    else:
        proto.opset_import[0].domain = rng.choice(WORDS)


def _damage_metadata(proto: onnx.ModelProto, rng: random.Random) -> None:
    text = rng.choice((*WORDS, "{", "[1]", "null", '{"a": 1}', '[["a"]]', '{"axes": {"x": 9}}', "[" * 5000))
    if proto.metadata_props and rng.random() < 0.7:
        rng.choice(proto.metadata_props).value = text
    else:
        keys = ("eightbit.equalized", "eightbit.notes", "eightbit.axes", "eightbit.batch", "author")
        proto.metadata_props.add(key=rng.choice(keys), value=text)


def damage_weights(data: bytes, rng: random.Random) -> bytes:
    """A tensor changed, or one leaf of a safetensors header, or of the map of layers in its metadata."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    kind = rng.random()
    if kind < 0.4:
        tensors = safetensors.numpy.load(data)
        name = rng.choice(sorted(tensors))
        tensors[name] = _damaged_array(tensors[name].copy(), rng)
        changed: bytes = safetensors.numpy.save(tensors, header["__metadata__"])
        return changed
    if kind < 0.85:
        table = json.loads(header["__metadata__"]["eightbit"])
        _damage_json(table, rng)
        header["__metadata__"]["eightbit"] = rng.choice((json.dumps(table),) * 9 + ("[" * 5000,))
    else:
        _damage_json(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _damage_json(root: Any, rng: random.Random) -> None:
    """Change, rename, move or remove something, anywhere in a tree of dicts and lists."""
    holders: list[Any] = []
    waiting = [root]
    while waiting:
        top = waiting.pop()
        if isinstance(top, dict | list) and top:
            holders.append(top)
            waiting.extend(top.values() if isinstance(top, dict) else top)
    holder = rng.choice(holders)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    kind = rng.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice((*WORDS, *holder))] = holder.pop(key)
    elif kind == 2:
        other = rng.choice(holders)
        holder[key] = rng.choice(list(other.values() if isinstance(other, dict) else other))
    else:
        holder[key] = rng.choice(
            (*INTEGERS, *WORDS, None, True, 1.5, [], {}, [1, 2], 2**70, "I64", "F32", "BOOL")
        )


def damage_archive(data: bytes, rng: random.Random) -> bytes:
    """One member's `.npy` header or bytes changed, or its name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    member = members[name]
    start = 10
    (length,) = struct.unpack("<H", member[8:start])
    text, body = member[start : start + length].decode("latin1"), member[start + length :]
    kind = rng.randrange(6)
    if kind == 0:
        types = (
            "<f4",
            "<f8",
            "<i8",
            "|O",
            "<U4",
            "|V3",
            "<c8",
            "|b1",
            ">f4",
            "<M8[s]",
            "f9",
            "",
            "[('a', '<f4')]",
            "<f2",
        )
        text = text.replace("'<f4'", repr(rng.choice(types))).replace("'<i8'", repr(rng.choice(types)))
    elif kind == 1:
        shape = tuple(rng.choice((*INTEGERS, 6, 10**12)) for _ in range(rng.randrange(6)))
        text = (
            text[: text.index("(")]
            + rng.choice((repr(shape), "(6, 'x')", "6", "((6,),)", "(True,)", "(1.0,)"))
            + ", }"
        )
    elif kind == 2:
        text = text.replace("False", rng.choice(("True", "1", "None", "'no'")))
    elif kind == 3:
        text = rng.choice(
            ("", "{}", "[" * 9000, "{'descr': ", "1", "{'a': 1}", "\x00" * 20, text * 2, "x" * 60000)
        )
    elif kind == 4:
        at = rng.randrange(len(member))
        member = member[:at] + bytes([rng.randrange(256)]) + member[at + 1 :]
    else:
        members[rng.choice((*WORDS, "labels.npy", "../x.npy", "x.npy", ".npy"))] = members.pop(name)
        return _zipped(members)
    if kind != 4:
        member = member[:8] + struct.pack("<H", len(text)) + text.encode("latin1") + body
    return _zipped({**members, name: member})


def _zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # duplicate names
        for name, member in members.items():
            archive.writestr(name, member)
    return buffer.getvalue()


def damage_recipe(data: bytes, rng: random.Random) -> bytes:
    """One value or key of a TOML file changed, or a construction that is hard to parse put in."""
    lines = data.decode().splitlines()
    at = rng.randrange(len(lines))
    key, equals, value = lines[at].partition("=")
    numbers = [str(v) for v in (*INTEGERS, *FLOATS)]
    words = [
        json.dumps(w)
        for w in (*WORDS, "float", "per-tensor", "per-group", "gptq", "percentile", "mse", "op:Conv")
    ]
    tables = [
        "{}",
        "[]",
        "{ name = 1 }",
        '{ name = "per-group" }',
        '{ name = "per-group", size = 0 }',
        "true",
        "{ a = { b = 1 } }",
    ]
    hard = [
        "[" * 5000,
        "a" + ".b" * 3000 + " = 1",
        "x = " + "[" * 5000,
        "x = " + "{a = " * 2000,
        "1" * 5000,
        "x = " + "9" * 9000,
    ]
    kind = rng.randrange(6)
    if kind < 3 and equals:
        lines[at] = f"{key}= {rng.choice((numbers, words, tables)[kind])}"
    elif kind == 3 and equals:
        lines[at] = f"{rng.choice((*words, 'bits', 'weights'))} = {value}"
    elif kind == 4:
        lines.insert(
            at, rng.choice((*hard, f"[{rng.choice(words)}]", "[overrides]", f"{rng.choice(words)} = 1"))
        )
    else:
        lines[at] = rng.choice(("", lines[at] * 2, lines[at][: len(lines[at]) // 2]))
    return "\n".join(lines).encode()


# --- use, in the child ------------------------------------------------------------------------------------------------


def use(kind: str, path: Path, sound: Path) -> None:
    """Do with a file what a user would; `sound` is the float model that it belongs to."""
    if kind == "float":
        model = eb.load(path)
        inputs = inputs_of(model)
        model(inputs)
        q = eb.quantize(model, inputs, eb.Recipe.plain())
        q(inputs)
        q.run(inputs, engine="numpy")
    elif kind == "int8":
        q = eb.open(path)
        str(eb.inspect(path))
        inputs = inputs_of(q)
        refused = []
        for engine in ("numpy", "onnxruntime"):  # a file that one refuses, the other meets nevertheless
            try:
                q.run(inputs, engine=engine)
            except EightbitError as cause:
                refused.append(cause)
        if refused:
            raise refused[0]
        eb.save_weights(q, path.with_suffix(".weights"))
    elif kind == "weights":
        q = eb.load_weights(eb.load(sound), path)
        q(inputs_of(q))
    elif kind == "archive":
        model = eb.load(sound)
        eb.quantize(model, npz_for(model.ir, path, CalibrationError), eb.Recipe.plain())
    else:
        recipe = read_recipe(path)
        repr(recipe.settled(True))


def inputs_of(model: Any) -> dict[str, np.ndarray]:
    """Numbers for every input of a model, two samples where it leaves the batch free."""
    rng = np.random.default_rng(0)
    found = {}
    for spec in model.inputs:
        shape = [2 if d is None else d for d in spec.shape]
        if any(d > 4096 for d in shape) or np.prod(shape, dtype=float) > 2**20:
            shape = [min(d, 2) for d in shape]  # refused: it is another shape than the model's
        floats = rng.normal(size=shape)
        found[spec.name] = floats.astype(spec.dtype) if spec.dtype.kind != "U" else np.full(shape, "a")
    return found


def child(gigabytes: float) -> None:
    """Use the files whose kinds and paths come in on standard input; one outcome a line goes out."""
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no outcome
    for line in sys.stdin:
        kind, path, sound = json.loads(line)
        print(json.dumps(outcome(kind, Path(path), Path(sound))), file=out, flush=True)


def outcome(kind: str, path: Path, sound: Path) -> tuple[str, str]:
    """What became of a file, and in which words."""
    try:
        use(kind, path, sound)
    except EightbitError as cause:
        return "typed", f"{type(cause).__name__}: {cause}"
    except Exception:
        return "untyped", traceback.format_exc()
    return "ok", ""


# --- the parent -------------------------------------------------------------------------------------------------------


class Child:
    """A process that uses files, and is started anew where one ended it."""

    def __init__(self, seconds: float, gigabytes: float, command: Sequence[str] = ()) -> None:
        self.seconds = seconds
        self.command = command or [sys.executable, __file__, "--child", "--memory", str(gigabytes)]
        self.process: subprocess.Popen[str] | None = None

    def use(self, kind: str, path: Path, sound: Path) -> tuple[str, str]:
        """The outcome of one file."""
        if self.process is None:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._answer(("float", str(sound), str(sound)), 300)  # its imports are no part of a case
        return self._answer((kind, str(path), str(sound)), self.seconds)

    def _answer(self, request: tuple[str, str, str], seconds: float) -> tuple[str, str]:
        process = self.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{json.dumps(request)}\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            ready = selector.select(seconds)
        line = process.stdout.readline() if ready else ""
        if line:
            kind, words = json.loads(line)
            return kind, words
        self.end()
        return ("crash", f"exit status {process.returncode}") if ready else ("hang", f"over {seconds:g} s")

    def end(self) -> None:
        """End the process, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def cases(counts: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Kind and number of every case."""
    for kinds, total in ((MODELS, counts["models"]), (OTHERS, counts["others"])):
        for number in range(total):
            yield kinds[number % len(kinds)], number


def case(sound: Sound, kind: str, number: int, seed: int) -> tuple[int, bytes]:
    """The damaged file that `seed` makes of a kind and number, and the number of the float model that it belongs to."""
    rng = random.Random(f"{seed} {kind} {number}")
    model, data = rng.choice(sound[kind])
    return model, damaged(kind, data, rng)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; the exit status."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--models", type=int, default=500, help="damaged models")
    options.add_argument(
        "--others", type=int, default=200, help="damaged files of weights, archives, recipes"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--seconds", type=float, default=60, help="time for one file")
    options.add_argument("--memory", type=float, default=8, help="address space of the child, GiB")
    options.add_argument("--keep", type=Path, help="folder for the files that found a defect")
    options.add_argument("--case", help="kind:number of one case, to run here")
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args(arguments)
    if chosen.child:
        child(chosen.memory)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sound = sound_files(folder)
        if chosen.case:
            kind, number = chosen.case.split(":")
            path = folder / f"case{SUFFIX[kind]}"
            model, data = case(sound, kind, int(number), chosen.seed)
            path.write_bytes(data)
            found, words = outcome(kind, path, folder / f"model{model}.onnx")
            print(f"{found}\n{words}")
            return int(found in DEFECTS)
        return _run(chosen, folder, sound)


def _run(chosen: argparse.Namespace, folder: Path, sound: Sound) -> int:
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in (*MODELS, *OTHERS)}
    runner = Child(chosen.seconds, chosen.memory)
    for kind, number in cases({"models": chosen.models, "others": chosen.others}):
        model, data = case(sound, kind, number, chosen.seed)
        path = folder / f"case{SUFFIX[kind]}"
        path.write_bytes(data)
        found, words = runner.use(kind, path, folder / f"model{model}.onnx")
        counts[kind][found] += 1
        if found in DEFECTS:
            last = (words.strip().splitlines() or [""])[-1]
            print(f"{found} {kind}:{number} {last[:200]}", flush=True)
            if chosen.keep:
                chosen.keep.mkdir(parents=True, exist_ok=True)
                (chosen.keep / f"{kind}-{chosen.seed}-{number}{SUFFIX[kind]}").write_bytes(data)
                (chosen.keep / f"{kind}-{chosen.seed}-{number}.txt").write_text(f"{found}\n{words}\n")
    runner.end()
    columns = ("ok", "typed", *DEFECTS)
    print(f"{'':8}", *(f"{c:>8}" for c in columns))
    for kind, count in counts.items():
        print(f"{kind:8}", *(f"{count[c]:8,}" for c in columns))
    return int(any(count[c] for count in counts.values() for c in DEFECTS))


if __name__ == "__main__":
    sys.exit(main())
