"""What the machine's kernels do to pairs of products, and what sessions ask for because of it."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import eightbit as eb
from eightbit.deploy import sessions
from eightbit.graph import processor, run
from eightbit.graph.processor import (
    Processor,
    pairs_saturate,
    processor_features,
    processor_name,
    this_processor,
    would_saturate,
)
from tests.graph.graphs import parse
from tests.small_net import images, small_net


def test_the_answer_is_that_of_a_larger_product():
    """By another road: 3 x 64 times 64 x 33, all at the extremes, in a session that asks for nothing."""
    x, w = np.full((3, 64), 255, np.uint8), np.full((64, 33), 127, np.int8)
    model = parse("g (uint8[3,64] x) => (int32[3,33] y) { y = MatMulInteger (x, w) }", w=w)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    assert bool((found != x.astype(np.int32) @ w).any()) is pairs_saturate()


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        ({"avx2"}, True),
        ({"avx2", "avx512f"}, True),
        ({"avx2", "avx_vnni"}, False),
        ({"avx2", "avx512_vnni"}, False),
        ({"sse4_1", "avx"}, False),  # adds in 32 bits
        (set(), False),  # no x86 that we know of
    ],
)
def test_pairs_saturate_on_avx2_without_vnni(flags: set[str], saturates: bool):
    assert would_saturate(frozenset(flags)) is saturates


def test_the_variable_names_the_processor_and_an_unknown_one_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EIGHTBIT_PROCESSOR", "x86-avx2")
    assert this_processor() == "x86-avx2"
    monkeypatch.delenv("EIGHTBIT_PROCESSOR")
    monkeypatch.setattr(processor, "pairs_saturate", lambda: True)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert this_processor() == "x86-avx2"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert this_processor() == "arm"
    monkeypatch.setenv("EIGHTBIT_PROCESSOR", "x86")
    with pytest.raises(eb.QuantizationError, match="EIGHTBIT_PROCESSOR is 'x86'; choose one of 'any'"):
        eb.Recipe().settled(False)
    with pytest.raises(eb.QuantizationError, match="processor='x86'"):
        eb.Recipe(processor="x86")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "made_for", "exact", "warned"),
    [
        ("x86-avx2", "x86-vnni", True, True),
        ("x86-vnni", "x86-vnni", True, False),
        ("x86-avx2", "any", False, False),
    ],
)
def test_sessions_are_fast_where_the_weights_prove_it_and_else_say_why_not(
    said: str, made_for: Processor, exact: bool, warned: bool, monkeypatch: pytest.MonkeyPatch
):
    q = eb.quantize(small_net(), images(8), eb.Recipe(processor=made_for))
    monkeypatch.setenv("EIGHTBIT_PROCESSOR", said)
    for module in (run, sessions):
        monkeypatch.setattr(module, "pairs_saturate", lambda: True)
    made: list[bool] = []
    given = run.session_options
    monkeypatch.setattr(
        run,
        "session_options",
        lambda threads, *, proven: made.append(proven) or given(threads, proven=proven),
    )
    with pytest.warns(UserWarning, match="x86-avx2") if warned else nullcontext():
        sessions.OnnxRuntime(q.ir)
    assert made == [not exact]


@pytest.mark.parametrize("saturates", [True, False])
def test_sessions_ask_for_exact_kernels_only_where_the_fast_ones_saturate(
    saturates: bool, monkeypatch: pytest.MonkeyPatch
):
    """The slower kernels took 0.7 of the float time in place of 0.3 on a processor with VNNI."""
    monkeypatch.setattr(run, "pairs_saturate", lambda: saturates)
    options = run.session_options()
    name, value = run.EXACT_PAIRS
    if saturates:
        assert options.get_session_config_entry(name) == value
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(name)


@pytest.mark.parametrize(
    ("cpuinfo", "name", "features"),
    [
        (
            "model name\t: Fast\nflags\t\t: avx2 avx512_vnni\n\nmodel name: other",
            "Fast",
            ("AVX2", "AVX-512 VNNI"),
        ),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp", None, ("NEON", "dot products")),
        (None, None, ()),
    ],
)
def test_the_processor_is_named_as_the_system_names_it(
    cpuinfo: str | None,
    name: str | None,
    features: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert processor_name() == (name or "riscv64")
    assert processor_features() == features
