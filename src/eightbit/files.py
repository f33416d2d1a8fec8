"""A file appears whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from eightbit.errors import ExportError


def write_whole(data: bytes, path: str | os.PathLike[str]) -> Path:
    """Write `data` to `path` through a temporary file in the same folder. Raises ExportError."""
    target = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; this one is an ordinary output
        os.replace(temporary, target)
    except BaseException as cause:  # Ctrl-C too must not leave the temporary file behind
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        if not isinstance(cause, OSError):
            raise
        raise ExportError(
            f"cannot write {target}: {cause.strerror or cause}; choose a writable place"
        ) from cause
    return target
