"""Tools that only some machines have: what asks for one skips without it, but fails where CI is set."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from eightbit.deploy.engines import ENGINES, Engine

PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "riscv64-linux-gnu-gcc": "gcc-riscv64-linux-gnu libc6-dev-riscv64-cross",
    "qemu-system-arm": "qemu-system-arm",
    **dict.fromkeys(("qemu-aarch64", "qemu-riscv64", "qemu-x86_64"), "qemu-user"),
}
"""What Debian calls what holds a program; others are called as they are."""


def need(name: str) -> None:
    """An engine or a program, by its name."""
    (engine if name in ENGINES else program)(name)


def program(name: str) -> str:
    """The path of a program."""
    found = shutil.which(name)
    if found is None:
        without(f"no {name} (Debian: apt install {PACKAGES.get(name, name)})")
    return str(found)


def engine(name: str) -> Engine:
    """The engine called so, where what it needs is installed."""
    found = ENGINES[name]
    if name == "tflm" and sys.version_info >= (3, 12):
        pytest.skip("TFLite Micro has wheels for Python 3.11 alone")
    if found.missing is not None:
        without(str(found.missing))
    return found


def without(reason: str) -> str:
    """Skips the test that is running, or fails it where CI is set."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return ""
