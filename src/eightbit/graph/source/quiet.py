"""Exporters print progress, deprecation notes and CUDA complaints; a loader should not."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Drop prints, warnings and log records while the block runs; exceptions pass through.

    File descriptors 1 and 2 are redirected too: TensorFlow's C++ code does not ask Python.
    Process-wide, as these streams are: do not use it from several threads at once.
    """
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryFile(mode="w+b") as sink,
        open(os.devnull, "w") as null,
        contextlib.redirect_stdout(null),
        contextlib.redirect_stderr(null),
    ):
        warnings.simplefilter("ignore")
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.flush()
        saved = [(fd, os.dup(fd)) for fd in (1, 2)]
        try:
            logging.disable(logging.CRITICAL)
            for fd, _ in saved:
                os.dup2(sink.fileno(), fd)
            yield
        finally:
            logging.disable(disabled)
            for fd, copy in saved:
                os.dup2(copy, fd)
                os.close(copy)
