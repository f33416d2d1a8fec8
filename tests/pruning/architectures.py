"""Small networks whose channels depend on one another in the ways that matter, as ONNX protos, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.graph.graphs import normal, parse
from tests.graph.transformers import transformer
from tests.small_net import small_net


def _w(*shape: int, seed: int) -> np.ndarray:
    return (normal(*shape, seed=seed) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def _net(body: str, **weights: np.ndarray) -> onnx.ModelProto:
    """A network on pictures (N, 3, 8, 8); `f` is what the classifier reads, flat."""
    text = f"g (float[N,3,8,8] x) => (float[N,5] y) {{ {body} y = Gemm <transB = 1> (f, wc, bc) }}"
    return parse(text, **weights, bc=normal(5, seed=99))


def depthwise() -> onnx.ModelProto:
    """MobileNetV2's block, and a depthwise layer that makes two channels of each."""
    return _net(
        """a = Conv <pads = [1,1,1,1]> (x, w1, b1) zero = Constant <value_float = 0.0> ()
        six = Constant <value_float = 6.0> ()
        a6 = Clip (a, zero, six) d = Conv <group = 8, pads = [1,1,1,1]> (a6, w2, b2) d6 = Clip (d, zero, six)
        p = Conv (d6, w3) q = Conv <group = 8, strides = [2,2]> (p, w4, b4) r = Relu (q) s = Conv (r, w5)
        g = GlobalAveragePool (s) f = Flatten (g)""",
        w1=_w(8, 3, 3, 3, seed=1), b1=normal(8, seed=2), w2=_w(8, 1, 3, 3, seed=3), b2=normal(8, seed=4),
        w3=_w(8, 8, 1, 1, seed=5), w4=_w(16, 1, 3, 3, seed=6), b4=normal(16, seed=7), w5=_w(12, 16, 1, 1, seed=8),
        wc=_w(5, 12, seed=9),
    )  # fmt: skip


def concatenated() -> onnx.ModelProto:
    """DenseNet's block: every layer reads all before it, behind a BatchNorm that cannot be folded."""
    return _net(
        """a = Conv <pads = [1,1,1,1]> (x, w1, b1) n = BatchNormalization (a, g1, s1, m1, v1) na = Relu (n)
        b = Conv <pads = [1,1,1,1]> (na, w2, b2) ab = Concat <axis = 1> (a, b)
        n2 = BatchNormalization (ab, g2, s2, m2, v2) nab = Relu (n2) c = Conv <pads = [1,1,1,1]> (nab, w3, b3)
        abc = Concat <axis = 1> (ab, c) r = Relu (abc) p = MaxPool <kernel_shape = [4,4], strides = [4,4]> (r)
        f = Flatten (p)""",
        w1=_w(8, 3, 3, 3, seed=1), b1=normal(8, seed=2), g1=normal(8, seed=3), s1=normal(8, seed=4),
        m1=normal(8, seed=5), v1=normal(8, seed=6) ** 2 + 0.5, w2=_w(4, 8, 3, 3, seed=7), b2=normal(4, seed=8),
        g2=normal(12, seed=9), s2=normal(12, seed=10), m2=normal(12, seed=11), v2=normal(12, seed=12) ** 2 + 0.5,
        w3=_w(4, 12, 3, 3, seed=13), b3=normal(4, seed=14), wc=_w(5, 64, seed=15),
    )  # fmt: skip


def grouped() -> onnx.ModelProto:
    """ResNeXt's block between 1x1 convolutions, and a shuffle of channels as in ShuffleNet."""
    return _net(
        """a = Conv (x, w1, b1) ra = Relu (a) b = Conv <group = 4, pads = [1,1,1,1]> (ra, w2, b2) rb = Relu (b)
        c = Conv (rb, w3, b3) s = Add (c, ra) rs = Relu (s) d = Conv <group = 2> (rs, w4, b4)
        five = Constant <value_ints = [-1, 2, 4, 8, 8]> () four = Constant <value_ints = [0, 8, 8, 8]> ()
        e = Reshape (d, five) t = Transpose <perm = [0, 2, 1, 3, 4]> (e) h = Reshape (t, four)
        i = Conv <group = 2> (h, w5) r = Relu (i) g = GlobalAveragePool (r) f = Flatten (g)""",
        w1=_w(16, 3, 1, 1, seed=1), b1=normal(16, seed=2), w2=_w(16, 4, 3, 3, seed=3), b2=normal(16, seed=4),
        w3=_w(16, 16, 1, 1, seed=5), b3=normal(16, seed=6), w4=_w(8, 8, 1, 1, seed=7), b4=normal(8, seed=8),
        w5=_w(8, 4, 1, 1, seed=9), wc=_w(5, 8, seed=10),
    )  # fmt: skip


def gated() -> onnx.ModelProto:
    """Squeeze and excitation, and halves that are split, sliced, padded in space and added."""
    return _net(
        """a = Conv <pads = [1,1,1,1]> (x, w1, b1) m = GlobalAveragePool (a) z = Conv (m, w2, b2) rz = Relu (z)
        u = Conv (rz, w3, b3) gate = Sigmoid (u) o = Mul (a, gate) k = Mul (o, by)
        l, r = Split <axis = 1, num_outputs = 2> (k) from = Constant <value_ints = [2]> ()
        to = Constant <value_ints = [6]> () one = Constant <value_ints = [1]> ()
        pads = Constant <value_ints = [0,0,1,1,0,0,1,1]> () lp = Pad (l, pads) rp = Pad (r, pads) s = Add (lp, rp)
        c = Conv (s, w4) v = Slice (c, from, to, one) q = Relu (v) p = AveragePool <kernel_shape = [8,8]> (q)
        f = Flatten (p)""",
        w1=_w(16, 3, 3, 3, seed=1), b1=normal(16, seed=2), w2=_w(4, 16, 1, 1, seed=3), b2=normal(4, seed=4),
        w3=_w(16, 4, 1, 1, seed=5), b3=normal(16, seed=6), by=normal(16, 1, 1, seed=7), w4=_w(8, 8, 3, 3, seed=8),
        wc=_w(5, 4, seed=9),
    )  # fmt: skip


def _pictures(n: int) -> np.ndarray:
    return normal(n, 3, 8, 8, seed=50)


def _sequences(n: int) -> np.ndarray:
    return normal(n, 6, 16, seed=51)


Case = tuple[Callable[[], onnx.ModelProto], Callable[[int], np.ndarray]]
ARCHITECTURES: dict[str, Case] = {
    "residual": (small_net, _pictures),
    "depthwise": (depthwise, _pictures),
    "concat": (concatenated, _pictures),
    "grouped": (grouped, _pictures),
    "gated": (gated, _pictures),
    "transformer": (lambda: transformer(2), _sequences),
    "transformer of fixed length": (lambda: transformer(1, ("N", 6), "zeros", parts=True), _sequences),
}
