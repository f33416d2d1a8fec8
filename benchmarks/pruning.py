"""What is pruned keeps its answers, and what that buys: multiplications, time, bytes.

Rows of `python -m benchmarks.run training`. The models are made anew as `eightbit.course.zoo` makes its checkpoints:
pruned without training, then trained in their own integers by Fashion-MNIST's 60,000 training pictures. All share one
session's options or one compiler's, one thread.
"""

from __future__ import annotations

import ctypes
import math
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

import eightbit as eb
from benchmarks.figure import Figure
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from eightbit.course.zoo.catalog import find
from eightbit.course.zoo.learned import CALIBRATION, LEARNED, Learned
from eightbit.deploy.c.folder import network
from eightbit.deploy.c.native import compiled
from eightbit.deploy.sessions import OnnxRuntime
from eightbit.integer.engine import run
from eightbit.integer.program import Conv, Gemm
from eightbit.pruning.channels import channels
from eightbit.pruning.cut import cut, masked
from eightbit.pruning.macs import sample_shapes
from eightbit.report.timing import interleaved
from tests.pruning.architectures import ARCHITECTURES

NETWORK = "resnet8"
PLAIN = ("-O2", "-DEB_PLAIN")
"""C without instructions for vectors, as on a microcontroller."""
PROCESSOR = "min of the processor"


def figures_of_pruning() -> Iterator[Figure]:
    """What the project promises of pruning."""
    yield from smaller_graphs()
    images = zoo.preprocess_for(NETWORK, fashion_mnist().train.images[:CALIBRATION])
    model = eb.load(zoo.load(NETWORK), zoo.example(NETWORK))
    dense = eb.quantize(model, images)
    right = accuracy(model)
    for name, rows in ((f"{NETWORK}_pruned", structured), (f"{NETWORK}_sparse", unstructured)):
        q, minutes = made(LEARNED[name])
        yield lost(name, right, q, minutes)
        yield from rows(name, dense, q)
    q, minutes = made(LEARNED[f"{NETWORK}_small"])
    yield lost(f"{NETWORK}_small", right, q, minutes)
    yield smaller(q)


def made(entry: Learned) -> tuple[eb.QuantizedModel, float]:
    """A model of the zoo, trained anew, and the minutes of the processor."""
    used = time.process_time()
    q = entry.train()
    return q, (time.process_time() - used) / 60


def accuracy(model: Any) -> float:
    """Test images that are answered right, in percent."""
    test = fashion_mnist().test
    x = zoo.preprocess_for(NETWORK, test.images)
    right = [model(x[i : i + 250]).argmax(1) == test.labels[i : i + 250] for i in range(0, len(x), 250)]
    return 100 * float(np.mean(right))


def lost(name: str, right: float, q: eb.QuantizedModel, minutes: float) -> Figure:
    """Points that a trained model loses."""
    found = accuracy(q)
    detail = f"{found:.2f} % of {right:.2f}; 10,000 images; {minutes:.1f} {PROCESSOR}"
    return Figure(f"{name}: points lost", right - found, 1, "", detail)


def structured(name: str, dense: eb.QuantizedModel, q: eb.QuantizedModel) -> Iterator[Figure]:
    """Half of the multiplications: what is left of them and of the time."""
    macs = [multiplications(m) for m in (q, dense)]
    detail = f"{macs[0]:,} of {macs[1]:,}"
    yield Figure(f"{name}: multiplications left", macs[0] / macs[1], 0.5, "x", detail)
    for engine, call in (("C without vectors", in_c), ("ONNX Runtime", in_runtime)):
        ratio, detail = compared(call(q), call(dense))
        yield Figure(f"{name}: int8 time, {engine}", ratio, 0.67, "x", detail)


def unstructured(name: str, dense: eb.QuantizedModel, q: eb.QuantizedModel) -> Iterator[Figure]:
    """Nine of ten weights zero: the file, and the time that dense kernels take all the same."""
    weights = [op.weight for op in q.program.ops if isinstance(op, Conv | Gemm)]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)
    yield Figure(f"{name}: weights that are zero", zeros, 0.899, "", "of all layers", at_least=True)
    bytes_ = [file_size(m) for m in (q, dense)]
    detail = f"save_weights, {bytes_[0]:,} / {bytes_[1]:,} bytes"
    yield Figure(f"{name}: file / dense int8 file", bytes_[0] / bytes_[1], 0.35, "x", detail)
    ratio, detail = compared(in_runtime(q), in_runtime(dense))
    yield Figure(f"{name}: int8 time, as without zeros", abs(ratio - 1), 0.15, "", f"from {detail}, to 1")


def smaller(q: eb.QuantizedModel) -> Figure:
    """Pruned, with zeros, of four bits, against the float weights' file."""
    exact, found = find(NETWORK).checkpoint.stat().st_size, file_size(q)
    detail = f"save_weights, {exact:,} / {found:,} bytes"
    return Figure(f"{NETWORK}_small: float file / file", exact / found, 12, "x", detail, at_least=True)


def smaller_graphs() -> Iterator[Figure]:
    """Half of every group's channels removed: the smaller graph is valid and computes what the masked one does."""
    apart, valid = {}, True
    for name, (build, inputs) in ARCHITECTURES.items():
        model, data = eb.load(build()), inputs(16)
        found = channels(model.ir, sample_shapes(model.ir, data))
        keep, random = np.ones(found.size, bool), np.random.default_rng(0)
        for group in found.groups:
            keep[random.permutation(group.units)[: len(group.units) // 2]] = False
        small = eb.Model(cut(model.ir, found, keep))
        try:
            onnx.checker.check_model(ir.to_proto(small.ir), full_check=True)
        except onnx.checker.ValidationError:
            valid = False
        expected = eb.Model(masked(model.ir, found, keep))(data)
        apart[name] = float(np.abs(small(data) - expected).max() / np.abs(expected).max())
    worst = max(apart.values()) if valid else np.inf
    yield Figure("pruned graphs, apart from masked ones", worst, 1e-5, "x", f"largest of {', '.join(apart)}")


def multiplications(q: eb.QuantizedModel) -> int:
    """Those of all layers, for one picture."""
    picture = {q.inputs[0].name: np.asarray(zoo.example(NETWORK))}
    made = run(q.program, picture, keep=True)
    layers = [op for op in q.program.ops if isinstance(op, Conv | Gemm)]
    return sum(op.weight.size * math.prod(made[op.outputs[0]].shape[2:]) for op in layers)


def in_runtime(q: eb.QuantizedModel) -> Any:
    """One picture in ONNX Runtime."""
    feeds = {q.inputs[0].name: np.asarray(zoo.example(NETWORK))}
    return partial(OnnxRuntime(q.ir, threads=1).run, feeds)


def in_c(q: eb.QuantizedModel) -> Any:
    """One picture in the model's C, compiled as `PLAIN` says."""
    net = network(q.program, Arithmetic.TFLITE)
    codes = [np.zeros(port.shape, np.int8) for port in (*net.plan.inputs, *net.plan.outputs)]
    call = compiled(net, PLAIN)
    return lambda: call(*(ctypes.c_void_p(a.ctypes.data) for a in codes))


def compared(mine: Any, other: Any) -> tuple[float, str]:
    """Time of one call over that of the other, and both in milliseconds."""
    (a, b), rounds = interleaved([mine, other], rounds=100, seconds=20, burst=10)
    return a / b, f"{1e3 * a:.3f} / {1e3 * b:.3f} ms, {rounds} rounds"


def file_size(q: eb.QuantizedModel) -> int:
    """Bytes of the file of weights."""
    with tempfile.TemporaryDirectory() as folder:
        return eb.save_weights(q, Path(folder, "weights.safetensors")).stat().st_size
