"""C compiled for this machine and loaded: with the C compiler that is there, once for each text."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import blake2s
from pathlib import Path

from eightbit.errors import EngineError
from eightbit.files import ended_in_order

FLAGS = ("-O3", "-std=c99", "-fPIC", "-shared")
NATIVE = {
    "x86_64": "-march=native",
    "AMD64": "-march=native",
    "aarch64": "-mcpu=native",
    "arm64": "-mcpu=native",
}
"""What lets a compiler use all instructions of the machine it runs on."""


def compiler() -> str:
    """The path of the C compiler: `CC` if that is set, else cc, gcc or clang. Raises EngineError if there is none."""
    chosen = os.environ.get("CC")
    for name in (chosen,) if chosen else ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found:
            return found
    reason = f"CC names {chosen!r}, which is not there" if chosen else "no cc, gcc or clang was found"
    raise EngineError(
        f"the engine 'native' needs a C compiler, and {reason}: install gcc or clang, or set CC to one"
    )


def library(files: Mapping[str, str], flags: Sequence[str] | None = None) -> ctypes.CDLL:
    """The sources among `files` (name: text) as one shared library, from the cache if it was made before.

    `flags` default to optimization for this very machine. Raises EngineError with the compiler's first complaint.
    """
    cc = compiler()
    native = NATIVE.get(platform.machine())
    chosen = (*FLAGS, *([native] if native else [])) if flags is None else (*FLAGS[1:], *flags)
    target = _run(
        [cc, *chosen, "-dM", "-E", "-x", "c", os.devnull]
    )  # the compiler's version and instructions
    text = "\0".join([cc, *chosen, target, *(f"{name}\0{files[name]}" for name in sorted(files))])
    place = _cache() / f"{blake2s(text.encode(), digest_size=16).hexdigest()}.so"
    if not place.exists():
        with ended_in_order(), tempfile.TemporaryDirectory(dir=place.parent) as folder:
            for name, content in files.items():
                Path(folder, name).write_text(content)
            sources = [name for name in files if name.endswith(".c")]
            _run([cc, *chosen, "-o", "made.so", *sources], folder)
            os.replace(Path(folder, "made.so"), place)
    return ctypes.CDLL(str(place))


def _cache() -> Path:
    """A folder below the temporary one that nobody else can write to: what lies there is loaded and run."""
    folder = Path(tempfile.gettempdir(), f"eightbit-native-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise EngineError(
            f"{folder} can be written by others; remove it, or set TMPDIR to a folder of your own"
        )
    return folder


def _run(command: Sequence[str], folder: str | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise EngineError(
            f"{command[0]} could not compile the network: {(errors or ['it did not say why'])[0]}"
        )
    return done.stdout
