"""`.npz` files: input arrays by name, read a few rows at a time, and results written whole.

`numpy.load` brings each array into memory whole. Calibration needs one sample at a time, so the rows are read
straight from the archive's members as they are asked for: memory does not grow with the file.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from eightbit.data.feeds import Feeds
from eightbit.data.given import LABELS
from eightbit.data.specs import TensorSpec
from eightbit.errors import EightbitError
from eightbit.files import write_whole

CHUNK_BYTES = 16 * 2**20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OSError)


@dataclass(frozen=True)
class Npz:
    """An `.npz` file as an iterable of batches, each a dict of at most CHUNK_BYTES (or one row) by array name.

    Arrays that do not share one number of rows come whole in one batch, and so do those whose rows are no samples:
    `axes` are the batch axes of the inputs, None as long as they are not known (`along` sets them). `error` is what a
    file that cannot be read raises.
    """

    path: Path
    headers: Mapping[str, tuple[tuple[int, ...], bool, np.dtype]]
    specs: Sequence[TensorSpec]
    error: type[EightbitError]
    axes: Mapping[str, int] | None = None

    def along(self, axes: Mapping[str, int] | None) -> Npz:
        """The same file with known batch axes."""
        return replace(self, axes=axes)

    @property
    def rows(self) -> int:
        """The number of samples: the length of the batch axis, or of the stack; 1 for a file that is one."""
        if self.axes and not self._stacked():
            name, axis = next(iter(self.axes.items()))
            return self.headers[name][0][axis]
        first = next((s.name for s in self.specs if s.name in self.headers), next(iter(self.headers), None))
        shape = self.headers[first][0] if first is not None else ()
        return shape[0] if shape and (self.axes is None or self._stacked()) else 1

    @property
    def has_labels(self) -> bool:
        """Whether the file brings labels beside the inputs."""
        return LABELS in self.headers

    def __iter__(self) -> Iterator[Feeds]:
        """Yield the batches. Raises `error` if the file is damaged."""
        if not self.headers:
            return
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield from self._chunks(archive) if self._streams() else [self._whole(archive)]
        except _BROKEN as cause:
            raise _unreadable(self.path, cause, self.error) from cause

    def _streams(self) -> bool:
        lengths = {shape[:1] for shape, _, _ in self.headers.values()}
        if self.axes is None:
            rows = len({bool(s.shape) and s.shape[0] is None for s in self.specs}) == 1
        else:
            rows = {self.axes.get(s.name) for s in self.specs} == {0} or self._stacked()
        c_order = not any(fortran for _, fortran, _ in self.headers.values())
        return len(lengths) == 1 and lengths != {()} and rows and c_order

    def _stacked(self) -> bool:
        """Whether every input comes as a stack, with one axis more than the graph's."""
        ranks = {s.name: len(s.shape) + 1 for s in self.specs}
        return all(len(self.headers[n][0]) == rank for n, rank in ranks.items() if n in self.headers)

    def _whole(self, archive: zipfile.ZipFile) -> Feeds:
        found = {}
        for name in self.headers:
            with archive.open(f"{name}.npy") as member:
                found[name] = npy.read_array(member, allow_pickle=False)
        return found

    def _chunks(self, archive: zipfile.ZipFile) -> Iterator[Feeds]:
        row_bytes = {
            n: dtype.itemsize * int(np.prod(shape[1:])) for n, (shape, _, dtype) in self.headers.items()
        }
        at_once = max(1, CHUNK_BYTES // max(1, sum(row_bytes.values())))
        with ExitStack() as stack:
            members = {n: stack.enter_context(archive.open(f"{n}.npy")) for n in self.headers}
            for member in members.values():
                _header(member)
            for start in range(0, self.rows, at_once):
                count = min(at_once, self.rows - start)
                yield {n: self._read(members[n], n, count, count * row_bytes[n]) for n in members}

    def _read(self, member: IO[bytes], name: str, rows: int, size: int) -> np.ndarray:
        data = member.read(size)
        if len(data) != size:
            raise EOFError(f"array '{name}' ends early")
        shape, _, dtype = self.headers[name]
        return np.frombuffer(data, dtype).reshape(rows, *shape[1:])


def read_npz(path: str | os.PathLike[str], specs: Sequence[TensorSpec], error: type[EightbitError]) -> Npz:
    """Open an `.npz` for a model with inputs `specs`; only the headers are read now.

    Raises `error`, naming the file, if it is missing, truncated, no `.npz`, or holds Python objects.
    """
    file = Path(path)
    try:
        with zipfile.ZipFile(file) as archive:
            members = [n for n in archive.namelist() if n.endswith(".npy")]
            headers = {}
            for name in members:
                with archive.open(name) as member:
                    shape, _, dtype = headers[name.removesuffix(".npy")] = _header(member)
                    held = archive.getinfo(name).file_size - member.tell()
                if not dtype.hasobject and math.prod(shape) * dtype.itemsize != held:
                    raise ValueError(
                        f"an array's header says shape {shape} of {dtype}; {held:,} bytes follow"
                    )
    except _BROKEN as cause:
        raise _unreadable(file, cause, error) from cause
    objects = [name for name, (_, _, dtype) in headers.items() if dtype.hasobject]
    if objects:
        raise error(f"{file}: array '{objects[0]}' holds Python objects; save plain numbers with numpy.savez")
    return Npz(file, headers, specs, error)


def write_npz(arrays: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> Path:
    """Write arrays by name; the file appears whole or not at all. Raises ExportError."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # numpy.savez would refuse a tensor named "file"
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(array), allow_pickle=False)
    return write_whole(buffer.getvalue(), path)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type of the array that follows. Raises ValueError."""
    version = npy.read_magic(member)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format is not known")
    try:
        shape, fortran, dtype = readers[version](member)
    except (
        Exception
    ) as cause:  # the header is Python's syntax, and NumPy lets every error of its parser through
        raise ValueError(f"an array's header cannot be read: {type(cause).__name__}: {cause}") from cause
    if not all(type(length) is int and length >= 0 for length in shape) or not dtype.itemsize:
        raise ValueError(f"an array's header says shape {shape} of {dtype}")
    return shape, fortran, dtype


def _unreadable(file: Path, cause: BaseException, error: type[EightbitError]) -> EightbitError:
    if isinstance(cause, FileNotFoundError):
        return error(f"{file}: there is no such file")
    if isinstance(cause, OSError) and cause.strerror:
        return error(f"{file} cannot be read: {cause.strerror}")
    reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    return error(f"{file} is truncated or not an .npz file ({reason}); write it with numpy.savez")
