"""Random integer programs, and many of them compiled as one library: what the C generator is tried on."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.c.compiler import library
from eightbit.deploy.c.folder import answers, kernels, network, random_samples
from eightbit.deploy.c.text import Network, header, source
from eightbit.integer import program as p
from eightbit.integer.engine import run


def differing(
    programs: Sequence[p.Program], arithmetic: Arithmetic, *, draws: int = 2, flags: Sequence[str] = ("-O0",)
) -> dict[int, int]:
    """How many output integers of each program's C differ from the NumPy engine's, where any do."""
    nets = [network(program, arithmetic, f"n{i}") for i, program in enumerate(programs)]
    loaded = compiled(nets, flags)
    found = {}
    for i, (net, program) in enumerate(zip(nets, programs, strict=True)):
        vectors = answers(net, program, random_samples(program, draws, seed=i))
        wrong = sum(call(loaded, net, vectors, row) for row in range(draws))
        if wrong:
            found[i] = wrong
    return found


def compiled(nets: Sequence[Network], flags: Sequence[str]) -> ctypes.CDLL:
    files = {**kernels(), "all.c": "\n".join(map(source, nets))}
    return library(files | {f"{net.name}.h": header(net) for net in nets}, flags)


def call(loaded: ctypes.CDLL, net: Network, vectors: dict[str, np.ndarray], row: int) -> int:
    """Runs one vector; how many integers differ."""
    inputs = [np.ascontiguousarray(vectors[port.codes][row]) for port in net.plan.inputs]
    outputs = [np.full(port.shape, 99, np.int8) for port in net.plan.outputs]
    getattr(loaded, f"{net.name}_run")(*(ctypes.c_void_p(a.ctypes.data) for a in (*inputs, *outputs)))
    pairs = zip(outputs, (vectors[port.codes][row] for port in net.plan.outputs), strict=True)
    return sum(int(np.count_nonzero(found != expected)) for found, expected in pairs)


@dataclass
class Maker:
    """A program in the making. Every tensor's shape is known, since its operations run as they are made."""

    rng: np.random.Generator
    ops: list[p.Op] = field(default_factory=list)
    tensors: dict[str, p.TensorInfo] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def info(self, scale: float | None = None) -> p.TensorInfo:
        drawn = np.exp(self.rng.uniform(np.log(0.01), np.log(0.2))) if scale is None else scale
        zero = self.rng.choice([-128, 0, 127, self.rng.integers(-128, 128)])
        return p.TensorInfo(np.float32(drawn), int(zero))

    def input(self, shape: tuple[int, ...]) -> str:
        name = f"x{len(self.ops)}"
        info = self.info()
        self.tensors[f"{name}_q"] = p.TensorInfo(info.scale, info.zero_point, shape=shape)
        self.ops.append(p.Quantize(f"quantize/{name}", (name,), (f"{name}_q",)))
        self.shapes[f"{name}_q"] = shape
        return f"{name}_q"

    def constant(self, shape: tuple[int, ...]) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = self.rng.integers(-128, 128, shape).astype(np.int8)
        self.tensors[name], self.shapes[name] = self.info(), shape
        return name

    def op(self, kind: type[p.Op], inputs: Sequence[str], like: p.TensorInfo, *fields: object) -> str:
        out = f"t{len(self.ops)}"
        made = kind(
            f"{kind.__name__}*/{out}", tuple(inputs), (out,), *fields
        )  # a name that a comment must not hold
        self.tensors[out] = p.TensorInfo(like.scale, like.zero_point)
        self.ops.append(made)
        self.shapes[out] = run(self.program(out), self.zeros())[f"{out}_f"].shape
        return out

    def zeros(self) -> dict[str, np.ndarray]:
        return {
            op.inputs[0]: np.zeros(self.shapes[op.outputs[0]], np.float32)
            for op in self.ops
            if isinstance(op, p.Quantize)
        }

    def program(self, *outputs: str) -> p.Program:
        ends = [p.Dequantize(f"dequantize/{name}", (name,), (f"{name}_f",)) for name in outputs]
        inputs = tuple(op.inputs[0] for op in self.ops if isinstance(op, p.Quantize))
        return p.Program(
            inputs,
            tuple(f"{n}_f" for n in outputs),
            (*self.ops, *ends),
            dict(self.tensors),
            dict(self.constants),
        )


def random_program(seed: int, length: int) -> p.Program:
    """`length` operations, each on tensors that were made before; two of them are outputs."""
    rng = np.random.default_rng(seed)
    m = Maker(rng)
    images = [
        m.input(
            (
                int(rng.choice([1, 1, 2])),
                int(rng.integers(1, 20)),
                int(rng.integers(1, 9)),
                int(rng.integers(1, 9)),
            )
        )
    ]
    made: list[str] = []
    while len(made) < length:
        x = str(rng.choice([*images, *made][-4:]))
        kinds = [k for k in STEPS if k is not None]
        out = kinds[int(rng.integers(len(kinds)))](m, x)
        if out is not None and 0 < np.prod(m.shapes[out]) < 5000:
            made.append(out)
    ends = {made[-1], str(rng.choice(made))}
    return m.program(*sorted(ends))


def _conv(m: Maker, x: str) -> str | None:
    rng, shape = m.rng, m.shapes[x]
    if len(shape) not in (3, 4):
        return None
    space, channels = shape[2:], shape[1]
    kernel = tuple(int(rng.integers(1, min(n, 4) + 1)) for n in space)
    group = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
    outputs = group * int(rng.integers(1, max(2, 40 // group)))
    if group == channels and rng.random() < 0.6:
        outputs = channels
    strides = tuple(int(rng.integers(1, 3)) for _ in space)
    dilations = tuple(
        int(rng.integers(1, 3)) if (k - 1) * 2 < n else 1 for k, n in zip(kernel, space, strict=True)
    )
    pads = tuple(int(rng.integers(0, k)) for k in (*kernel, *kernel))
    weight = rng.integers(-128, 128, (outputs, channels // group, *kernel)).astype(np.int8)
    scales = np.exp(rng.uniform(-9, -2, outputs)).astype(np.float32)
    bias = rng.integers(-(2**14), 2**14, outputs).astype(np.int32)
    if rng.random() < 0.1:
        bias = rng.integers(-(2**30), 2**30, outputs).astype(np.int32)
    y = m.info(float(m.tensors[x].scale * np.median(scales) * 3000 * np.sqrt(weight[0].size)))
    if rng.random() < 0.1:
        y = m.info(float(m.tensors[x].scale * np.median(scales) / 10))  # multipliers above 1
    return m.op(p.Conv, [x], y, weight, bias, scales, strides, pads, dilations, group)


def _gemm(m: Maker, x: str) -> str | None:
    rng, shape = m.rng, m.shapes[x]
    if len(shape) < 2:
        return None
    outputs = int(rng.integers(1, 40))
    weight = rng.integers(-128, 128, (shape[-1], outputs)).astype(np.int8)
    scales = rng.uniform(0.001, 0.02, outputs).astype(np.float32)
    y = m.info(float(m.tensors[x].scale * 0.01 * 3000 * np.sqrt(shape[-1])))
    return m.op(p.Gemm, [x], y, weight, rng.integers(-(2**14), 2**14, outputs).astype(np.int32), scales)


def _matmul(m: Maker, x: str) -> str | None:
    shape = m.shapes[x]
    if len(shape) < 2:
        return None
    other = (shape[-1], int(m.rng.integers(1, 20)))
    if m.rng.random() < 0.5:
        other = (*(n if m.rng.random() < 0.7 else 1 for n in shape[:-2]), *other)
    right = m.constant(other)
    y = m.info(float(m.tensors[x].scale * m.tensors[right].scale * 5000 * np.sqrt(shape[-1])))
    return m.op(p.MatMul, [x, right], y)


def _binary(m: Maker, x: str) -> str | None:
    rng, shape = m.rng, m.shapes[x]
    alike = [name for name, other in m.shapes.items() if other == shape]
    if rng.random() < 0.6:
        right = str(rng.choice(alike))
    else:
        right = m.constant(
            tuple(n if rng.random() < 0.6 else 1 for n in shape)[int(rng.integers(0, len(shape))) :]
        )
    pair = [x, right] if rng.random() < 0.5 else [right, x]
    kind = p.Add if rng.random() < 0.6 else p.Mul
    s_a, s_b = (float(m.tensors[name].scale) for name in pair)
    return m.op(
        kind, pair, m.info(max(s_a, s_b) * float(rng.uniform(0.3, 3)) if kind is p.Add else s_a * s_b * 100)
    )


def _pool(m: Maker, x: str) -> str | None:
    rng, shape = m.rng, m.shapes[x]
    if len(shape) not in (3, 4):
        return None
    kernel = tuple(int(rng.integers(1, min(n, 3) + 1)) for n in shape[2:])
    strides = tuple(int(rng.integers(1, 3)) for _ in kernel)
    pads = tuple(int(rng.integers(0, (k + 1) // 2)) for k in (*kernel, *kernel))
    ceil = bool(rng.random() < 0.3)
    kind = rng.integers(3)
    if kind == 0:
        return m.op(p.GlobalAveragePool, [x], m.info(float(m.tensors[x].scale * rng.uniform(0.1, 1.5))))
    if kind == 1:
        return m.op(p.MaxPool, [x], m.tensors[x], kernel, strides, pads, (1,) * len(kernel), ceil)
    y = m.tensors[x] if rng.random() < 0.5 else m.info(float(m.tensors[x].scale * rng.uniform(0.2, 2)))
    return m.op(p.AveragePool, [x], y, kernel, strides, pads, ceil, bool(rng.random() < 0.5))


def _lookup(m: Maker, x: str) -> str:
    kind = str(m.rng.choice(["Relu", p.REQUANTIZE]))  # whose table is the arithmetic's own
    return m.op(p.Lookup, [x], m.info(), m.rng.integers(-128, 128, 256).astype(np.int8), kind)


def _softmax(m: Maker, x: str) -> str:
    y = (
        p.TensorInfo(np.float32(1 / 256), -128)
        if m.rng.random() < 0.4
        else m.info(float(m.rng.uniform(0.002, 0.02)))
    )
    return m.op(p.Softmax, [x], y, int(m.rng.integers(-len(m.shapes[x]), len(m.shapes[x]))))


def _concat(m: Maker, x: str) -> str:
    rng, shape = m.rng, m.shapes[x]
    parts = [
        x,
        *(
            str(rng.choice([n for n, s in m.shapes.items() if s == shape]))
            for _ in range(int(rng.integers(1, 3)))
        ),
    ]
    like = m.tensors[x] if rng.random() < 0.5 else m.info()
    tables = tuple(
        None if m.tensors[part].params == like.params else rng.integers(-128, 128, 256).astype(np.int8)
        for part in parts
    )
    return m.op(p.Concat, parts, like, int(rng.integers(-len(shape), len(shape))), tables)


def _shape(m: Maker, x: str) -> str:
    rng, shape, like = m.rng, m.shapes[x], m.tensors[x]
    kind = rng.integers(5)
    if kind == 0:
        return m.op(p.Flatten, [x], like, int(rng.integers(0, len(shape) + 1)))
    if kind == 1 and len(shape) < 5:
        return m.op(p.Unsqueeze, [x], like, (int(rng.integers(0, len(shape) + 1)),))
    if kind == 2:
        return m.op(p.Squeeze, [x], like, None) if np.prod(shape) > 1 else m.op(p.Reshape, [x], like, (1, -1))
    if kind == 3 and len(shape) > 1:
        return m.op(p.Reshape, [x], like, (*shape[:-2], shape[-1], shape[-2]))
    return m.op(p.Transpose, [x], like, tuple(int(a) for a in rng.permutation(len(shape))))


def _slice(m: Maker, x: str) -> str:
    rng, bounds = m.rng, []
    for axis, n in enumerate(m.shapes[x]):
        if rng.random() < 0.5:
            step = int(rng.choice([-2, -1, 1, 1, 2]))
            start = int(rng.integers(0, n))
            bounds.append((axis, start, None, step))
    return m.op(p.Slice, [x], m.tensors[x], tuple(bounds))


def _pad(m: Maker, x: str) -> str:
    rng, shape = m.rng, m.shapes[x]
    mode = str(rng.choice(["constant", "edge", "reflect", "wrap"]))
    pads = tuple(
        int(rng.integers(-1 if n > 2 else 0, 3)) if rng.random() < 0.5 else 0 for n in (*shape, *shape)
    )
    return m.op(p.Pad, [x], m.tensors[x], pads, mode, int(rng.integers(-128, 128)))


def _take(m: Maker, x: str) -> str:
    rng, shape = m.rng, m.shapes[x]
    axis = int(rng.integers(-len(shape), len(shape)))
    n, lengths = shape[axis], [(), (5,), (2, 3)] if len(shape) < 5 else [(4,)]
    index = rng.integers(-n, n, lengths[int(rng.integers(len(lengths)))])
    return m.op(p.Take, [x], m.tensors[x], axis, np.asarray(index, np.int64))


def _largest(m: Maker, x: str) -> str | None:
    rng, rank = m.rng, len(m.shapes[x])
    axes = tuple(sorted(int(a) for a in rng.permutation(rank)[: int(rng.integers(1, rank + 1))]))
    keep = bool(len(axes) == rank or rng.random() < 0.5)
    return m.op(p.ReduceMax, [x], m.tensors[x], axes, keep)


STEPS = (
    _conv,
    _conv,
    _conv,
    _conv,
    _gemm,
    _matmul,
    _binary,
    _binary,
    _pool,
    _pool,
    _lookup,
    _softmax,
    _concat,
    _shape,
    _shape,
    _slice,
    _pad,
    _take,
    _largest,
)
