"""What the processor's flags say, and what sessions ask for because of it."""

from pathlib import Path

import pytest

from eightbit.graph import run
from eightbit.graph.processor import cpu_flags, pairs_saturate


def test_flags_are_read_from_the_system(tmp_path: Path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n")
    assert cpu_flags(str(tmp_path / "cpuinfo")) == {"fpu", "avx2", "avx_vnni"}
    assert cpu_flags(str(tmp_path / "absent")) == frozenset()


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        ({"avx2"}, True),
        ({"avx2", "avx_vnni"}, False),
        ({"avx2", "avx512_vnni"}, False),
        (set(), False),  # no x86 that we know of
    ],
)
def test_pairs_saturate_on_avx2_without_vnni(flags: set[str], saturates: bool):
    assert pairs_saturate(frozenset(flags)) is saturates


@pytest.mark.parametrize("flags", [{"avx2"}, {"avx2", "avx512_vnni"}])
def test_sessions_ask_for_exact_kernels_only_where_the_fast_ones_saturate(
    flags: set[str], monkeypatch: pytest.MonkeyPatch
):
    """The slower kernels took 0.7 of the float time in place of 0.3 on a processor with VNNI."""
    monkeypatch.setattr(run, "cpu_flags", lambda: frozenset(flags))
    options = run.session_options()
    name, value = run.EXACT_PAIRS
    if pairs_saturate(frozenset(flags)):
        assert options.get_session_config_entry(name) == value
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(name)
