"""The NumPy engine gives the same integers on an AArch64 processor as here: QEMU runs Python and NumPy as one."""

from __future__ import annotations

import json
import pickle
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import eightbit as eb
from eightbit.integer.lower import lower
from eightbit.integer.program import FloatIsland
from tests.conformance.cases import ROWS
from tests.conformance.engine_digests import Programs, digests
from tests.deploy.networks import case
from tests.small_net import images, small_net

ROOT = Path(__file__).parents[2]


def programs() -> Programs:
    """The conformance table and two networks, as far as no part of them is float, which NumPy alone does not run."""
    found = {}
    for row in ROWS:
        graph, feeds = row.build(np.random.default_rng(zlib.crc32(row.name.encode())))
        found[row.name] = (lower(graph.model()), feeds)
    found["small net"] = (eb.quantize(small_net(), images(16)).program, {"image": images(8)})
    made = case("ds_cnn")
    found["ds_cnn"] = (made.q.program, {made.q.inputs[0].name: made.inputs(2)})
    return {
        name: pair
        for name, pair in found.items()
        if not any(isinstance(op, FloatIsland) for op in pair[0].ops)
    }


@pytest.mark.slow
@pytest.mark.emulator
def test_the_same_digests_on_aarch64(tmp_path: Path, aarch64: Path, tool: Callable[[str], str]) -> None:
    here = programs()
    assert len(here) > 100
    (tmp_path / "programs").write_bytes(pickle.dumps(here))
    libraries = ":".join(
        str(aarch64 / place) for place in ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")
    )
    environment = {
        "LD_LIBRARY_PATH": libraries,
        "PYTHONHOME": str(aarch64 / "usr"),
        "PYTHONPATH": f"{aarch64 / 'site'}:{ROOT / 'src'}:{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    settings = [word for name, value in environment.items() for word in ("-E", f"{name}={value}")]
    command = [tool("qemu-aarch64"), "-L", str(aarch64), *settings, str(aarch64 / "usr/bin/python3")]
    command += ["-m", "tests.conformance.engine_digests", str(tmp_path / "programs")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    machine, there = json.loads(done.stdout)
    assert machine == "aarch64"
    assert there == digests(here)
