"""How C is compiled and run: for this machine, strictly, and for other processors, which are emulated."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BOARD = Path(__file__).with_name("mps2")
SANITIZE = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
STRICT = ("-O2", "-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror")
NEWLIB = (
    "--specs=rdimon.specs",
    "-mthumb",
    "-mfloat-abi=soft",
    f"-T{BOARD / 'mps2.ld'}",
    str(BOARD / "start.c"),
)
QUIET = ("-nographic", "-monitor", "none", "-serial", "none", "-semihosting", "-kernel")


def check(folder: Path, cc: str, flags: str) -> subprocess.CompletedProcess[str]:
    """`make check` with a compiler; the folder's own Makefile makes warnings errors."""
    command = ["make", "-C", str(folder), "clean", "check", f"CC={cc}", f"CFLAGS={flags}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Machine:
    """`emulator` is followed by the path of the program."""

    name: str
    compiler: tuple[str, ...]
    emulator: tuple[str, ...]

    def selftest(self, folder: Path, tool: Callable[[str], str]) -> str:
        """Compiles the network of `folder` with its self-test, and gives what that prints. Its status must be 0."""
        program = folder / f"selftest-{self.name}"
        sources = [str(path) for path in folder.glob("*.c")]
        tool(self.emulator[0])
        for command in (
            (tool(self.compiler[0]), *self.compiler[1:], *STRICT, "-o", str(program), *sources),
            (*self.emulator, str(program)),
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _board(number: str, core: str) -> Machine:
    """Arm's MPS2 board, without an operating system."""
    compiler = ("arm-none-eabi-gcc", f"-mcpu={core}", *NEWLIB)
    return Machine(core, compiler, ("qemu-system-arm", "-M", f"mps2-{number}", *QUIET))


MACHINES = (
    _board("an385", "cortex-m3"),
    _board("an386", "cortex-m4"),
    Machine("aarch64", ("aarch64-linux-gnu-gcc", "-static"), ("qemu-aarch64",)),
    Machine(
        "aarch64-dotprod", ("aarch64-linux-gnu-gcc", "-static", "-march=armv8.2-a+dotprod"), ("qemu-aarch64",)
    ),
    Machine("riscv64", ("riscv64-linux-gnu-gcc", "-static"), ("qemu-riscv64",)),
)
