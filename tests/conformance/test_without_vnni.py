"""The conformance table on a processor whose fast kernels saturate, whatever this machine's do: QEMU runs it as one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NO_EMULATOR

ROOT = Path(__file__).parents[2]
# One row for each kernel that multiplies uint8 by int8 in pairs, and networks; depthwise kernels add in 32 bits.
MUST_SATURATE = {
    *("conv 3x3", "conv 1x1", "conv grouped", "conv one axis", "gemm", "gemm to float", "matmul constant"),
    *("matmul to float per column", "network, default", "attention, static", "attention, dynamic"),
}


@pytest.mark.slow
@pytest.mark.emulator
def test_no_integer_differs_on_a_processor_without_vnni(emulator: str):
    """Haswell has AVX2 and no VNNI. Without what this package asks of ONNX Runtime, the same graphs come out wrong."""
    command = [emulator, "-cpu", "Haswell", sys.executable, "-m", "tests.conformance.emulated"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["saturates"], f"this emulator has no AVX2; {NO_EMULATOR}"
    assert report["differing"] == {}
    assert report["integers"] > 2_500_000
    assert set(report["default session differs"]) >= MUST_SATURATE
    assert not [name for name in report["default session differs"] if name.endswith("in pairs")]
