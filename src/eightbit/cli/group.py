"""The group of all commands: whatever one of them raises becomes a line and an exit status."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Any

import click

import eightbit
from eightbit.errors import EightbitError, printable

TRACEBACK = "EIGHTBIT_TRACEBACK"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Commands(click.Group):
    """Turns whatever a command raises into one line and an exit status."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except OSError as cause:  # click prints help and version before a command is invoked
            _fail(_defect(cause), cause)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EightbitError as cause:
            _fail(str(cause), cause)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError, KeyboardInterrupt):
            raise  # click has its own words and statuses for these
        except MemoryError as cause:
            _fail("out of memory", cause)
        except Exception as cause:
            _fail(_defect(cause), cause)


def _fail(reason: str, cause: BaseException) -> None:
    if os.environ.get(TRACEBACK):
        raise cause
    line = printable(" ".join(reason.split()))
    with suppress(OSError):
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {line}", err=True)
    sys.exit(1)


def _defect(cause: Exception) -> str:
    """What to say of an exception that is not ours: standard output or the temporary folder is full, or a defect."""
    if isinstance(cause, OSError) and cause.errno in NO_ROOM:
        return f"cannot write any more: {cause.strerror}; make room, or send the output elsewhere"
    return f"unexpected {type(cause).__name__}: {cause} (a defect; {TRACEBACK}=1 shows where)"


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(eightbit.__version__, package_name="eightbit")
def main() -> None:
    """Int8 neural networks: quantize, run, compare, inspect and time ONNX files.

    Data are .npz files whose keys are the model's input names, with labels under `labels`; or folders of pictures for
    models with one input. Pictures in folders of their class are labelled by the place of the folder's name among the
    sorted ones.
    """
