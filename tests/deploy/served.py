"""The server of `examples/serving`, started on this machine, and loaded."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

EXAMPLE = Path(__file__).parents[2] / "examples/serving"


@dataclass(frozen=True)
class Served:
    """A server that is ready at `place`, an address without path."""

    place: str
    process: subprocess.Popen[str]

    def url(self, name: str) -> str:
        """The address of a model."""
        return f"{self.place}/v2/models/{name}"

    def load(self, name: str, arrays: Mapping[str, np.ndarray], *options: object) -> dict[str, Any]:
        """What `load.py` counts, with `options` of its command line."""
        with tempfile.TemporaryDirectory() as folder:
            answers = Path(folder, "answers.npz")
            np.savez(answers, **arrays)
            words = [sys.executable, EXAMPLE / "load.py", self.url(name), answers, *options]
            done = subprocess.run([*map(str, words)], check=True, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def processes(self) -> list[psutil.Process]:
        """All that the server has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def replicas(self, name: str) -> list[psutil.Process]:
        """The processes that run the model."""
        return [p for p in self.processes() if p.name().startswith("ray::") and f":{name}:" in p.cmdline()[0]]

    def stop(self) -> int:
        """Ask it to end, and wait; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


@contextmanager
def serving(files: list[Path], *options: object) -> Iterator[Served]:
    """The server of `files`, ready; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, EXAMPLE / "app.py", *files, "--port", port, *options]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        with process:
            try:
                if not any(line.startswith("ready") for line in iter(process.stdout.readline, "")):
                    errors.seek(0)
                    raise AssertionError(f"the server ended: {errors.read()}")
                yield Served(f"http://127.0.0.1:{port}", process)
            finally:
                if process.poll() is None:
                    process.terminate()
                process.wait()
