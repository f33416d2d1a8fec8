"""A file appears whole or not at all, and stays the kind of file that it was.

The bytes go to a `.part` file beside the target, which then takes the target's name: whoever reads sees the old file
or the new one. A symbolic link is written through to the file that it points to, a file keeps its mode and its owner,
and what is no file (a device, a pipe) is written into and not replaced.

A `.part` is removed when the writing fails or the process is told to end. One that a killed process left behind is
removed by the next write to the same target; its maker holds a lock on it for as long as it lives, so that processes
and threads that write one target at the same time do not touch each other's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2s
from pathlib import Path
from types import FrameType
from typing import IO

from eightbit.errors import ExportError

ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a process to end, and that Python does not turn into exceptions by itself."""


def write_whole(data: bytes, path: str | os.PathLike[str]) -> Path:
    """Write `data` to `path`; the file appears whole or not at all. Raises ExportError."""
    with whole_file(path) as file:
        file.write(data)
    return Path(path)


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise the ExportError of a place that cannot be written, before there is something to write."""
    with _as_export_error(path):
        if _standing(path) is None:
            folder = Path(os.path.realpath(path)).parent
            if not folder.is_dir():
                raise FileNotFoundError(errno.ENOENT, f"there is no directory {folder}")
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, f"the directory {folder} is not writable")


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file to write, which takes the name `path` when the block ends without an exception.

    Raises ExportError where the place cannot be written. Nothing is written if the block raises, which passes through.
    """
    with _as_export_error(path):
        found = _standing(path)
        target = Path(os.path.realpath(path))
    if found is not None and not _is_file(found, target):
        with _as_export_error(path), open(path, "wb") as file:
            yield file
        return
    with _as_export_error(path), ended_in_order():
        _remove_stale(target)
        with _locked(target) as (part, file):
            yield file
            file.flush()
            if found is not None:
                _keep(file.fileno(), found)
            os.fsync(file.fileno())  # or the name may reach the disk before the bytes do
            os.replace(part, target)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block as Ctrl-C does, and then end the process as they would have.

    Signals that the program handles by itself or ignores, and blocks outside the main thread, are left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def unwind(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(number)
            raise SystemExit(128 + number)

    ours = [number for number in ENDINGS if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in ours:
            signal.signal(number, unwind)
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        if received:
            signal.raise_signal(received[0])


@contextmanager
def _as_export_error(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise ExportError(
            f"cannot write {os.fspath(path)}: {cause.strerror or cause}; choose a writable place"
        ) from cause


def _standing(path: str | os.PathLike[str]) -> os.stat_result | None:
    """What stands at `path`, links followed; None where nothing does. Raises OSError for what may not be written."""
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise OSError(errno.EINVAL, "it has no name" if not os.fspath(path) else "its name holds a zero byte")
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "it is read-only")
    return found


def _is_file(found: os.stat_result, target: Path) -> bool:
    """Whether it is a file that has a name: no device, no pipe, and not what a process has open and others deleted.

    Whether it is still the same file does not matter: another writer may have replaced it meanwhile.
    """
    return stat.S_ISREG(found.st_mode) and target.exists()


def _stem(target: Path) -> str:
    """How the parts of `target` begin: short, whatever the length of its name."""
    return f".{blake2s(os.fsencode(target.name), digest_size=8).hexdigest()}-"


@contextmanager
def _locked(target: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new part of `target`, locked before anyone can take it for a dead process's.

    Between its making and its lock others may: then it is gone, and the next one has another name, since who took the
    first may be about to remove it once more, by its name.
    """
    while True:
        part = target.parent / f"{_stem(target)}{secrets.token_hex(8)}.part"
        handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            with open(handle, "wb") as file:
                with suppress(
                    OSError
                ):  # not every file system has locks; nothing is removed where there are none
                    fcntl.flock(handle, fcntl.LOCK_EX)
                if part.exists():
                    yield part, file
                    return
        except BaseException:  # Ctrl-C too must not leave the part behind
            with suppress(FileNotFoundError):
                os.unlink(part)
            raise


def _remove_stale(target: Path) -> None:
    """Remove the parts of `target` that no living process holds."""
    stem = _stem(target)
    with os.scandir(target.parent) as entries:
        stale = [
            entry.path for entry in entries if entry.name.startswith(stem) and entry.name.endswith(".part")
        ]
    for part in stale:
        with suppress(OSError), open(part, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(part)


def _keep(handle: int, found: os.stat_result) -> None:
    """Give a new file the owner and the mode of the one that it replaces."""
    new = os.fstat(handle)
    if (new.st_uid, new.st_gid) != (found.st_uid, found.st_gid):
        with suppress(PermissionError):  # only root gives files away
            os.fchown(handle, found.st_uid, found.st_gid)
    os.fchmod(handle, stat.S_IMODE(found.st_mode))
