"""The C of whole networks on other processors, emulated: the integers of the NumPy engine, on each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import eightbit as eb
from tests.deploy.machines import MACHINES, Machine
from tests.deploy.networks import NETWORKS, case

pytestmark = [pytest.mark.slow, pytest.mark.emulator]
INPUTS = 10


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_self_test_passes_there(
    name: str, machine: Machine, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """Both roundings, compiled without a warning and run to the end."""
    made = case(name)
    for arithmetic in ("tflite", "single"):
        folder = eb.export(
            made.q, tmp_path / arithmetic, arithmetic=arithmetic, data=made.inputs(INPUTS)
        ).path
        assert machine.selftest(folder, tool).startswith(f"ok: net, {INPUTS} vectors, digest ")
