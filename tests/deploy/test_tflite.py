"""A .tflite gives, in TFLite Micro, the integers of the NumPy engine: operations, random programs; and what it says."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import eightbit as eb
from eightbit.arith.affine import INT8
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.c.folder import random_samples
from eightbit.deploy.engines import Engine
from eightbit.deploy.tflite.engines import LiteRT, Micro, arena_for, arena_used, micro
from eightbit.deploy.tflite.file import to_bytes
from eightbit.deploy.tflite.islands import FloatNode
from eightbit.deploy.tflite.prepare import net_of
from eightbit.deploy.tflite.rules import REFUSED, RULES
from eightbit.deploy.tflite.tables import clipped, rectified
from eightbit.integer import program as p
from eightbit.integer.engine import run
from eightbit.integer.engine.requantize import fixed_multiplier, requantize_codes
from eightbit.integer.lower import lower
from eightbit.integer.verify import accumulator_limits
from tests.conformance.cases import ROWS
from tests.deploy.programs import Maker, random_program
from tests.integer.test_engine import operations
from tests.small_net import by_another_quantizer, images, small_net

Need = Callable[[str], Engine]


@pytest.fixture(scope="session")
def tflm(engine: Need) -> None:
    engine("tflm")


@pytest.fixture(scope="session")
def litert(engine: Need) -> None:
    engine("litert")


def off(program: p.Program, runner: Micro | LiteRT, *, draws: int = 2, seed: int = 0) -> np.ndarray:
    """By how many codes each output integer differs from the NumPy engine's; int64."""
    found = []
    for feeds in random_samples(program, draws, seed=seed):
        expected, made = run(program, feeds, arithmetic=Arithmetic.TFLITE), runner.run(feeds)
        for port in runner.outputs:
            difference = (made[port.tensor].astype(np.float64) - expected[port.tensor]) / port.info.scale
            found.append(np.rint(difference).astype(np.int64).reshape(-1))
    return np.concatenate(found)


def tried(program: p.Program) -> Micro | str:
    """TFLite Micro with the program, or why there is none."""
    try:
        return Micro(program)
    except eb.EngineError as cause:
        return str(cause)


def test_every_operation_is_said_or_refused() -> None:
    assert {*RULES, *REFUSED, p.FloatIsland} == {*operations(), FloatNode}  # islands are opened into nodes
    assert not set(RULES) & set(REFUSED)


REASONS = {
    "to float": "its accumulators leave as float",
    **dict.fromkeys(("include 0", "AveragePool ceil"), "a mean that leaves out padding"),
    "3D": "its window has 3 axes",
    **dict.fromkeys(("SpaceToDepth", "GlobalMaxPool"), "it computes in float"),  # until `prepare` has seen it
    "MaxPool dilated": "its windows have gaps",
    "Pad edge": "has no padding 'edge'",
    "Softmax 1000": "stops where exponentials sum to 512",
}


def test_every_row_of_the_conformance_table(tflm: None, litert: None) -> None:
    """In TFLite Micro without a difference, in LiteRT within one code; or refused for a reason."""
    done = 0
    for row in ROWS:
        graph, _ = row.build(np.random.default_rng(zlib.crc32(row.name.encode())))
        program = lower(graph.model())
        runner = tried(program)
        if isinstance(runner, str):
            assert any(key in row.name and why in runner for key, why in REASONS.items()), (row, runner)
            continue
        assert not off(program, runner).any(), row.name
        for xnnpack in (False, True):
            assert np.abs(off(program, LiteRT(program, xnnpack=xnnpack))).max() <= 1, (row.name, xnnpack)
        done += 1
    assert done > 100


REFUSALS = (
    "has no padding",
    "a mean that leaves out padding",
    "it mirrors more",
    "its windows have gaps",
    "multiplies matrices",
    "in the padding alone",
    "stops where exponentials",
)


def leaves_int32(program: p.Program) -> bool:
    """Whether an accumulator times 2^shift can: TFLite Micro wraps around there, the NumPy engine saturates."""
    for op in program.ops:
        if isinstance(op, p.Conv | p.Gemm):
            x, y = (program.tensors[name] for name in (*op.inputs, *op.outputs))
            _, shift = fixed_multiplier(x.scale, op.weight_scale, y.scale)
            worst = np.abs(accumulator_limits(op, x)).max(0) << np.maximum(shift, 0).astype(np.int64)
            if worst.max() >= 2**31:
                return True
    return False


def _random_graph(seed: int) -> None:
    program = random_program(seed, length=1 + seed % 9)
    if leaves_int32(program):
        return
    runner = tried(program)
    if isinstance(runner, str):
        assert any(reason in runner for reason in REFUSALS), runner
        return
    assert not off(program, runner, seed=seed).any()


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
@example(seed=7747)  # cuts along more axes than TFLite Micro's slice has
def test_random_graphs(tflm: None, seed: int) -> None:
    _random_graph(seed)


@pytest.mark.slow
@settings(max_examples=200)
@given(seed=st.integers(0, 2**32 - 1))
def test_two_hundred_random_graphs(tflm: None, seed: int) -> None:
    _random_graph(seed)


def kinds(program: p.Program) -> list[str]:
    return [operator.kind for operator in net_of(program).operators]


def one(make: Callable[[Maker, str], str], shape: Sequence[int] = (1, 5, 6, 7)) -> p.Program:
    """A program of an input and what is made of it."""
    m = Maker(np.random.default_rng(3))
    return m.program(make(m, m.input(tuple(shape))))


def table_of(kind: str, x: p.TensorInfo, y: p.TensorInfo) -> np.ndarray:
    codes = p.all_codes(INT8)
    made = {
        "QUANTIZE": requantize_codes(codes, x, y, Arithmetic.TFLITE),
        "RELU": rectified(x, y),
        "MAXIMUM": np.maximum(codes, np.int8(-3)),
        "MINIMUM": np.minimum(codes, np.int8(90)),
        "GATHER": np.random.default_rng(0).integers(-128, 128, 256).astype(np.int8),
    }
    return made[kind]


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("kind", ["QUANTIZE", "RELU", "MAXIMUM", "MINIMUM", "GATHER"])
def test_a_table_is_the_operator_that_has_it(tflm: None, kind: str, same: bool) -> None:
    """All 256 codes: the operator is chosen only where its every answer is the table's."""
    m = Maker(np.random.default_rng(1))
    x = m.input((1, 256))
    info = m.tensors[x]
    m.tensors[x] = info = p.TensorInfo(info.scale, 5, shape=(1, 256))
    y = p.TensorInfo(info.scale, 5) if same else p.TensorInfo(np.float32(0.37) * info.scale, -11)
    table = table_of(kind, info, y)
    program = m.program(m.op(p.Lookup, [x], y, table, "Relu"))
    cut = kind in ("MAXIMUM", "MINIMUM")
    assert kinds(program)[-1] == ("GATHER" if cut and not same else kind)
    codes = ((np.arange(-128, 128) - info.zero_point) * info.scale).astype(np.float32)[None]
    found = Micro(program).run({program.inputs[0]: codes})[program.outputs[0]]
    np.testing.assert_array_equal(np.rint(found[0] / y.scale) + y.zero_point, table)
    assert clipped(np.arange(-128, 128).astype(np.int8)) == (-128, 127)


def test_an_image_stays_as_it_lies(tflm: None) -> None:
    """No TRANSPOSE: channels are last from the input on, and the matrix after a Flatten has its rows in that order."""
    rng = np.random.default_rng(0)

    def make(m: Maker, x: str) -> str:
        image = m.op(p.MaxPool, [x], m.tensors[x], (2, 2), (2, 2), (0, 0, 0, 0), (1, 1), False)
        flat = m.op(p.Flatten, [image], m.tensors[x], 1)
        depth = m.shapes[flat][1]
        weight = rng.integers(-127, 128, (depth, 4)).astype(np.int8)
        y = m.info(float(m.tensors[x].scale) * 60)
        scale = np.full(4, 0.01, np.float32)
        return m.op(p.Gemm, [flat], y, weight, np.zeros(4, np.int32), scale)

    program = one(make)
    assert kinds(program) == ["MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED"]
    assert not off(program, Micro(program)).any()
    (port,) = net_of(program).inputs
    assert (port.shape, port.order) == ((1, 5, 6, 7), (0, 2, 3, 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda m, x: m.op(p.Transpose, [x], m.tensors[x], (4, 5, 0, 1, 2, 3)),
        lambda m, x: m.op(p.Slice, [x], m.tensors[x], ((2, 1, None, 2), (3, 2, None, -1))),
        lambda m, x: m.op(p.Slice, [x], m.tensors[x], ((1, 1, None, 1), (3, 3, None, -2), (5, 1, 3, 1))),
        lambda m, x: m.op(p.Pad, [x], m.tensors[x], (0, 0, 1, 2, *(0,) * 7, 3), "constant", 5),
        lambda m, x: m.op(p.Pad, [x], m.tensors[x], (0, 0, 0, 0, 1, *(0,) * 6, 1), "reflect", 0),
    ],
    ids=["transpose", "slice", "slices apart", "pad", "mirror"],
)
def test_more_axes_than_an_operator_takes(tflm: None, make: Callable[[Maker, str], str]) -> None:
    """Neighbours that an operation leaves together are one axis."""
    program = one(make, (1, 2, 3, 4, 2, 3))
    assert not off(program, Micro(program)).any()


def test_what_the_file_says(tmp_path: Path, litert: None) -> None:
    """int8 at the ends, int32 bias in units of s_x s_w, a signature with the graph's names, the oldest runtime."""
    from ai_edge_litert import schema_py_generated as fb
    from ai_edge_litert.interpreter import Interpreter

    q = eb.quantize(small_net(), images(64), eb.Recipe.plain())
    written = eb.export(q, tmp_path / "net.tflite")
    assert str(written).startswith(f"{tmp_path / 'net.tflite'}: {written.size:,} bytes; ")
    interpreter = Interpreter(str(tmp_path / "net.tflite"))
    interpreter.allocate_tensors()
    x = images(3, seed=1)
    port = q.program.tensors[q.program.ops[0].outputs[0]]
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (given["dtype"], made["dtype"]) == (np.int8, np.int8)
    assert given["quantization"] == (port.scale, port.zero_point)
    signature = interpreter.get_signature_list()
    assert signature == {"serving_default": {"inputs": [q.inputs[0].name], "outputs": [q.outputs[0].name]}}
    data = (tmp_path / "net.tflite").read_bytes()
    model = fb.ModelT.InitFromObj(fb.Model.GetRootAs(data, 0))
    assert model.metadata[0].name == b"min_runtime_version"
    assert bytes(model.buffers[model.metadata[0].buffer].data).rstrip(b"\0") == b"2.17.0"
    root = fb.Model.GetRootAs(data, 0)
    for i in range(1, root.BuffersLength()):
        start = root.Buffers(i)._tab.Vector(root.Buffers(i)._tab.Offset(4))
        assert start % 16 == 0
    tensors = model.subgraphs[0].tensors
    checked = 0
    for operator in model.subgraphs[0].operators:
        kind = model.operatorCodes[operator.opcodeIndex].builtinCode
        if kind not in (fb.BuiltinOperator.CONV_2D, fb.BuiltinOperator.FULLY_CONNECTED):
            continue
        source, weight, bias = (tensors[i].quantization for i in operator.inputs)
        assert tensors[operator.inputs[2]].type == fb.TensorType.INT32
        np.testing.assert_array_equal(bias.scale, source.scale * weight.scale)
        assert not weight.zeroPoint.any() and not bias.zeroPoint.any()
        assert len(weight.scale) == tensors[operator.inputs[1]].shape[0]
        checked += 1
    assert checked >= 2
    np.testing.assert_array_equal(
        LiteRT(q.program, xnnpack=True).run({q.inputs[0].name: x})[q.outputs[0].name],
        q.run(x, engine="litert"),
    )


def test_the_scales_of_a_qdq_file_are_kept(tmp_path: Path, litert: None) -> None:
    """Another quantizer's: weights, scales and zero points of the .tflite are the ONNX file's, uint8 less 128."""
    from onnx import numpy_helper

    q = eb.open(by_another_quantizer(tmp_path))
    graph = onnx.load(tmp_path / "int8.onnx").graph
    fixed = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    net = net_of(q.program)
    pairs = {n.output[0]: n.input[1:] for n in graph.node if n.op_type == "QuantizeLinear"}
    written = {name: t.quantization for name, t in net.tensors.items() if name in pairs}
    assert len(written) >= 5
    for name, found in written.items():
        scale, zero = (fixed[x] for x in pairs[name])
        assert found is not None and (found.scale, found.zero_point) == (scale, int(zero) - 128)
    weights = [t for name, t in net.tensors.items() if name.endswith(".weight")]
    assert len(weights) == 3
    for tensor in weights:
        codes, scale = (fixed[f"w{1 + weights.index(tensor)}_{what}"] for what in ("quantized", "scale"))
        assert tensor.data is not None and tensor.quantization is not None
        np.testing.assert_array_equal(tensor.data, np.moveaxis(codes, 1, -1))
        np.testing.assert_array_equal(tensor.quantization.scale, scale)


def test_a_softmax_that_would_end_the_process_is_refused(tflm: None, litert: None) -> None:
    """TFLite Micro checks that a row's exponentials sum to less than 512, and aborts; LiteRT has this file."""
    program = one(lambda m, x: m.op(p.Softmax, [x], m.info(0.004), -1), (1, 512))
    with pytest.raises(eb.EngineError, match=r"Softmax.*over 512 codes, .* leave the Softmax out"):
        Micro(program)
    assert not off(program, LiteRT(program, xnnpack=True)).any()
    shorter = one(lambda m, x: m.op(p.Softmax, [x], m.info(0.004), -1), (1, 511))
    assert not off(shorter, Micro(shorter)).any()


def test_refusals_name_what_to_do(tmp_path: Path) -> None:
    q = eb.quantize(small_net(), images(64), eb.Recipe.plain())
    for options in ({"arithmetic": "single"}, {"name": "other"}, {"data": images(1)}):
        with pytest.raises(eb.ExportError, match=r"are for C; leave them out for a \.tflite"):
            eb.export(q, tmp_path / "net.tflite", **options)  # type: ignore[arg-type]
    kept = eb.quantize(small_net(), images(64), eb.Recipe(activations=eb.Activations(dynamic=True)))
    with pytest.raises(eb.ExportError, match=r"(?s)as \.tflite:\n.*: quantize with calibration data"):
        eb.export(kept, tmp_path / "net.tflite")
    assert not (tmp_path / "net.tflite").exists()


def test_the_arena_that_is_used_is_between_what_is_alive_and_what_surely_suffices(tflm: None) -> None:
    net = net_of(eb.quantize(small_net(), images(4), eb.Recipe.plain()).program)
    used = arena_used(net)
    assert used["total"] == used["head"] + used["tail"] <= arena_for(net)
    assert used["head"] >= max(int(np.prod(t.shape)) for t in net.tensors.values() if t.data is None)
    assert micro(to_bytes(net), used["total"] + 16)  # as much and its alignment is enough, and less is not
    with pytest.raises(eb.EngineError, match="TFLite Micro refuses"):
        micro(to_bytes(net), used["total"] - 64)
