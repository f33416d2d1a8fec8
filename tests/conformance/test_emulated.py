"""The same integers on an x86 processor without VNNI, which QEMU emulates: its kernels saturate pairs of products."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EMULATOR = os.environ.get("EIGHTBIT_EMULATOR", "")
SECONDS = 1500


@pytest.mark.slow
def test_no_integer_differs_on_a_processor_that_saturates():
    if platform.machine() != "x86_64":
        pytest.skip(f"the emulated processor is x86_64, this one {platform.machine()}")
    if not EMULATOR:
        # CI installs the emulator (scripts/emulator.sh): there its absence is a failure.
        assert "CI" not in os.environ, (
            "no QEMU user emulator of version 7.2 or later; see scripts/emulator.sh"
        )
        pytest.skip(
            "no QEMU user emulator: run `make test`, or set EIGHTBIT_EMULATOR (Debian: apt install qemu-user)"
        )
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "1"}
    command = [EMULATOR, "-cpu", "Haswell", sys.executable, "-m", "tests.conformance.emulated"]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["saturates"]
    assert found["default session differs"], "no row holds weights that a session of its own accord saturates"
    assert found["differing"] == {}
    assert found["integers"] > 10_000
