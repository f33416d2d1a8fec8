"""The conformance table: one row an operator and a set of parameters, each a small QDQ graph with its feeds.

`kernel` is the operator that ONNX Runtime's optimized graph must hold, so that a row cannot pass by comparing float
with float. Scales are random float32 with full significands unless a row asks for ties.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.conformance.builder import Graph, floats_of, scale_of

Feeds = dict[str, np.ndarray]
Build = Callable[[np.random.Generator], tuple[Graph, Feeds]]


@dataclass(frozen=True)
class Row:
    name: str
    build: Build
    kernel: str


def zero_of(rng: np.random.Generator) -> int:
    """A uint8 zero point; the extremes come up often."""
    return int(rng.choice([0, 128, 255, rng.integers(0, 256), rng.integers(0, 256)]))


def codes_in(
    g: Graph, name: str, rng: np.random.Generator, shape: tuple[int, ...], **kw: object
) -> tuple[str, np.ndarray]:
    """A graph input that carries random codes of all 256 values exactly, and the feed that does so."""
    scale = float(np.float32(kw.get("scale", scale_of(rng))))  # type: ignore[arg-type]
    zero = int(kw.get("zero", zero_of(rng)))  # type: ignore[call-overload]
    codes = rng.integers(0, 256, shape) if kw.get("codes") is None else np.asarray(kw["codes"])
    return g.input(name, list(shape), scale, zero), floats_of(codes, scale, zero)


def conv(
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    *,
    codes: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray] | None = None,
    x_codes: int | None = None,
    bias: str = "random",
    per_channel: bool = True,
    spread: float = 3.0,
    gain: float = 1.0,
    zeros: tuple[int, int] | None = None,
    **attrs: object,
) -> Build:
    def build(rng: np.random.Generator) -> tuple[Graph, Feeds]:
        g = Graph()
        zx, zy = zeros or (zero_of(rng), zero_of(rng))
        full = None if x_codes is None else np.full(shape, x_codes)
        x, feed = codes_in(g, "x", rng, shape, zero=zx, codes=full)
        sx = g.params["x_q"][0]
        w = rng.integers(-127, 128, weight).astype(np.int8) if codes is None else codes(rng, weight)
        sw = np.exp(rng.uniform(-spread, spread, weight[0] if per_channel else ())).astype(np.float32) / 100
        ins = [x, g.weight("w", w, sw)]
        fan_in = int(np.prod(weight[1:]))
        typical = 74 * 74 * np.sqrt(fan_in)
        if bias != "none":
            size = {"random": typical, "large": 2**28}[bias]
            b = rng.integers(-int(size), int(size), weight[0]).astype(np.int32)
            sb = (np.float32(sx) * sw).astype(np.float32)
            ins.append(g.weight("b", b, sb))
        sy = float(np.float32(sx * np.median(sw) * typical / 60 / gain * rng.uniform(0.5, 2)))
        g.output(g.op("Conv", ins, "y", sy, zy, **attrs))
        return g, {"x": feed}

    return build


def extreme(value: int) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    return lambda rng, shape: np.full(shape, value, np.int8)


def with_minus_128(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.where(rng.random(shape) < 0.3, -128, rng.integers(-127, 128, shape)).astype(np.int8)


def gemm(
    m: int,
    k: int,
    n: int,
    *,
    trans_b: bool = False,
    per_channel: bool = True,
    bias: bool = True,
    reader: str = "codes",
) -> Build:
    """`reader`: what reads the product: a QuantizeLinear ("codes"), the graph's "output", or an op in float."""

    def build(rng: np.random.Generator) -> tuple[Graph, Feeds]:
        g = Graph()
        x, feed = codes_in(g, "x", rng, (m, k))
        sx = g.params["x_q"][0]
        sw = rng.uniform(0.001, 0.02, n if per_channel else ()).astype(np.float32)
        w = rng.integers(-128, 128, (n, k) if trans_b else (k, n)).astype(np.int8)
        ins = [x, g.weight("w", w, sw, axis=0 if trans_b else 1)]
        if bias:
            b = rng.integers(-100_000, 100_000, n).astype(np.int32)
            ins.append(g.weight("b", b, (np.float32(sx) * sw).astype(np.float32)))
        if reader != "codes":
            in_float(g, "Gemm", ins, reader, transB=int(trans_b), beta=1.0)
            return g, {"x": feed}
        sy = float(np.float32(sx * np.median(sw) * 74 * 74 * np.sqrt(k) / 60))
        g.output(g.op("Gemm", ins, "y", sy, zero_of(rng), transB=int(trans_b), beta=1.0))
        return g, {"x": feed}

    return build


def in_float(g: Graph, op: str, ins: list[str], reader: str, **attrs: object) -> None:
    """A product without QuantizeLinear behind it, as an output of the graph or read by the float op `reader`."""
    g.node(op, ins, ["y"], **attrs)
    if reader != "output":
        g.node(reader, ["y"], ["z"])
    g.output("y" if reader == "output" else "z")


def matmul(
    a: tuple[int, ...],
    b: tuple[int, ...],
    *,
    constant: bool,
    per_channel: bool = False,
    reader: str = "codes",
) -> Build:
    """`reader` as in `gemm`."""

    def build(rng: np.random.Generator) -> tuple[Graph, Feeds]:
        g = Graph()
        left, feed = codes_in(g, "a", rng, a)
        feeds = {"a": feed}
        sa = g.params["a_q"][0]
        if constant:
            sb = rng.uniform(0.001, 0.02, b[-1] if per_channel else ()).astype(np.float32)
            right = g.weight("b", rng.integers(-128, 128, b).astype(np.int8), sb, axis=len(b) - 1)
        else:
            right, feeds["b"] = codes_in(g, "b", rng, b)
            sb = np.float32(g.params["b_q"][0])
        if reader != "codes":
            in_float(g, "MatMul", [left, right], reader)
            return g, feeds
        sy = float(np.float32(sa * np.median(sb) * 74 * 74 * np.sqrt(a[-1]) / 60))
        g.output(g.op("MatMul", [left, right], "y", sy, zero_of(rng)))
        return g, feeds

    return build


def binary(
    op: str, a: tuple[int, ...], b: tuple[int, ...], *, ratio: str = "random", constant: bool = False
) -> Build:
    """Two operands, broadcasting; `ratio` sets how the scales relate."""

    def build(rng: np.random.Generator) -> tuple[Graph, Feeds]:
        g = Graph()
        sy = scale_of(rng)
        if ratio == "ties":  # quotients a few float32 steps from multiples of 1/2 and 1/4
            sa = sy * rng.integers(1, 8) / 2 * (1 + rng.integers(-3, 4) * 2.0**-23)
            sb = sy * rng.integers(1, 16) / 4 * (1 + rng.integers(-3, 4) * 2.0**-23)
        elif ratio == "wide":
            sa, sb = sy * 2.0**5, sy * 2.0**-5
        else:
            sa, sb = scale_of(rng), scale_of(rng)
            sy = sy if op == "Add" else sa * sb * 100
        left, feed = codes_in(g, "a", rng, a, scale=sa)
        feeds = {"a": feed}
        if constant:
            right = g.codes("b", rng.integers(0, 256, b), float(np.float32(sb)), zero_of(rng))
        else:
            right, feeds["b"] = codes_in(g, "b", rng, b, scale=sb)
        if op == "Mul" and ratio != "random":
            sy = sy * sy * 50
        g.output(g.op(op, [left, right], "y", float(np.float32(sy)), zero_of(rng)))
        return g, feeds

    return build


def all_pairs(op: str, ratio: str, swap: bool = False) -> Build:
    """Every pair of codes; with `swap` the first operand is the one that is broadcast."""

    def build(rng: np.random.Generator) -> tuple[Graph, Feeds]:
        shapes = ((256, 1), (256, 256)) if swap else ((256, 256), (256, 256))
        g, feeds = binary(op, *shapes, ratio=ratio)(rng)
        s, z = g.params["a_q"]
        feeds["a"] = np.broadcast_to(floats_of(np.arange(256)[:, None], s, z), shapes[0]).copy()
        s, z = g.params["b_q"]
        feeds["b"] = np.broadcast_to(floats_of(np.arange(256)[None, :], s, z), shapes[1]).copy()
        return g, feeds

    return build


def unary(op: str, shape: tuple[int, ...], *, out: str = "random", **attrs: object) -> Build:
    """One input; `out` sets how the output's scale relates to the input's."""

    def build(rng: np.random.Generator) -> tuple[Graph, Feeds]:
        g = Graph()
        x, feed = codes_in(g, "x", rng, shape)
        sx, zx = g.params["x_q"]
        sy, zy = {
            "same": (sx, zx),
            "random": (float(np.float32(sx * rng.uniform(0.4, 1.5))), zero_of(rng)),
            "above": (float(np.float32(sx * rng.uniform(0.4, 1.5))), int(rng.integers(1, 256))),
            "half": (float(np.float32(sx / 2)), zero_of(rng)),
            "mean": (float(np.float32(sx * rng.uniform(0.05, 0.4))), zero_of(rng)),
            "tiny": (float(np.float32(sx * 2.0**-7)), zero_of(rng)),
            "huge": (float(np.float32(sx * 2.0**20)), zero_of(rng)),
            "unit": (float(np.float32(1 / 255)), 0),
            "probability": (float(np.float32(rng.uniform(0.5, 1) / 255)), int(rng.integers(0, 4))),
            "p256": (1 / 256, 0),
        }[out]
        g.output(g.op(op, [x], "y", sy, zy, **attrs))
        return g, {"x": feed}

    return build


def clip(low: float | None, high: float | None, *, top: float = 6.0) -> Build:
    """Clip or Relu that the quantized range does not make redundant."""

    def build(rng: np.random.Generator) -> tuple[Graph, Feeds]:
        g = Graph()
        x, feed = codes_in(g, "x", rng, (3, 256), scale=0.07)
        ins = [x]
        ins += [g.const("lo", np.float32(low))] if low is not None else [""]
        ins += [g.const("hi", np.float32(high))] if high is not None else []
        g.output(g.op("Clip", ins, "y", float(np.float32(top / 255)), int(rng.integers(0, 9))))
        return g, {"x": feed}

    return build


def shaped(
    op: str, shape: tuple[int, ...], operands: list[list[int]], *, out: str = "same", **attrs: object
) -> Build:
    """A movement operator with constant int64 operands."""

    def build(rng: np.random.Generator) -> tuple[Graph, Feeds]:
        g = Graph()
        x, feed = codes_in(g, "x", rng, shape)
        sx, zx = g.params["x_q"]
        extra = [g.const(f"k{i}", np.array(v, np.int64)) for i, v in enumerate(operands)]
        sy, zy = (sx, zx) if out == "same" else (float(np.float32(sx * 1.3)), zero_of(rng))
        g.output(g.op(op, [x, *extra], "y", sy, zy, **attrs))
        return g, {"x": feed}

    return build


def resize(
    shape: tuple[int, ...],
    to: list[float] | list[int],
    *,
    how: str = "half_pixel",
    rounding: str = "round_prefer_floor",
    **attrs: object,
) -> Build:
    """To the nearest neighbour; `to` are scales if they are floats, sizes if they are whole."""

    def build(rng: np.random.Generator) -> tuple[Graph, Feeds]:
        g = Graph()
        x, feed = codes_in(g, "x", rng, shape)
        floats = isinstance(to[0], float)
        given = g.const("to", np.array(to, np.float32 if floats else np.int64))
        ways = {"coordinate_transformation_mode": how, "nearest_mode": rounding, **attrs}
        ins = [x, "", given] if floats else [x, "", "", given]
        g.output(g.op("Resize", ins, "y", *g.params["x_q"], mode="nearest", **ways))
        return g, {"x": feed}

    return build


def split(shape: tuple[int, ...], lengths: list[int] | int, *, axis: int, other: bool = False) -> Build:
    """`lengths` of the parts, or how many there are; with `other`, one of them has a scale of its own."""

    def build(rng: np.random.Generator) -> tuple[Graph, Feeds]:
        g = Graph()
        x, feed = codes_in(g, "x", rng, shape)
        count = lengths if isinstance(lengths, int) else len(lengths)
        names = [f"y{i}" for i in range(count)]
        if isinstance(lengths, int):
            g.node("Split", [x], names, axis=axis, num_outputs=count)
        else:
            g.node("Split", [x, g.const("lengths", np.array(lengths, np.int64))], names, axis=axis)
        s, z = g.params["x_q"]
        for i, name in enumerate(names):
            own = (float(np.float32(s * 1.3)), zero_of(rng)) if other and i == 1 else (s, z)
            g.output(g.pair(name, name, *own))
        return g, {"x": feed}

    return build


def gather(shape: tuple[int, ...], index: object, *, axis: int) -> Build:
    return shaped("Gather", shape, [index], axis=axis)  # type: ignore[list-item]


def concat(same: bool) -> Build:
    def build(rng: np.random.Generator) -> tuple[Graph, Feeds]:
        g = Graph()
        feeds, names = {}, []
        sy, zy = scale_of(rng), zero_of(rng)
        for i, channels in enumerate((3, 5, 1)):
            kw: dict[str, object] = {"scale": sy, "zero": zy} if same or i == 1 else {}
            name, feeds[f"x{i}"] = codes_in(g, f"x{i}", rng, (2, channels, 4, 4), **kw)
            names.append(name)
        g.output(g.op("Concat", names, "y", sy, zy, axis=1))
        return g, feeds

    return build


def requantize(rng: np.random.Generator) -> tuple[Graph, Feeds]:
    """One tensor read at two scales: DequantizeLinear straight into another QuantizeLinear."""
    g = Graph()
    x, feed = codes_in(g, "x", rng, (4, 256))
    s, _ = g.params["x_q"]
    y = g.pair(x, "y", float(np.float32(s * 1.7)), zero_of(rng))
    g.output(g.op("Add", [x, y], "sum", float(np.float32(s * 2)), zero_of(rng)))
    return g, {"x": feed}


def borders(rng: np.random.Generator) -> tuple[Graph, Feeds]:
    """QuantizeLinear of ties, of the infinities and of numbers far outside."""
    g = Graph()
    s, z = scale_of(rng), zero_of(rng)
    x = g.input("x", [4, 64], s, z)
    halves = (np.arange(-128, 128) * np.float32(0.5)).astype(np.float32) * np.float32(s)
    feed = (
        np.concatenate([halves, [np.inf, -np.inf, 3e9 * s, -3e9 * s]])[-256:]
        .astype(np.float32)
        .reshape(4, 64)
    )
    g.output(g.op("Relu", [x], "y", s * 2, 3))
    return g, {"x": feed}


def residual(rng: np.random.Generator) -> tuple[Graph, Feeds]:
    """One quantized tensor feeds a convolution and an addition."""
    g = Graph()
    x, feed = codes_in(g, "x", rng, (2, 8, 9, 9))
    sx = g.params["x_q"][0]
    sw = rng.uniform(0.001, 0.01, 8).astype(np.float32)
    w = g.weight("w", rng.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8), sw)
    b = g.weight("b", rng.integers(-9999, 9999, 8).astype(np.int32), (np.float32(sx) * sw).astype(np.float32))
    sy = float(np.float32(sx * 0.005 * 74 * 74 * 9 / 60))
    y = g.op("Conv", [x, w, b], "y", sy, zero_of(rng), pads=[1, 1, 1, 1])
    g.output(g.op("Add", [x, y], "z", float(np.float32(sy * 1.1)), zero_of(rng)))
    return g, {"x": feed}


ROWS: tuple[Row, ...] = (
    Row("conv 3x3", conv((2, 5, 9, 8), (7, 5, 3, 3), pads=[1, 1, 1, 1]), "QLinearConv"),
    Row("conv 3x3 no pad", conv((1, 3, 9, 8), (4, 3, 3, 3)), "QLinearConv"),
    Row("conv 1x1", conv((2, 16, 7, 7), (24, 16, 1, 1)), "QLinearConv"),
    Row("conv 1x1 stride 2", conv((2, 16, 7, 7), (24, 16, 1, 1), strides=[2, 2]), "QLinearConv"),
    Row(
        "conv 7x7 stride 2",
        conv((1, 3, 33, 31), (16, 3, 7, 7), strides=[2, 2], pads=[3, 3, 3, 3]),
        "QLinearConv",
    ),
    Row(
        "conv asymmetric", conv((1, 4, 11, 9), (6, 4, 3, 2), strides=[2, 1], pads=[0, 1, 2, 0]), "QLinearConv"
    ),
    Row(
        "conv dilated", conv((1, 4, 13, 14), (6, 4, 3, 3), dilations=[2, 3], pads=[2, 3, 2, 3]), "QLinearConv"
    ),
    Row(
        "conv same upper",
        conv((1, 4, 10, 9), (6, 4, 3, 4), strides=[2, 2], auto_pad="SAME_UPPER"),
        "QLinearConv",
    ),
    Row(
        "conv same lower",
        conv((1, 4, 10, 9), (6, 4, 3, 4), strides=[2, 2], auto_pad="SAME_LOWER"),
        "QLinearConv",
    ),
    Row("conv valid", conv((1, 4, 10, 9), (6, 4, 3, 4), auto_pad="VALID"), "QLinearConv"),
    Row("conv grouped", conv((2, 8, 7, 7), (12, 2, 3, 3), group=4, pads=[1, 1, 1, 1]), "QLinearConv"),
    Row("conv grouped 1x1", conv((2, 8, 7, 7), (12, 2, 1, 1), group=4), "QLinearConv"),
    Row("depthwise 3x3", conv((2, 16, 9, 10), (16, 1, 3, 3), group=16, pads=[1, 1, 1, 1]), "QLinearConv"),
    Row(
        "depthwise 5x5 stride 2",
        conv((1, 32, 15, 14), (32, 1, 5, 5), group=32, pads=[2, 2, 2, 2], strides=[2, 2]),
        "QLinearConv",
    ),
    Row(
        "depthwise asymmetric",
        conv((1, 8, 16, 15), (8, 1, 3, 3), group=8, pads=[0, 0, 1, 1], strides=[2, 2]),
        "QLinearConv",
    ),
    Row(
        "depthwise dilated",
        conv((1, 8, 16, 15), (8, 1, 3, 3), group=8, pads=[2, 2, 2, 2], dilations=[2, 2]),
        "QLinearConv",
    ),
    Row(
        "depthwise dilated stride 3",
        conv((1, 8, 17, 19), (8, 1, 3, 2), group=8, pads=[2, 0, 1, 2], dilations=[2, 1], strides=[3, 2]),
        "QLinearConv",
    ),
    Row(
        "depthwise multiplier 2", conv((2, 8, 9, 9), (16, 1, 3, 3), group=8, pads=[1, 1, 1, 1]), "QLinearConv"
    ),
    Row("depthwise no bias", conv((1, 8, 9, 9), (8, 1, 3, 3), group=8, bias="none"), "QLinearConv"),
    Row(
        "depthwise large bias",
        conv((1, 8, 9, 9), (8, 1, 3, 3), group=8, bias="large", gain=2e-4),
        "QLinearConv",
    ),
    Row("conv 3D", conv((2, 3, 5, 6, 7), (4, 3, 3, 2, 3), pads=[1, 0, 1, 1, 1, 1]), "QLinearConv"),
    Row("conv 3D 1x1x1 stride 2", conv((2, 4, 5, 6, 7), (6, 4, 1, 1, 1), strides=[2, 1, 2]), "QLinearConv"),
    Row(
        "conv 3D dilated, grouped",
        conv((1, 4, 8, 7, 6), (6, 2, 2, 3, 2), group=2, dilations=[2, 1, 3], strides=[1, 2, 1]),
        "QLinearConv",
    ),
    Row("depthwise 3D", conv((2, 4, 6, 5, 5), (4, 1, 3, 3, 3), group=4, pads=[1] * 6), "QLinearConv"),
    Row("conv no bias", conv((1, 4, 6, 6), (5, 4, 3, 3), bias="none"), "QLinearConv"),
    Row("conv per tensor", conv((1, 4, 6, 6), (5, 4, 3, 3), per_channel=False), "QLinearConv"),
    Row("conv large bias", conv((1, 4, 6, 6), (5, 4, 3, 3), bias="large", gain=1e-4), "QLinearConv"),
    Row("conv scales span 1e6", conv((1, 4, 6, 6), (64, 4, 3, 3), spread=7.0), "QLinearConv"),
    Row("conv weight -128", conv((1, 8, 6, 6), (8, 8, 3, 3), codes=with_minus_128), "QLinearConv"),
    Row(
        "conv |w| 65, 255 pairs",
        conv((1, 8, 6, 6), (8, 8, 3, 3), codes=extreme(65), x_codes=255, zeros=(0, 0)),
        "QLinearConv",
    ),
    Row(
        "conv |w| 127, 255 pairs",
        conv((1, 8, 6, 6), (8, 8, 3, 3), codes=extreme(127), x_codes=255, zeros=(0, 7)),
        "QLinearConv",
    ),
    Row(
        "conv beyond 2^24",
        conv((1, 256, 5, 5), (8, 256, 3, 3), codes=extreme(-127), gain=0.02),
        "QLinearConv",
    ),
    Row("conv K 4608", conv((1, 512, 4, 4), (16, 512, 3, 3), pads=[1, 1, 1, 1]), "QLinearConv"),
    Row("conv one axis", conv((2, 6, 20), (8, 6, 5), pads=[2, 1], strides=[2]), "QLinearConv"),
    Row("depthwise one axis", conv((2, 6, 20), (6, 1, 3), pads=[1, 1], group=6), "QLinearConv"),
    Row("gemm", gemm(5, 40, 11), "QGemm"),
    Row("gemm transposed", gemm(5, 40, 11, trans_b=True), "QGemm"),
    Row("gemm per tensor", gemm(5, 40, 11, per_channel=False), "QGemm"),
    Row("gemm no bias", gemm(3, 64, 10, bias=False), "QGemm"),
    Row("gemm K 2048", gemm(2, 2048, 40, trans_b=True), "QGemm"),
    Row("gemm K 66311", gemm(1, 66311, 3), "QGemm"),
    Row("matmul constant", matmul((7, 20), (20, 9), constant=True), "QLinearMatMul"),
    Row(
        "matmul per column", matmul((2, 3, 7, 20), (20, 9), constant=True, per_channel=True), "QLinearMatMul"
    ),
    Row("matmul constant rank 3", matmul((4, 7, 20), (4, 20, 9), constant=True), "QLinearMatMul"),
    Row("matmul activations", matmul((2, 4, 7, 20), (2, 4, 20, 9), constant=False), "QLinearMatMul"),
    Row("matmul broadcast", matmul((2, 4, 7, 20), (20, 9), constant=False), "QLinearMatMul"),
    Row("matmul activations K 300", matmul((3, 300), (300, 5), constant=False), "QLinearMatMul"),
    Row("gemm to float", gemm(5, 40, 11, reader="output"), "QGemm"),
    Row("gemm to float transposed", gemm(5, 40, 11, trans_b=True, reader="Erf"), "QGemm"),
    Row("gemm to float per tensor", gemm(5, 40, 11, per_channel=False, reader="output"), "QGemm"),
    Row("gemm to float no bias", gemm(3, 64, 10, bias=False, reader="output"), "QGemm"),
    Row("gemm to float K 66311", gemm(2, 66311, 3, reader="output"), "QGemm"),
    Row(
        "matmul to float per column",
        matmul((2, 3, 7, 20), (20, 9), constant=True, per_channel=True, reader="output"),
        "MatMulIntegerToFloat",
    ),
    *(
        Row(
            f"matmul to float activations {a} {b} {reader}",
            matmul(a, b, constant=False, reader=reader),
            "MatMulIntegerToFloat",
        )
        for reader in ("output", "Softmax")
        for a, b in (((2, 4, 7, 20), (2, 4, 20, 9)), ((2, 4, 7, 20), (20, 9)), ((3, 300), (300, 5)))
    ),
    *(
        Row(f"{op} {ratio}", all_pairs(op, ratio), f"QLinear{op}")
        for op in ("Add", "Mul")
        for ratio in ("random", "ties", "wide")
    ),
    *(
        Row(f"{op} {ratio}, first broadcast", all_pairs(op, ratio, swap=True), f"QLinear{op}")
        for op in ("Add", "Mul")
        for ratio in ("random", "ties")
    ),
    *(
        Row(f"Add length {n}", binary("Add", (n,), (n,), ratio="ties"), "QLinearAdd")
        for n in (1, 2, 31, 32, 33)
    ),
    Row("Add channel", binary("Add", (2, 6, 5, 5), (1, 6, 1, 1), ratio="ties"), "QLinearAdd"),
    Row("Add channel first", binary("Add", (1, 6, 1, 1), (2, 6, 5, 5), ratio="ties"), "QLinearAdd"),
    Row("Add row", binary("Add", (2, 3, 8), (8,), ratio="ties"), "QLinearAdd"),
    Row("Add row first", binary("Add", (8,), (2, 3, 8), ratio="ties"), "QLinearAdd"),
    Row("Add outer", binary("Add", (5, 1), (1, 7), ratio="ties"), "QLinearAdd"),
    Row("Add outer first", binary("Add", (1, 7), (5, 1), ratio="ties"), "QLinearAdd"),
    Row("Add scalar", binary("Add", (1,), (3, 70), ratio="ties"), "QLinearAdd"),
    Row("Add constant", binary("Add", (4, 50), (50,), ratio="ties", constant=True), "QLinearAdd"),
    Row("Mul gate", binary("Mul", (2, 6, 5, 5), (2, 6, 1, 1)), "QLinearMul"),
    Row("Mul constant", binary("Mul", (4, 50), (50,), constant=True), "QLinearMul"),
    *(
        Row(
            f"MaxPool {out}",
            unary("MaxPool", (2, 3, 9, 8), out=out, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 0, 1]),
            "MaxPool",
        )
        for out in ("same", "random")
    ),
    Row(
        "MaxPool dilated",
        unary("MaxPool", (1, 3, 11, 12), out="same", kernel_shape=[3, 3], dilations=[2, 2]),
        "MaxPool",
    ),
    Row(
        "MaxPool ceil",
        unary(
            "MaxPool",
            (1, 3, 10, 9),
            out="same",
            kernel_shape=[3, 3],
            strides=[2, 2],
            ceil_mode=1,
            pads=[1, 1, 1, 1],
        ),
        "MaxPool",
    ),
    Row(
        "MaxPool one axis",
        unary("MaxPool", (2, 3, 17), out="same", kernel_shape=[3], strides=[2], pads=[1, 1]),
        "MaxPool",
    ),
    Row(
        "MaxPool 3D",
        unary(
            "MaxPool", (2, 3, 8, 7, 6), out="same", kernel_shape=[2, 3, 2], strides=[2, 1, 2], pads=[1] * 6
        ),
        "MaxPool",
    ),
    *(
        Row(
            f"AveragePool {out} include {inc}",
            unary(
                "AveragePool",
                (2, 6, 9, 10),
                out=out,
                kernel_shape=[3, 3],
                strides=[2, 2],
                pads=[1, 1, 0, 1],
                count_include_pad=inc,
            ),
            "QLinearAveragePool",
        )
        for out in ("random", "mean", "same", "half")
        for inc in (0, 1)
    ),
    *(
        Row(
            f"AveragePool 3D include {inc}",
            unary(
                "AveragePool",
                (2, 3, 7, 6, 5),
                out="random",
                kernel_shape=[3, 2, 3],
                strides=[2, 2, 1],
                pads=[1, 1, 0, 1, 0, 2],
                ceil_mode=1 - inc,
                count_include_pad=inc,
            ),
            "QLinearAveragePool",
        )
        for inc in (0, 1)
    ),
    Row(
        "GlobalAveragePool 3D",
        unary("GlobalAveragePool", (2, 5, 4, 3, 5), out="mean"),
        "QLinearGlobalAveragePool",
    ),
    Row(
        "AveragePool 2x2 ties",
        unary("AveragePool", (2, 8, 16, 16), out="same", kernel_shape=[2, 2], strides=[2, 2]),
        "QLinearAveragePool",
    ),
    Row(
        "AveragePool whole image",
        unary("AveragePool", (2, 16, 7, 7), out="mean", kernel_shape=[7, 7]),
        "QLinearAveragePool",
    ),
    *(
        Row(
            f"AveragePool whole image, padded {inc}",
            unary(
                "AveragePool",
                (2, 5, 3, 4),
                out="random",
                kernel_shape=[3, 4],
                pads=[1, 1, 1, 2],
                count_include_pad=inc,
            ),
            "QLinearAveragePool",
        )
        for inc in (0, 1)
    ),
    Row(
        "AveragePool one axis",
        unary("AveragePool", (2, 6, 21), out="random", kernel_shape=[4], strides=[2], pads=[1, 2]),
        "QLinearAveragePool",
    ),
    Row(
        "AveragePool ceil",
        unary("AveragePool", (1, 3, 10, 9), out="random", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        "QLinearAveragePool",
    ),
    *(
        Row(
            f"GlobalAveragePool {out}",
            unary("GlobalAveragePool", (2, 19, 7, 7), out=out),
            "QLinearGlobalAveragePool",
        )
        for out in ("same", "mean", "tiny", "huge")
    ),
    Row(
        "GlobalAveragePool 112",
        unary("GlobalAveragePool", (1, 4, 112, 112), out="mean"),
        "QLinearGlobalAveragePool",
    ),
    *(
        Row(f"Softmax {out}", unary("Softmax", (64, 17), out=out, axis=-1), "QLinearSoftmax")
        for out in ("unit", "probability", "p256")
    ),
    Row("Softmax axis 1", unary("Softmax", (3, 10, 4, 4), out="probability", axis=1), "QLinearSoftmax"),
    Row("Softmax 1000", unary("Softmax", (4, 1000), out="probability", axis=1), "QLinearSoftmax"),
    Row("Softmax one class", unary("Softmax", (4, 1), out="unit", axis=1), "QLinearSoftmax"),
    *(
        Row(f"Sigmoid {out}", unary("Sigmoid", (3, 256), out=out), "QLinearSigmoid")
        for out in ("unit", "probability")
    ),
    Row("LeakyRelu", unary("LeakyRelu", (3, 256), out="random", alpha=0.1), "QLinearLeakyRelu"),
    Row("Relu kept", unary("Relu", (3, 256), out="above"), "Relu"),
    Row("HardSwish", unary("HardSwish", (3, 256), out="random"), "HardSigmoid"),
    Row("Tanh", unary("Tanh", (3, 256), out="unit"), "Tanh"),
    Row("Clip 0 6", clip(0.0, 6.0, top=6.1), "Clip"),
    Row("Clip a hair above", clip(0.0, 6.0, top=6.0 * (1 + 2**-20)), "Clip"),
    Row("Clip -1 1", clip(-1.0, 1.0, top=3.0), "Clip"),
    Row("Concat", concat(False), "QLinearConcat"),
    Row("Concat same scale", concat(True), "QLinearConcat"),
    *(
        Row(f"Reshape {out}", shaped("Reshape", (2, 3, 4), [[0, -1]], out=out), "Reshape")
        for out in ("same", "other")
    ),
    Row("Flatten", unary("Flatten", (2, 3, 4), out="same", axis=2), "Flatten"),
    *(
        Row(f"Transpose {out}", unary("Transpose", (2, 3, 4, 5), out=out, perm=[0, 2, 3, 1]), "Transpose")
        for out in ("same", "random")
    ),
    Row("Squeeze", shaped("Squeeze", (2, 1, 4, 1), [[1, -1]]), "Squeeze"),
    Row("Unsqueeze", shaped("Unsqueeze", (2, 4), [[0, 3]]), "Unsqueeze"),
    Row("Slice", shaped("Slice", (2, 9, 8), [[1, -1], [7, -8], [1, 2], [2, -3]]), "Slice"),
    *(
        Row(f"Pad {out}", shaped("Pad", (2, 3, 4), [[0, 1, 2, 0, 0, 1]], out=out), "Pad")
        for out in ("same", "other")
    ),
    Row("Pad edge", shaped("Pad", (2, 3, 4), [[0, 1, 2, 0, 0, 1]], mode="edge"), "Pad"),
    Row("Pad reflect, crop", shaped("Pad", (2, 5, 6), [[0, 1, 2, 0, -1, 1]], mode="reflect"), "Pad"),
    Row("Split", split((2, 9, 5), [2, 3, 4], axis=1), "Split"),
    Row("Split last, uneven", split((2, 3, 7), 3, axis=-1), "Split"),
    Row("Split other", split((2, 9, 5), [2, 3, 4], axis=1, other=True), "Split"),
    Row("Gather", gather((2, 5, 6), [3, 0, -1, 3], axis=1), "Gather"),
    Row("Gather one", gather((2, 5, 6), 2, axis=1), "Gather"),
    Row("Gather matrix", gather((2, 5, 6), [[0, -2, 1], [4, 4, 3]], axis=-2), "Gather"),
    Row("Gather other", shaped("Gather", (2, 5, 6), [[5, 0]], out="other", axis=2), "Gather"),
    Row("Tile", shaped("Tile", (2, 3, 5), [[1, 3, 2]]), "Tile"),
    Row("Expand", shaped("Expand", (2, 1, 5, 1), [[3, 1, 4, 1, 6]]), "Expand"),
    Row("Expand, fewer axes", shaped("Expand", (2, 1, 5), [[4, 5]]), "Expand"),
    *(
        Row(
            f"DepthToSpace {mode}",
            unary("DepthToSpace", (2, 12, 3, 4), out="same", blocksize=2, mode=mode),
            "DepthToSpace",
        )
        for mode in ("DCR", "CRD")
    ),
    Row("SpaceToDepth", unary("SpaceToDepth", (2, 3, 4, 6), out="same", blocksize=2), "SpaceToDepth"),
    Row(
        "Resize twice",
        resize((2, 3, 5, 4), [1.0, 1.0, 2.0, 2.0], how="asymmetric", rounding="floor"),
        "Resize",
    ),
    Row("Resize 2.7 and 0.6", resize((2, 3, 7, 9), [1.0, 1.0, 2.7, 0.6]), "Resize"),
    *(
        Row(
            f"Resize {how} {rounding}",
            resize((1, 2, 7, 10), [1, 2, 17, 6], how=how, rounding=rounding),
            "Resize",
        )
        for how in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    Row("Resize one axis", resize((2, 3, 8), [20], axes=[2]), "Resize"),
    Row("ReduceMax", shaped("ReduceMax", (2, 5, 4, 3), [[2, 3]], keepdims=1), "ReduceMax"),
    Row("ReduceMax apart", shaped("ReduceMax", (2, 5, 4, 3), [[-1, 1]], keepdims=0), "ReduceMax"),
    Row("ReduceMax other", shaped("ReduceMax", (2, 5, 4), [[1]], out="other", keepdims=0), "ReduceMax"),
    Row("ReduceMax all", unary("ReduceMax", (5, 4), out="same"), "ReduceMax"),
    Row("GlobalMaxPool", unary("GlobalMaxPool", (2, 5, 4, 3), out="same"), "GlobalMaxPool"),
    Row("requantize", requantize, "QLinearAdd"),
    Row("borders", borders, "QuantizeLinear"),
    Row("one tensor, two readers", residual, "QLinearAdd"),
)
