"""ONNX Runtime's AVX2 kernels on a processor that has VNNI, to time them at the speed of the machine.

ONNX Runtime asks the processor what it has, and no setting tells it otherwise. An emulator can (the tests use one for
the integers), but its clock says nothing. So a copy of the library is made in which each CPUID instruction is an
invalid one of the same length, and a handler of that fault answers in its place, without AVX-512, VNNI and AMX.
Everything else runs as it is. A machine whose kernels saturate needs none of this.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import onnxruntime

from eightbit.graph.processor import pairs_saturate

SOURCE = Path(__file__).with_suffix(".c")
TOOLS = ("cc", "objdump", "readelf")
CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"


def missing_tools() -> str:
    """What is needed and not there for `environment`, or nothing."""
    if pairs_saturate():
        return ""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "an x86-64 processor under Linux"
    return ", ".join(tool for tool in TOOLS if shutil.which(tool) is None)


def environment(folder: Path) -> dict[str, str]:
    """The variables with which a Python runs ONNX Runtime's kernels for AVX2; what they need is made in `folder`."""
    if pairs_saturate():
        return dict(os.environ)
    handler = folder / "answers.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", handler, SOURCE], check=True)
    site = folder / "site"
    without = shutil.ignore_patterns("tools", "transformers")
    shutil.copytree(Path(onnxruntime.__file__).parent, site / "onnxruntime", ignore=without)
    changed = sum(_ask_nobody(library) for library in site.rglob("*.so*"))
    if not changed:
        raise RuntimeError("no CPUID instruction in ONNX Runtime's libraries: they ask in another way by now")
    (site / "sitecustomize.py").write_text(f"import ctypes\n\nctypes.CDLL({str(handler)!r})\n")
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _ask_nobody(library: Path) -> int:
    """Make each CPUID of a library an invalid instruction; returns how many there were."""
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", library], capture_output=True, text=True, check=True
    )
    addresses = [int(found, 16) for found in re.findall(r"^\s*([0-9a-f]+):\s+cpuid", listing.stdout, re.M)]
    headers = subprocess.run(["readelf", "-lW", library], capture_output=True, text=True, check=True)
    loaded = [line.split()[1:5] for line in headers.stdout.splitlines() if line.strip().startswith("LOAD")]
    segments = [tuple(int(number, 16) for number in numbers) for numbers in loaded]
    content = bytearray(library.read_bytes())
    for address in addresses:
        at = next(
            offset + address - start for offset, start, _, size in segments if start <= address < start + size
        )
        assert content[at : at + 2] == CPUID, f"{library.name}: {address:#x} is no CPUID"
        content[at : at + 2] = UD2
    if addresses:
        library.write_bytes(content)
    return len(addresses)
