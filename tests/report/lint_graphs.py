"""Graphs made to be found fault with, and to be found clean: what each holds, and what lint must say of it.

Weights of the first part are codes put down by hand, two neighbours on either side of what int16 holds. The others are
float graphs that `quantize` makes int8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

import eightbit as eb
from tests.conformance.builder import Graph, floats_of
from tests.graph.graphs import normal, parse

Feeds = dict[str, np.ndarray]
RNG_SEED = 7


@dataclass(frozen=True)
class Case:
    """The nodes that lint must name, and no others: `saturates` (AVX2), `floats` (ONNX Runtime), `refused` (C, TFLite
    Micro). LiteRT refuses `lite_refused`, where that is not what C refuses, and computes `lite_floats` in float.
    """

    name: str
    build: Callable[[], tuple[eb.QuantizedModel, Feeds]]
    saturates: frozenset[str] = field(default=frozenset(), kw_only=True)
    floats: frozenset[str] = field(default=frozenset(), kw_only=True)
    refused: frozenset[str] = field(default=frozenset(), kw_only=True)
    lite_refused: frozenset[str] | None = field(default=None, kw_only=True)
    lite_floats: frozenset[str] = field(default=frozenset(), kw_only=True)

    def named(self, kind: str, target: str) -> frozenset[str]:
        """The nodes that lint must name for a target, of one kind of finding."""
        in_onnxruntime = target in ("x86-vnni", "x86-avx2", "arm")
        if kind == "saturates":
            return self.saturates if target == "x86-avx2" else frozenset()
        if kind == "float":
            return self.floats if in_onnxruntime else self.lite_floats if target == "tflite" else frozenset()
        if in_onnxruntime:
            return frozenset()
        return self.refused if target != "tflite" or self.lite_refused is None else self.lite_refused


def extremes(shape: tuple[int, ...], scale: float, zero: int) -> np.ndarray:
    """Inputs whose codes are 0 and 255 at random, the first row 255 alone."""
    codes = 255 * np.random.default_rng(RNG_SEED).integers(0, 2, shape)
    codes[0] = 255
    return floats_of(codes, scale, zero)


SCALE = 1 / 64


def layer(
    op: str,
    weight: Sequence[object] | np.ndarray,
    x: tuple[int, ...],
    *,
    to_float: bool = False,
    **attrs: object,
) -> Callable[[], tuple[eb.QuantizedModel, Feeds]]:
    """One layer `y` on codes of zero point 0; a bias brings the sum for codes of 255 to the middle of the output,
    which holds all sums of a MatMul."""

    def build() -> tuple[eb.QuantizedModel, Feeds]:
        g = Graph()
        w = np.asarray(weight, np.int8)
        source = g.input("x", list(x), SCALE, 0)
        columns = w.reshape(len(w), -1) if op == "Conv" else w.T
        middle = -255 * columns.astype(np.int64).sum(axis=1)
        ins = [source, g.weight("w", w, SCALE)]
        if op != "MatMul":
            ins.append(
                g.weight("b", middle.astype(np.int32), np.full(len(middle), SCALE * SCALE, np.float32))
            )
        if to_float:
            g.node(op, ins, ["y"], **attrs)
            g.node("LpNormalization", ["y"], ["z"], axis=1)
            g.output("z")
        else:
            g.output(g.op(op, ins, "y", (512 if op == "MatMul" else 16) * SCALE * SCALE, 128, **attrs))
        return eb.QuantizedModel(g.model()), {"x": extremes((64, *x[1:]) if x[0] == 64 else x, SCALE, 0)}

    return build


def one_by_one(*weights: int) -> np.ndarray:
    return np.array(weights, np.int8).reshape(1, -1, 1, 1)


def column(*weights: int) -> np.ndarray:
    return np.array(weights, np.int8).reshape(-1, 1)


def two_layers() -> tuple[eb.QuantizedModel, Feeds]:
    """Only the second can saturate: its input's codes reach 255."""
    g = Graph()
    x = g.input("x", [64, 4], SCALE, 0)
    first = g.op("MatMul", [x, g.weight("w1", np.eye(4, dtype=np.int8) * 64, SCALE)], "m", SCALE, 0)
    second = g.op(
        "MatMul", [first, g.weight("w2", column(100, 100, 0, 0), SCALE)], "y", 200 * SCALE * SCALE, 0
    )
    g.output(second)
    return eb.QuantizedModel(g.model()), {"x": extremes((64, 4), SCALE, 0)}


def behind_a_table() -> tuple[eb.QuantizedModel, Feeds]:
    """A Sigmoid's codes end at 100: 100 * (127 + 127) fits int16."""
    g = Graph()
    x = g.input("x", [64, 4], SCALE, 128)
    s = g.op("Sigmoid", [x], "s", 1 / 100, 0)
    g.output(g.op("MatMul", [s, g.weight("w", column(127, 127, 127, 127), SCALE)], "y", 4 * SCALE, 0))
    return eb.QuantizedModel(g.model()), {"x": extremes((64, 4), SCALE, 128)}


def products() -> tuple[eb.QuantizedModel, Feeds]:
    """Two activations: uint8 times uint8 is added in 32 bits."""
    g = Graph()
    a, b = g.input("a", [8, 4], SCALE, 0), g.input("b", [4, 8], SCALE, 0)
    g.output(g.op("MatMul", [a, b], "y", 900 * SCALE * SCALE, 0))
    return eb.QuantizedModel(g.model()), {"a": extremes((8, 4), SCALE, 0), "b": extremes((4, 8), SCALE, 0)}


def named(text: str, **weights: np.ndarray) -> eb.Model:
    """A float model whose nodes are called as what they make."""
    proto = parse(text, **weights)
    for node in proto.graph.node:
        node.name = node.output[0]
    return eb.load(proto)


def dynamic() -> tuple[eb.QuantizedModel, Feeds]:
    weight = np.zeros((4, 1), np.float32)
    weight[:2] = 1
    x = np.abs(normal(64, 4))
    x[0] = 4
    model = named("g (float[64,4] x) => (float[64,1] y) { m = MatMul (x, w)\n y = Relu (m) }", w=weight)
    return eb.quantize(model, recipe=eb.Recipe(activations=eb.Activations(dynamic=True))), {"x": x}


SAT = frozenset({"Conv_y"})
SAT_M = frozenset({"MatMul_y"})
X = (64, 2, 1, 1)
BY_HAND = (
    Case("65 + 64", layer("Conv", one_by_one(65, 64), X), saturates=SAT),
    Case("64 + 64", layer("Conv", one_by_one(64, 64), X)),
    Case("127 + 1", layer("Conv", one_by_one(127, 1), X)),
    Case("127 + 2", layer("Conv", one_by_one(127, 2), X), saturates=SAT),
    Case("127 - 127", layer("Conv", one_by_one(127, -127), X)),
    Case("-65 - 64", layer("Conv", one_by_one(-65, -64), X), saturates=SAT),
    Case("-64 - 64", layer("Conv", one_by_one(-64, -64), X)),
    Case("neighbours of two pairs", layer("MatMul", column(0, 65, 64, 0), (64, 4))),
    Case("the second pair", layer("MatMul", column(0, 0, 127, 127), (64, 4)), saturates=SAT_M),
    Case("the last of three", layer("MatMul", column(0, 0, 127), (64, 3))),
    Case("depthwise", layer("Conv", np.full((4, 1, 3, 3), 127), (64, 4, 5, 5), group=4)),
    Case(
        "grouped",
        layer("Conv", np.tile(one_by_one(100, 100), (2, 1, 1, 1)), (64, 4, 1, 1), group=2),
        saturates=SAT,
    ),
    Case(
        "neighbours in the kernel, one channel",
        layer("Conv", np.array([[[[100, 100]]], [[[1, 1]]]]), (64, 1, 1, 2)),
        saturates=SAT,
    ),
    Case(
        "neighbours in the kernel, two channels",
        layer("Conv", np.array([[[[100, 100]], [[0, 0]]]]), (64, 2, 1, 2)),
    ),
    Case("Gemm", layer("Gemm", column(0, 0, 80, 80), (64, 4)), saturates=frozenset({"Gemm_y"})),
    Case(
        "sums that leave as float",
        layer("MatMul", np.array([[90, 1], [90, 1]]), (64, 2), to_float=True),
        saturates=SAT_M,
        floats=frozenset({"LpNormalization_z"}),
        refused=frozenset({"MatMul_y", "LpNormalization_z"}),
        lite_refused=frozenset({"LpNormalization_z"}),
    ),
    Case("the second of two layers", two_layers, saturates=SAT_M),
    Case("behind a table", behind_a_table),
    Case("two activations", products),
    Case(
        "dynamic",
        dynamic,
        saturates=frozenset({"m"}),
        floats=frozenset({"y"}),
        refused=frozenset({"x_Q", "m", "y"}),
        lite_refused=frozenset({"x_Q", "m"}),
    ),
)


SEVEN = replace(eb.Recipe.plain(), weights=eb.Weights(bits=7))
"""Weights of seven bits: whatever else these graphs do, they do not saturate."""


def quantized(
    text: str, shape: tuple[int, ...], recipe: eb.Recipe | None = None, **weights: np.ndarray
) -> Callable[[], tuple[eb.QuantizedModel, Feeds]]:
    """A float graph with the input `x`, made int8."""

    def build() -> tuple[eb.QuantizedModel, Feeds]:
        x = normal(*shape)
        return eb.quantize(named(text, **weights), x, recipe or SEVEN), {"x": x}

    return build


def around(op: str, rank: int = 4, **weights: np.ndarray) -> Callable[[], tuple[eb.QuantizedModel, Feeds]]:
    """`it`, an op of a tensor `m` that makes `t`, between two convolutions or products."""
    shape = (4, 4, 6, 6) if rank == 4 else (4, 8)
    first, last = ("Conv (x, wa)", "Conv (t, wb)") if rank == 4 else ("MatMul (x, wa)", "MatMul (t, wb)")
    size = (4, 4, 1, 1) if rank == 4 else (8, 8)
    dims = ",".join(map(str, ("N", *shape[1:])))
    text = f"g (float[{dims}] x) => (float y) {{ m = {first}\n t = {op}\n y = {last} }}"
    return quantized(text, shape, wa=normal(*size, seed=1), wb=normal(*size, seed=2), **weights)


def kept(*patterns: str) -> eb.Recipe:
    return replace(SEVEN, overrides=dict.fromkeys(patterns, eb.FLOAT))


def in_lite(*names: str) -> dict[str, frozenset[str]]:
    """Written as float operators of LiteRT, refused elsewhere."""
    return {"lite_refused": frozenset(), "lite_floats": frozenset(names)}


ONE = normal(8, 8, seed=1)
T = frozenset({"t"})
PADS = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
TWICE = np.array([1, 1, 2, 2], np.float32)
WIDE = replace(SEVEN, activations=eb.Activations(bits=16))
QUANTIZED = (
    Case("nothing but layers", around("Relu (m)")),
    Case("a pool", around("MaxPool <kernel_shape=[2,2], strides=[2,2]> (m)")),
    Case("a sum", around("Add (m, m)")),
    Case("a table", around("LeakyRelu <alpha=0.1> (m)")),
    Case("a function", around("Tanh (m)"), floats=T),
    Case("no form", around("LpNormalization <axis=1> (m)"), floats=T, refused=T),
    Case(
        "a transposed convolution",
        around("ConvTranspose (m, wc)", wc=normal(4, 4, 2, 2)),
    ),
    Case(
        "a transposed convolution with gaps",
        around("ConvTranspose <dilations=[2,1]> (m, wc)", wc=normal(4, 4, 2, 2)),
        floats=T,
        refused=T,
    ),
    Case(
        "a maximum over axes",
        around("ReduceMax <keepdims=1> (m, axes)", axes=np.array([2], np.int64)),
    ),
    Case(
        "a norm",
        around("InstanceNormalization (m, s, b)", s=np.ones(4, np.float32), b=np.zeros(4, np.float32)),
        floats=T,
        refused=T,
        **in_lite("t"),
    ),
    Case(
        "a size that grows",
        around('Resize <mode="nearest"> (m, , s)', s=TWICE),
    ),
    Case(
        "a size that grows between neighbours",
        around('Resize <mode="linear"> (m, , s)', s=TWICE),
        floats=T,
        refused=T,
        **in_lite("t"),
    ),
    Case(
        "padding with another number",
        around("Pad (m, p, v)", p=PADS, v=np.array(2, np.float32)),
        floats=T,
        refused=T,
        **in_lite("t"),
    ),
    Case("padding with zero", around("Pad (m, p)", p=PADS)),
    Case(
        "a mirror",
        around('Pad <mode="reflect"> (m, p)', p=PADS),
        floats=T,
    ),
    Case(
        "windows with gaps",
        around("AveragePool <kernel_shape=[2,2], dilations=[2,2]> (m)"),
        floats=T,
        refused=T,
    ),
    Case("Softmax", around("Softmax <axis=1> (m)")),
    Case("Concat", around("Concat <axis=2> (m, m)")),
    Case(
        "Slice", around("Slice (m, b, e)", b=np.array([0, 0, 1], np.int64), e=np.array([9, 9, 4], np.int64))
    ),
    Case("transposed twice", around("Transpose <perm=[0,1,3,2]> (m)")),
    Case(
        "a layer that the recipe keeps",
        quantized(
            "g (float[N,8] x) => (float y) { a = MatMul (x, w)\n b = MatMul (a, w)\n y = MatMul (b, w) }",
            (4, 8),
            kept("b"),
            w=ONE,
        ),
        floats=frozenset({"b"}),
        refused=frozenset({"b", "a"}),
        **in_lite("a", "b"),
    ),
    Case(
        "weights alone",
        quantized(
            "g (float[N,8] x) => (float y) { y = MatMul (x, w) }",
            (4, 8),
            replace(SEVEN, activations=eb.FLOAT),
            w=ONE,
        ),
        floats=frozenset({"y"}),
        refused=frozenset({"y"}),
        **in_lite("y"),
    ),
    Case(
        "sixteen bits",
        quantized(
            "g (float[N,8] x) => (float y) { a = MatMul (x, w)\n b = Add (a, x)\n y = Relu (b) }",
            (4, 8),
            WIDE,
            w=ONE,
        ),
        floats=frozenset({"a", "b"}),
        refused=frozenset({"x_Q", "a", "b"}),
    ),
    Case(
        "three axes",
        quantized(
            "g (float[N,2,4,4,4] x) => (float y) { y = Conv (x, w) }",
            (4, 2, 4, 4, 4),
            w=normal(2, 2, 2, 2, 2),
        ),
        refused=frozenset({"y"}),
    ),
    Case(
        "a free length",
        quantized("g (float[N,T,8] x) => (float y) { y = MatMul (x, w) }", (4, 3, 8), w=ONE),
        refused=frozenset({"x"}),
    ),
    Case(
        "vectors",
        quantized("g (float[8] x) => (float y) { a = Mul (x, x)\n y = MatMul (a, x) }", (8,)),
        refused=frozenset({"y"}),
    ),
    Case("Flatten", around("Flatten (m)", 2)),
)
CASES = (*BY_HAND, *QUANTIZED)
