"""The .tflite of the networks of `deployment`: integers in TFLite Micro, LiteRT's differences, bytes and time beside C.

TFLite Micro's arena is what its interpreter reports; C's counts its inputs and outputs, which lie in TFLite Micro's.
Of TFLite Micro's code only what a symbol of its Python wheel names is counted: the interpreter, the allocators, the
planner, the kernels of the network's operators; no resolver, no compression. So its bytes are a lower bound.

Missed: XNNPACK's time for ResNet-8, by a twentieth (AVX-512 VNNI, an EPYC of the fourth generation, which does one
instruction of 64 products a cycle). Nearly two thirds of C's time are these instructions, back to back; the rest is
requantization, which in TFLite's two roundings takes twelve instructions for 16 codes where XNNPACK rounds in float,
and sums of tensors. Aligned weights and loads without masks made no difference.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir

import eightbit as eb
from benchmarks.figure import Figure
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.course import zoo
from eightbit.deploy.c.folder import network
from eightbit.deploy.c.native import compiled
from eightbit.deploy.engines import ENGINES
from eightbit.deploy.tflite.engines import arena_used, litert
from eightbit.deploy.tflite.file import to_bytes
from eightbit.deploy.tflite.prepare import net_of
from eightbit.integer.engine import prepare
from eightbit.integer.program import MatMul
from eightbit.report.timing import interleaved
from tests.deploy.networks import Case

MAX_ARENA = 0.9
MAX_BYTES = {"resnet8": 0.7, "mobilenet": 0.8, "autoencoder": 0.9, "ds_cnn": 0.7, "lite0": 1.0}
MAX_TIME = {"resnet8": 1.0, "mobilenet": 1.2, "autoencoder": 1.2, "ds_cnn": 0.85, "lite0": 3.2}
MIN_SAME = 0.995
LENGTH = 64
"""Tokens of MiniLM's sentences, padded."""
INTERPRETER = (
    r"Micro(Interpreter|Allocator|Context|MemoryPlanner|Graph)|AllocationInfoBuilder|GreedyMemoryPlanner"
    r"|(SingleArena|Persistent|NonPersistent)\w*Allocator|InternalAllocators|FlatBufferVector"
)
KERNELS = {
    "ADD": r"::(Add(Prepare|Init|Eval|Func)|EvalAdd|EvalAddQuantized|CalculateOpDataAdd|ParseAdd)\(",
    "CONV_2D": r"::(Conv(Prepare|Init)|CalculateOpDataConv|ParseConv2D)\(",
    "DEPTHWISE_CONV_2D": r"::(DepthwiseConvPrepare|CalculateOpDataDepthwiseConv|ParseDepthwiseConv2D)\(",
    "FULLY_CONNECTED": r"::(CalculateOpDataFullyConnected|ParseFullyConnected)\(",
    "MEAN": r"::(EvalMeanHelper|PrepareMeanOrSumHelper|ParseReducer)\(",
    "PAD": r"::(Pad(Prepare|Init)|ParsePad)\(",
    "RESHAPE": r"::(PrepareReshapeReference|ParseReshape)\(",
}
"""Of the operators that these networks need: functions with a name; the loops over codes are in functions without."""
NOT_NEEDED = re.compile(r"Recording|[Cc]ompress|Print|Verif")


def rows(name: str, made: Case, inputs: int, folder: Path) -> Iterator[Figure]:
    """The figures of a network, those whose runtimes are installed."""
    if ENGINES["tflm"].missing is None:
        yield integers(name, made, inputs)
        yield arena(name, made)
        yield from code(name, made, folder)
    if ENGINES["litert"].missing is None:
        yield same(name, made, inputs)
        yield time(name, made)


def integers(name: str, made: Case, inputs: int) -> Figure:
    """Output integers in which TFLite Micro, the NumPy engine and C differ."""
    x = made.inputs(inputs)
    expected = made.q.run(x, engine="numpy", arithmetic="tflite")
    wrong = sum(np.count_nonzero(made.q.run(x, engine=other) != expected) for other in ("tflm", "native"))
    detail = f"of {expected.size:,}, {inputs} inputs, {len(np.unique(expected))} values; TFLite Micro and C"
    return Figure(f"{name}.tflite: integers that are not the NumPy engine's", int(wrong), 0, "", detail)


def same(name: str, made: Case, inputs: int) -> Figure:
    """Inputs with the NumPy engine's largest output in LiteRT with XNNPACK; the histogram of all differences."""
    x = made.inputs(inputs)
    expected = made.q.run(x, engine="numpy", arithmetic="tflite")
    step = float(made.q.program.tensors[made.q.program.ops[-1].inputs[0]].scale)
    shares, texts = [], []
    for which in ("litert", "litert-builtin"):
        found = made.q.run(x, engine=which)
        shares.append(float(np.mean(found.argmax(-1) == expected.argmax(-1))))
        codes, counts = np.unique(np.rint((found - expected) / step).astype(int), return_counts=True)
        texts.append(
            ", ".join(
                f"{code:+d}: {count / found.size:.2%}" for code, count in zip(codes, counts, strict=True)
            )
        )
    detail = f"codes off with XNNPACK {texts[0]}; without ({shares[1]:.1%} the same) {texts[1]}"
    return Figure(f"{name} in LiteRT, XNNPACK: same answers", shares[0], MIN_SAME, "", detail, at_least=True)


def islands() -> Iterator[Figure]:
    """MiniLM, ids to vector, in LiteRT: its integer layers, each from its own inputs, and the vector.

    The product of two activations is left out: XNNPACK leaves it to LiteRT's kernels, which round in another way.
    """
    if ENGINES["litert"].missing is not None:
        return
    q, feeds = _minilm()
    seen = ENGINES["litert"].start_layers(q, None).run(feeds)  # type: ignore[misc]
    wrong = total = products = 0
    for op, kernel in zip(q.program.ops, prepare(q.program, Arithmetic.ONNX), strict=True):
        if kernel is None or not all(tensor in seen for tensor in (*op.inputs, *op.outputs)):
            continue
        made = kernel(*(seen[tensor] for tensor in op.inputs))
        off = int(np.count_nonzero(made != seen[op.outputs[0]]))
        wrong, total = wrong + off * (not isinstance(op, MatMul)), total + made.size
        products += off * isinstance(op, MatMul)
    one, other = (np.asarray(q.run(feeds, engine=engine)).ravel() for engine in ("litert", "onnxruntime"))
    near = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    detail = f"{wrong:,} of {total:,}; {products:,} more in products of two activations"
    yield Figure("minilm in LiteRT, XNNPACK: integers not ONNX Runtime's", wrong / total, 1e-4, "", detail)
    size = len(to_bytes(net_of(q.program)))
    detail = f"cosine of the sentence's vectors, LiteRT with float islands and ONNX Runtime; {size:,} bytes"
    yield Figure("minilm in LiteRT, XNNPACK: nearness", near, 0.995, "", detail, at_least=True)


def _minilm() -> tuple[eb.QuantizedModel, dict[str, np.ndarray]]:
    """MiniLM for one padded sentence, quantized, and a sentence."""
    graph = ir.to_proto(eb.load(zoo.load("minilm"), zoo.example("minilm")).ir)
    for value in graph.graph.input:
        for dim, length in zip(value.type.tensor_type.shape.dim, (1, LENGTH), strict=True):
            dim.dim_value = length
    texts = ["the cat sat on the mat", "eight bits are enough for most networks", "how do I open a file?"]
    batch = zoo.preprocess_for("minilm", texts)
    padded = {name: np.pad(ids, ((0, 0), (0, LENGTH - ids.shape[1]))) for name, ids in batch.items()}
    *first, last = ({name: ids[i : i + 1] for name, ids in padded.items()} for i in range(len(texts)))
    return eb.quantize(eb.load(graph), first), last


def arena(name: str, made: Case) -> Figure:
    """C's arena, inputs and outputs against the bytes that TFLite Micro's arena uses."""
    used = arena_used(net_of(made.q.program))
    net = network(made.q.program, Arithmetic.TFLITE)
    ports = sum(int(np.prod(port.shape)) for port in (*net.plan.inputs, *net.plan.outputs))
    ours = net.arena.size + ports
    detail = (
        f"{net.arena.size:,} and {ports:,} of inputs and outputs; TFLite Micro {used['total']:,} (x86-64),"
        f" {used['head']:,} of them tensors"
    )
    return Figure(f"{name}: arena, C / TFLite Micro", ours / used["total"], MAX_ARENA, "x", detail)


def code(name: str, made: Case, folder: Path) -> Iterator[Figure]:
    """C's code and constants for x86-64, against the .tflite and TFLite Micro's interpreter."""
    cc, nm = shutil.which("gcc"), shutil.which("nm")
    if cc is None or nm is None:
        return
    eb.export(made.q, folder)
    subprocess.run([cc, "-Os", "-std=c99", "-DEB_PLAIN", "-c", "net.c"], cwd=folder, check=True)
    sized = subprocess.run(["size", "net.o"], cwd=folder, check=True, capture_output=True, text=True)
    ours = int(sized.stdout.splitlines()[1].split()[0])
    net = net_of(made.q.program)
    file, interpreter = len(to_bytes(net)), interpreter_bytes(nm, {o.kind for o in net.operators})
    detail = (
        f"{ours:,} / ({file:,} of .tflite and at least {interpreter:,} of interpreter and kernels), x86-64"
    )
    share = ours / (file + interpreter)
    yield Figure(f"{name}: code and weights, C / TFLite Micro", share, MAX_BYTES[name], "x", detail)


def interpreter_bytes(nm: str, kinds: Collection[str]) -> int:
    """Code of interpreter and kernels in TFLite Micro's wheel, functions that share an address counted once."""
    wanted = re.compile("|".join([INTERPRETER, *(KERNELS[kind] for kind in sorted(kinds))]))
    found = find_spec("tflite_micro.python.tflite_micro._runtime")
    assert found is not None and found.origin is not None
    listed = subprocess.run([nm, "-DSC", found.origin], check=True, capture_output=True, text=True).stdout
    sizes = {}
    for line in listed.splitlines():
        part = re.match(r"([0-9a-f]+) ([0-9a-f]+) [tTwW] (.*)", line)
        if part and wanted.search(part[3]) and not NOT_NEEDED.search(part[3]):
            sizes[part[1]] = int(part[2], 16)
    return sum(sizes.values())


def time(name: str, made: Case) -> Figure:
    """One inference, one thread: C beside LiteRT with XNNPACK."""
    net = network(made.q.program, Arithmetic.TFLITE)
    codes = [np.zeros(port.shape, np.int8) for port in (*net.plan.inputs, *net.plan.outputs)]
    in_c = partial(compiled(net), *(ctypes.c_void_p(a.ctypes.data) for a in codes))
    runner = litert(to_bytes(net_of(made.q.program)), xnnpack=True, threads=1)
    (ours, theirs), rounds = interleaved([in_c, runner.invoke], rounds=300, seconds=10, burst=10)
    detail = f"{1e3 * ours:.3f} / {1e3 * theirs:.3f} ms, {rounds} rounds"
    return Figure(f"{name}: C / LiteRT XNNPACK, int8, one thread", ours / theirs, MAX_TIME[name], "x", detail)
