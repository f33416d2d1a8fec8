"""The C of four networks of MLPerf Tiny's kinds: integers, arena, bytes and time.

    python -m benchmarks.run deployment

Integers are held against the NumPy engine's over 200 inputs, here and on emulated processors, in both roundings. The
arena is held against the most bytes alive in one step, code against the weights that any program would need. Times are
one thread's, beside ONNX Runtime's on the same int8 model; `tflite` has the rows beside LiteRT and TFLite Micro, and
those of EfficientNet-Lite0, `openvino` the larger networks in OpenVINO, `lint` what it predicts.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

import eightbit as eb
from benchmarks import lint, openvino, tflite
from benchmarks.figure import Figure
from eightbit.arith.fixedpoint import FIXED_POINT, Arithmetic
from eightbit.deploy.c.folder import network
from eightbit.deploy.c.native import compiled
from eightbit.deploy.sessions import OnnxRuntime
from eightbit.integer.program import Conv, Gemm
from eightbit.report.timing import interleaved
from tests.deploy.checkers import CHECKERS, DEVIATIONS, findings
from tests.deploy.machines import MACHINES, SANITIZE, Machine, check
from tests.deploy.networks import NETWORKS, Case, case
from tests.deploy.programs import differing as differing_programs
from tests.deploy.programs import random_program

INPUTS, LARGE_INPUTS = 200, 20
PROGRAMS, TOGETHER = 500, 25
MAX_ARENA = {"resnet8": 0.75, "mobilenet": 0.75, "autoencoder": 1.0, "ds_cnn": 0.8}
MAX_BESIDE = {"resnet8": 8_000, "mobilenet": 27_000, "autoencoder": 18_500, "ds_cnn": 8_500}
MAX_TIME = {"resnet8": 0.75, "mobilenet": 1.0, "autoencoder": 0.4, "ds_cnn": 0.75}
ARM = ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-Os", "-std=c99", "-c")


def figures() -> Iterator[Figure]:
    """Per network: differing integers here, self-tests elsewhere, arena, bytes beside the weights, rules, time."""
    for name in NETWORKS:
        made = case(name)
        with tempfile.TemporaryDirectory() as folder:
            yield differing(name, made)
            yield from elsewhere(name, made, Path(folder))
            written = eb.export(made.q, folder)
            yield sanitized(name, written.path)
            arena = written.arena
            detail = f"{arena.size:,} bytes; {arena.most_live:,} alive in one step"
            share = arena.size / arena.most_live
            yield Figure(f"{name} in C: arena / most bytes alive", share, MAX_ARENA[name], "x", detail)
            yield from beside_the_weights(name, made, written.path)
            yield from rules(name, written.path)
            yield from tflite.rows(name, made, INPUTS, Path(folder, "size"))
        yield time(name, made)
    yield random_programs()
    with tempfile.TemporaryDirectory() as folder:
        yield from tflite.rows("lite0", case("lite0"), LARGE_INPUTS, Path(folder))
    yield from tflite.islands()
    yield from openvino.rows()
    yield from lint.rows()


def differing(name: str, made: Case) -> Figure:
    """Output integers that differ from the NumPy engine's."""
    x, wrong, compared = made.inputs(INPUTS), 0, 0
    for arithmetic in FIXED_POINT:
        expected = made.q.run(x, engine="numpy", arithmetic=arithmetic)
        wrong += int(np.count_nonzero(made.q.run(x, engine="native", arithmetic=arithmetic) != expected))
        compared += expected.size
    return Figure(
        f"{name} in C: differing integers", wrong, 0, "", f"of {compared:,}, {INPUTS} inputs, both roundings"
    )


def random_programs() -> Figure:
    """Output integers of random small graphs in C that are not the NumPy engine's."""
    wrong = 0
    for begin in range(0, PROGRAMS, TOGETHER):
        programs = [random_program(seed, 1 + seed % 9) for seed in range(begin, begin + TOGETHER)]
        wrong += sum(sum(differing_programs(programs, a).values()) for a in FIXED_POINT)
    detail = f"{PROGRAMS} of 1 to 9 operations, two inputs each, both roundings"
    return Figure("random graphs in C: differing integers", wrong, 0, "", detail)


def sanitized(name: str, folder: Path) -> Figure:
    """Compilers here whose self-test warns, fails, or does what C leaves undefined."""
    there = [cc for cc in ("gcc", "clang") if shutil.which(cc)]
    failed = [cc for cc in there if check(folder, cc, SANITIZE).returncode]
    detail = (
        f"{', '.join(there) or 'none is installed'}; warnings are errors; address and undefined sanitizers"
    )
    return Figure(f"{name} in C: compilers whose self-test fails", len(failed), 0, "", detail)


def elsewhere(name: str, made: Case, folder: Path) -> Iterator[Figure]:
    """Machines on which a self-test of all inputs fails, among those whose compiler and emulator are installed."""
    there = [m for m in MACHINES if shutil.which(m.compiler[0]) and shutil.which(m.emulator[0])]
    if not there:
        return
    failed, digests = [], []
    for arithmetic in FIXED_POINT:
        written = eb.export(
            made.q, folder / arithmetic.value, arithmetic=arithmetic, data=made.inputs(INPUTS)
        )
        found = {machine.name: digest(machine, written.path) for machine in there}
        failed += [machine for machine, seen in found.items() if not seen]
        digests += [f"{arithmetic.value} {', '.join(sorted(set(found.values())))}"]
    detail = f"{', '.join(m.name for m in there)}; {INPUTS} inputs; digests: {'; '.join(digests)}"
    missing = [m.name for m in MACHINES if m not in there]
    detail += f"; no tools for {', '.join(missing)}" if missing else ""
    yield Figure(f"{name} in C: machines whose self-test fails", len(failed), 0, "", detail)


def digest(machine: Machine, folder: Path) -> str:
    """The digest that the self-test prints there; empty if it fails."""
    try:
        printed = machine.selftest(folder, str)
    except AssertionError:
        return ""
    found = re.match(r"ok: net, \d+ vectors, digest (\w+)", printed)
    return found[1] if found else ""


def beside_the_weights(name: str, made: Case, folder: Path) -> Iterator[Figure]:
    """What the linker counts for a Cortex-M4, code and constants, less the weights themselves."""
    if shutil.which(ARM[0]) is None:
        return
    subprocess.run([*ARM, "net.c"], cwd=folder, check=True)
    sized = subprocess.run(
        ["arm-none-eabi-size", "net.o"], cwd=folder, check=True, capture_output=True, text=True
    )
    text = int(sized.stdout.splitlines()[1].split()[0])
    weights = sum(op.weight.size for op in made.q.program.ops if isinstance(op, Conv | Gemm))
    detail = f"{text:,} bytes for a Cortex-M4 with -Os, {weights:,} of them weights"
    yield Figure(f"{name} in C: bytes beside the weights", text - weights, MAX_BESIDE[name], "", detail)


def rules(name: str, folder: Path) -> Iterator[Figure]:
    """Places where MISRA C:2012 (cppcheck) or clang-tidy find fault, but for the deviations that are listed."""
    there = [checker for checker in CHECKERS if shutil.which(checker)]
    found = {rule: at for checker in there for rule, at in findings(checker, folder, str).items()}
    detail = f"{', '.join(there)}; {len(DEVIATIONS)} deviations with reasons {found or ''}"
    if there:
        yield Figure(f"{name} in C: rules broken", len(found), 0, "", detail)


def time(name: str, made: Case) -> Figure:
    """One inference, one thread, beside ONNX Runtime's."""
    net = network(made.q.program, Arithmetic.TFLITE)
    codes = [np.zeros(port.shape, np.int8) for port in (*net.plan.inputs, *net.plan.outputs)]
    in_c = partial(compiled(net), *(ctypes.c_void_p(a.ctypes.data) for a in codes))
    feeds = {made.q.inputs[0].name: made.inputs(1)}
    in_runtime = partial(OnnxRuntime(made.q.ir, threads=1).run, feeds)
    (ours, theirs), rounds = interleaved([in_c, in_runtime], rounds=300, seconds=10, burst=10)
    detail = f"{1e3 * ours:.3f} / {1e3 * theirs:.3f} ms, {rounds} rounds"
    return Figure(f"{name}: C / ONNX Runtime, int8, one thread", ours / theirs, MAX_TIME[name], "x", detail)
