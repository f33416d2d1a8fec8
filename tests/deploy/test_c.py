"""The C of a network gives the integers of the NumPy engine: operations, random programs, whole networks, files."""

from __future__ import annotations

import ctypes
import platform
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eightbit as eb
from eightbit.arith.affine import INT8, QuantParams, dequantize, quantize
from eightbit.arith.fixedpoint import Arithmetic, requantize_c, requantize_d
from eightbit.deploy.c.compiler import library
from eightbit.deploy.c.folder import kernel_header, kernels, network
from eightbit.deploy.c.rules import RULES
from eightbit.deploy.c.text import source
from eightbit.deploy.layout.refusals import NO_CODES
from eightbit.errors import EngineError, ExportError
from eightbit.integer import program as p
from eightbit.integer.lower import lower
from tests.conformance.cases import ROWS
from tests.deploy.machines import SANITIZE, check
from tests.deploy.programs import Maker, differing, random_program
from tests.integer.test_engine import operations
from tests.small_net import images, small_net

pytestmark = pytest.mark.usefixtures("cc")
FIXED = [Arithmetic.TFLITE, Arithmetic.SINGLE]
X86 = [("-O0",), ("-O1", "-mavx2"), ("-O1", "-march=native")]
FLAGS = (
    X86 if platform.machine() == "x86_64" else [("-O0",), ("-O2",)]
)  # the kernels' ways: plain, AVX2, VNNI or NEON
GRAPHS = 25  # compiled together, since a compiler takes longer to start than to read one


def test_every_operation_is_done_or_refused() -> None:
    assert set(RULES) | set(NO_CODES) == set(operations())
    assert not set(RULES) & set(NO_CODES)


@pytest.mark.parametrize(("arithmetic", "flags"), [*zip(FIXED, FLAGS, strict=False), (FIXED[0], FLAGS[-1])])
def test_every_row_of_the_conformance_table(arithmetic: Arithmetic, flags: tuple[str, ...]) -> None:
    """Each is done without a difference, or refused for a reason."""
    programs, names, refused = [], [], {}
    for row in ROWS:
        graph, _ = row.build(np.random.default_rng(zlib.crc32(row.name.encode())))
        program = lower(graph.model())
        try:
            network(program, arithmetic)
        except ExportError as cause:
            refused[row.name] = str(cause)
            continue
        programs.append(program)
        names.append(row.name)
    wrong = differing(programs, arithmetic, flags=flags)
    assert {names[i]: count for i, count in wrong.items()} == {}
    reasons = {
        "to float": "its accumulators leave as float",
        "3D": "its window has 3 axes, C has kernels for one and two",
        **dict.fromkeys(
            ("SpaceToDepth", "GlobalMaxPool"), "it computes in float"
        ),  # until `prepare` has seen it
    }
    assert all(
        any(key in name and why in text for key, why in reasons.items()) for name, text in refused.items()
    )
    assert len(programs) > 100


def _random_graphs(seeds: list[int], arithmetic: Arithmetic, flags: tuple[str, ...]) -> None:
    programs = [random_program(seed, length=1 + seed % 9) for seed in seeds]
    wrong = differing(programs, arithmetic, flags=flags)
    assert {seeds[i]: count for i, count in wrong.items()} == {}


SEEDS = st.lists(st.integers(0, 2**32 - 1), min_size=GRAPHS, max_size=GRAPHS, unique=True)


@settings(max_examples=1)
@given(SEEDS, st.sampled_from(FIXED), st.sampled_from(FLAGS))
def test_random_graphs(seeds: list[int], arithmetic: Arithmetic, flags: tuple[str, ...]) -> None:
    _random_graphs(seeds, arithmetic, flags)


@pytest.mark.slow
@settings(max_examples=500 // GRAPHS)
@given(SEEDS, st.sampled_from(FIXED), st.sampled_from(FLAGS))
def test_five_hundred_random_graphs(seeds: list[int], arithmetic: Arithmetic, flags: tuple[str, ...]) -> None:
    _random_graphs(seeds, arithmetic, flags)


def test_two_tensors_in_one_buffer_are_laid_out_apart() -> None:
    """A tensor, and its transpose of the same shape, both wanted in the order of their axes."""
    m = Maker(np.random.default_rng(0))
    x = m.input((2, 3, 4, 2))
    like = p.TensorInfo(np.float32(0.1), 3)
    taps = np.ones((3, 1, 1, 1), np.int8), np.zeros(3, np.int32), np.full(3, 0.01, np.float32)
    y = m.op(p.Conv, [x], like, *taps, (1, 1), (0, 0, 0, 0), (1, 1), 3)  # its channels lie last
    z = m.op(p.Transpose, [y], like, (3, 1, 2, 0))
    assert m.shapes[y] == m.shapes[z]
    assert differing([m.program(y, z)], Arithmetic.TFLITE) == {}


SCALE = """
#define EB_SINGLE_ROUNDING {single}
#include "eb_kernels.h"
void codes(int32_t n, const int32_t *acc, const int32_t *m, const int32_t *shift, int32_t z, int8_t *y);
void codes(int32_t n, const int32_t *acc, const int32_t *m, const int32_t *shift, int32_t z, int8_t *y) {{
    for (int32_t i = 0; i < n; i++) y[i] = eb_code(eb_scale(acc[i], m[i], shift[i]), z);
}}
"""


@pytest.mark.parametrize("zero_point", [-128, -1, 0, 127])
@pytest.mark.parametrize("arithmetic", FIXED)
def test_requantization_at_ties_and_ends(arithmetic: Arithmetic, zero_point: int) -> None:
    """Ties at ±0.5, ±1.5, ±2.5; accumulators at both ends; multipliers of 0, the smallest, the largest, above 1."""
    rng = np.random.default_rng(0)
    acc = np.concatenate(
        [np.arange(-40, 41), [-(2**31), 1 - 2**31, 2**31 - 1, 2**31 - 2], rng.integers(-(2**31), 2**31, 200)]
    )
    m = np.concatenate([[0, 2**30, 2**30 + 1, 2**31 - 1], rng.integers(2**30, 2**31, 4)])
    shift = np.array([-31, -30, -9, -2, -1, 0, 1, 2, 30])
    a, b, c = (g.ravel().astype(np.int32) for g in np.meshgrid(acc, m, shift))
    fixed = requantize_c if arithmetic is Arithmetic.TFLITE else requantize_d
    expected = fixed(a, b, c, zero_point, INT8)
    text = SCALE.format(single=int(arithmetic is Arithmetic.SINGLE))
    found = np.empty(a.shape, np.int8)
    loaded = library({"scale.c": text, **kernels()}, ["-O2"])
    loaded.codes(
        len(a),
        *(ctypes.c_void_p(x.ctypes.data) for x in (a, b, c)),
        zero_point,
        ctypes.c_void_p(found.ctypes.data),
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "scales",
    [[0.25, 2.0**-8, 0.3, 0.0071], [2.0**-22, 2.0**-24, 2.0**-27, 0.01], [2.0**-32, 2.0**-24, 0.9, 3.0]],
    ids=["usual", "small", "rare"],
)
@pytest.mark.parametrize("arithmetic", FIXED)
def test_layers_at_ties_and_ends(arithmetic: Arithmetic, scales: list[float]) -> None:
    """Sums that are the biases alone: ties at 0.5, 1.5, 2.5 codes, both ends; the vectors' requantization."""
    acc = np.concatenate([np.arange(-40, 41), 128 * np.arange(-5, 6), [2**30, -(2**30), 2**29, 1 - 2**29]])
    acc, scale = (g.ravel() for g in np.meshgrid(acc.astype(np.int32), np.float32(scales)))
    made = []
    for depthwise in (False, True):
        m = Maker(np.random.default_rng(5))
        x = m.input((1, len(acc), 1, 1) if depthwise else (1, 4))
        m.tensors[x] = p.TensorInfo(np.float32(1), 3, shape=m.shapes[x])
        like = p.TensorInfo(np.float32(1), -7)
        if depthwise:
            weight = np.zeros((len(acc), 1, 1, 1), np.int8)
            rest = (weight, acc, scale, (1, 1), (0, 0, 0, 0), (1, 1), len(acc))
            made.append(m.program(m.op(p.Conv, [x], like, *rest)))
        else:
            made.append(m.program(m.op(p.Gemm, [x], like, np.zeros((4, len(acc)), np.int8), acc, scale)))
    assert differing(made, arithmetic, flags=FLAGS[-1]) == {}


FLOATS = """
#include "eb_float.h"
void to(int32_t n, const float *x, const float *s, int32_t z, int8_t *q, float *y);
void to(int32_t n, const float *x, const float *s, int32_t z, int8_t *q, float *y) {
    eb_quantize(x, n, *s, z, q);
    eb_dequantize(q, n, *s, z, y);
}
"""


@pytest.mark.parametrize("zero_point", [-128, 3, 127])
def test_the_border_to_floats(zero_point: int) -> None:
    """NaN, the infinities, ties with even and odd zero points."""
    scale = np.float32(0.00214854861)
    halves = (np.arange(-600, 600) * np.float32(0.5)).astype(np.float32)
    x = np.concatenate([halves * scale, [np.nan, np.inf, -np.inf, 3e38, -3e38, 0.273939937]]).astype(
        np.float32
    )
    params = QuantParams(scale, np.int32(zero_point), INT8)
    q, y = np.empty(x.shape, np.int8), np.empty(x.shape, np.float32)
    loaded = library({"float.c": FLOATS, "eb_float.h": kernel_header("eb_float.h")}, ["-O2"])
    s = np.asarray(scale)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, s, q, y)]
    loaded.to(len(x), *pointers[:2], zero_point, *pointers[2:])
    np.testing.assert_array_equal(q, quantize(x, params))
    np.testing.assert_array_equal(y, dequantize(q, params))


@pytest.fixture(scope="module")
def q() -> eb.QuantizedModel:
    return eb.quantize(small_net(), images(16), eb.Recipe.plain())


Tool = Callable[[str], str]


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["-O3", "-O3 -march=native", SANITIZE])
@pytest.mark.parametrize("name", ["gcc", "clang"])
@pytest.mark.parametrize("arithmetic", ["tflite", "single"])
def test_the_self_test_passes(
    q: eb.QuantizedModel, tmp_path: Path, arithmetic: str, name: str, flags: str, tool: Tool, sanitizer: Tool
) -> None:
    written = eb.export(q, tmp_path / "net_c", arithmetic=arithmetic)
    done = check(written.path, (sanitizer if flags == SANITIZE else tool)(name), flags)
    assert done.returncode == 0, done.stderr
    assert "ok: net, 4 vectors, digest" in done.stdout


def test_the_self_test_holds_the_data_and_can_fail(
    q: eb.QuantizedModel, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    written = eb.export(q, tmp_path / "net_c", name="small", data=images(3))
    assert sorted(f.name for f in written.path.iterdir()) == sorted(
        ["Makefile", "eb_avx512.h", "eb_float.h", "eb_kernels.h", "selftest.c", "small.c", "small.h"]
    )
    done = check(written.path, tool("gcc"), "-O1")
    assert "ok: small, 3 vectors, digest" in done.stdout, done.stderr
    text = (written.path / "small.c").read_text()
    (written.path / "small.c").write_text(text.replace(".out_zero = ", ".out_zero = 1 + ", 1))
    done = check(written.path, tool("gcc"), "-O1")
    assert done.returncode != 0 and "WRONG: small" in done.stdout


def test_native_runs_what_numpy_runs(q: eb.QuantizedModel) -> None:
    x, found = images(400), {}
    for arithmetic in ("tflite", "single"):
        found[arithmetic] = q.run(x, engine="native", arithmetic=arithmetic)
        expected = q.run(x, engine="numpy", arithmetic=arithmetic)
        np.testing.assert_array_equal(found[arithmetic], expected)
    others = (found["single"], q.run(x, engine="numpy"))
    assert all(np.any(found["tflite"] != other) for other in others)  # or the arithmetic would be ignored
    np.testing.assert_array_equal(q.run(x[:3], engine="native"), found["tflite"][:3])


@pytest.mark.parametrize(
    ("engine", "arithmetic", "message"),
    [
        ("native", "onnx", "the engine 'native' has no 'onnx' arithmetic; choose 'tflite', 'single'"),
        ("onnxruntime", "tflite", "the engine 'onnxruntime' has no 'tflite' arithmetic; choose 'onnx'"),
        ("numpy", "gemmlowp", "unknown arithmetic 'gemmlowp'; choose 'onnx', 'tflite', 'single'"),
        ("c", None, "unknown engine 'c'; choose 'onnxruntime', 'numpy', 'native'"),
    ],
)
def test_engines_say_what_they_have(q: eb.QuantizedModel, engine: str, arithmetic: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        q.run(images(1), engine=engine, arithmetic=arithmetic)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(
        EngineError, match="needs a C compiler, and no cc, gcc or clang was found: install gcc or clang"
    ):
        library({"a.c": ""})
    monkeypatch.setenv("CC", "nosuchcc")
    with pytest.raises(EngineError, match="CC names 'nosuchcc', which is not there"):
        library({"a.c": ""})


def test_a_cache_that_others_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    library({"a.c": "int x;"})
    (folder,) = tmp_path.iterdir()
    folder.chmod(0o777)
    with pytest.raises(EngineError, match="can be written by others; remove it"):
        library({"a.c": "int x;"})


def test_what_c_cannot_do_is_named_at_once(q: eb.QuantizedModel, tmp_path: Path) -> None:
    dynamic = eb.quantize(small_net(), images(4), eb.Recipe(activations=eb.Activations(dynamic=True)))
    with pytest.raises(ExportError, match="quantize with calibration data") as caught:
        eb.export(dynamic, tmp_path / "c")
    assert "\n" in str(caught.value)
    floats = eb.quantize(small_net(), images(4), eb.Recipe(overrides={"body": eb.FLOAT}))
    with pytest.raises(ExportError, match=r"body.*it computes in float: leave none of its"):
        eb.export(floats, tmp_path / "c")
    with pytest.raises(
        ExportError, match="rounds in float, which C does without: choose 'tflite' or 'single'"
    ):
        eb.export(q, tmp_path / "c", arithmetic="onnx")
    with pytest.raises(ExportError, match="'2x' is no name of C"):
        eb.export(q, tmp_path / "c", name="2x")
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot make the folder"):
        eb.export(q, tmp_path / "file")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


def test_names_of_strangers_stay_names(q: eb.QuantizedModel) -> None:
    """They end no comment, join no lines, and no two become one."""
    program = random_program(3, 4)
    ops = tuple(
        p.Quantize("a", ("x*/ int y; /*",), op.outputs) if isinstance(op, p.Quantize) else op
        for op in program.ops
    )
    hostile = p.Program(("x*/ int y; /*",), program.outputs, ops, program.tensors, program.constants)
    net = network(hostile, Arithmetic.TFLITE)
    assert net.declaration.startswith("void net_run(const int8_t *x_int_y, ")
    text = source(net)
    assert all(line.count("/*") == line.count("*/") for line in text.splitlines())
    assert "\\" not in text and "??" not in text


def test_free_lengths_are_refused() -> None:
    program = random_program(3, 2)
    name = next(op.outputs[0] for op in program.ops if isinstance(op, p.Quantize))
    info = program.tensors[name]
    free = p.TensorInfo(info.scale, info.zero_point, shape=(None, None, *info.shape[2:]))
    with pytest.raises(
        ExportError, match=r"input 'x0' has shape .*None, None.*load the model with those fixed"
    ):
        network(
            p.Program(
                program.inputs,
                program.outputs,
                program.ops,
                {**program.tensors, name: free},
                program.constants,
            ),
            Arithmetic.TFLITE,
        )
