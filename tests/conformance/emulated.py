"""The conformance table in one process without pytest, for another processor: an emulator runs it.

    qemu-x86_64 -cpu Haswell python -m tests.conformance.emulated

Printed is one line of JSON: whether pairs of products saturate there, how many integers were compared, the rows in
which some differ from the NumPy engine's, and the rows whose outputs differ in a session that asks for nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

import eightbit as eb
from eightbit.deploy.sessions import OnnxRuntime, integer_tensors, run_island
from eightbit.graph.processor import pairs_saturate
from eightbit.graph.run import to_bytes
from eightbit.integer.engine import run
from eightbit.integer.lower import lower
from tests.conformance.cases import ROWS
from tests.graph.graphs import normal, parse
from tests.small_net import images, small_net

DYNAMIC = eb.Recipe(activations=eb.Activations(dynamic=True))
BLOCK = """g (float[N,T,24] x) => (float[N,T,24] y) {
    n = LayerNormalization <axis=-1> (x, one)
    a = MatMul (n, w1)
    b = MatMul (n, w2)
    t = Transpose <perm=[0,2,1]> (b)
    s = MatMul (a, t)
    p = Softmax <axis=-1> (s)
    c = MatMul (p, b)
    d = MatMul (c, w3)
    y = Add (x, d)
}"""


@dataclass(frozen=True)
class Case:
    """A quantized graph and what to feed it."""

    name: str
    qdq: ir.Model
    feeds: Mapping[str, np.ndarray]


def cases() -> Iterator[Case]:
    """Every row of the table with one draw; networks quantized from float: convolutions, attention; dynamic layers."""
    for row in ROWS:
        built, feeds = row.build(np.random.default_rng(zlib.crc32(row.name.encode())))
        yield Case(row.name, built.model(), feeds)
    default, plain = eb.Recipe(), eb.Recipe.plain()
    for name, recipe in (
        ("default", default),
        ("plain", plain),
        ("in pairs", replace(default, processor="any")),
    ):
        yield Case(f"network, {name}", eb.quantize(small_net(), images(16), recipe).ir, {"image": images(8)})
    x = {"x": 3 * normal(4, 7, 24)}
    held = (
        ("static in pairs", replace(plain, processor="any")),
        ("dynamic in pairs", replace(DYNAMIC, processor="any")),
    )
    for name, recipe in (("static", plain), ("dynamic", DYNAMIC), *held):
        weights = {f"w{i}": normal(24, 24, seed=i) for i in (1, 2, 3)}
        block = eb.load(parse(BLOCK, one=np.ones(24, np.float32), **weights))
        yield Case(f"attention, {name}", eb.quantize(block, [x], recipe).ir, x)


def report() -> dict[str, object]:
    """What this processor computes."""
    integers, differing, default = 0, {}, []
    for case in cases():
        found = run(lower(case.qdq), case.feeds, island=run_island, keep=True)
        static = any(
            node.op_type == "QuantizeLinear" for node in case.qdq.graph
        )  # or no tensor keeps its codes
        expected = integer_tensors(case.qdq, case.feeds) if static else {}
        expected |= OnnxRuntime(case.qdq).run(case.feeds)
        wrong = sum(int(np.count_nonzero(found[name] != array)) for name, array in expected.items())
        integers += sum(array.size for array in expected.values())
        if wrong:
            differing[case.name] = wrong
        bare = ort.InferenceSession(to_bytes(case.qdq), providers=["CPUExecutionProvider"])
        names = [output.name for output in bare.get_outputs()]
        outputs = zip(names, bare.run(names, dict(case.feeds)), strict=True)
        if any(np.any(found[name] != array) for name, array in outputs):
            default.append(case.name)
    return {
        "saturates": pairs_saturate(),
        "integers": integers,
        "differing": differing,
        "default session differs": default,
    }


if __name__ == "__main__":
    print(json.dumps(report()))
