"""What holds for every test; tools that only some machines have: tests skip without them, but fail where CI is set."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from eightbit.deploy.c.compiler import compiler
from eightbit.deploy.engines import Engine, package
from eightbit.errors import EngineError, MissingExtra
from eightbit.graph.processor import VARIABLE
from tests import tools

# A busy machine makes a test slow, not wrong: hypothesis measures neither examples nor how long drawing them takes.
settings.register_profile("eightbit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("eightbit")
# Files are made for one processor, whatever machine makes them; sessions are exact on each.
os.environ.setdefault(VARIABLE, "x86-vnni")

NO_EMULATOR = (
    "no QEMU user emulator 7.2 or later: install one (Debian: apt install qemu-user) to test as a processor "
    "without VNNI"
)
NO_AARCH64 = (
    "no AArch64 Python and NumPy: set EIGHTBIT_AARCH64 to what scripts/aarch64.sh prints, which needs qemu-user, "
    "apt-get and the network"
)
Tool = Callable[[str], str]


@pytest.fixture(scope="session")
def tool() -> Tool:
    """A function that gives the path of a program by its name."""
    return tools.program


@pytest.fixture(scope="session")
def sanitizer(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """A function that gives the path of a C compiler whose sanitizers are there, too: Debian ships clang without."""
    place = tmp_path_factory.mktemp("sanitizer")
    (place / "a.c").write_text("int main(void) { return 0; }")

    def find(name: str) -> str:
        command = [tool(name), "-fsanitize=address,undefined", "a.c"]
        if subprocess.run(command, cwd=place, capture_output=True, check=False).returncode:
            tools.without(
                f"{name} has no sanitizers (Debian: apt install libclang-rt-dev, or libgcc-VERSION-dev)"
            )
        return tool(name)

    return find


@pytest.fixture(scope="session")
def cc() -> str:
    """The path of the compiler that the engine `native` uses."""
    try:
        return compiler()
    except EngineError as cause:
        return tools.without(str(cause))


@pytest.fixture(scope="session")
def engine() -> Callable[[str], Engine]:
    """A function that gives an engine by its name, where what it needs is installed."""
    return tools.engine


@pytest.fixture(scope="session")
def ray_serve() -> None:
    """Nothing, where Ray Serve is installed."""
    try:
        package("ray", "serve")()
    except MissingExtra as cause:
        tools.without(str(cause))


@pytest.fixture(scope="session")
def emulator() -> str:
    """Path of the emulator; `make test` installs one where it can, and a continuous-integration machine must."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip(f"QEMU runs a Python of x86-64 Linux; this one is {sys.platform} on {platform.machine()}")
    names = ("qemu-x86_64", "qemu-x86_64-static")
    found = os.environ.get("EIGHTBIT_EMULATOR") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        return tools.without(NO_EMULATOR)
    return found


@pytest.fixture(scope="session")
def aarch64() -> Path:
    """The root folder of an AArch64 Python with NumPy; `make test` fetches one where it can."""
    root = Path(os.environ.get("EIGHTBIT_AARCH64") or "absent")
    if not root.is_dir():
        tools.without(NO_AARCH64)
    return root
