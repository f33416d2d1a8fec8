"""Find a data set's files: cache, system folder, download, Debian archive; every file checked by its digest.

In comes an `Archive` (file names with digests, and where each copy of them may be found); out goes the
folder that holds verified files. Each link of the chain is a function that returns the folder or raises;
`locate` walks them in order, and the error it raises when all of them failed lists every attempt.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eightbit.errors import ExportError, LoadError
from eightbit.files import whole_file

SYSTEM_DATASETS = "/usr/share/datasets"


@dataclass(frozen=True)
class Archive:
    """A data set as files: `name` is its folder, `digests` maps file names to `algorithm:hexdigest`."""

    name: str
    digests: dict[str, str]
    url: str
    debian_package: str | None = None


class _Miss(Exception):
    """One link of the chain cannot serve the files; the text says why."""


def cache_dir() -> Path:
    """Folder where data sets are kept: `EIGHTBIT_CACHE`, else `XDG_CACHE_HOME/eightbit`, else `~/.cache/eightbit`."""
    chosen = os.environ.get("EIGHTBIT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eightbit"


def system_dir() -> Path:
    """Folder where Debian's data-set packages lie: `EIGHTBIT_SYSTEM_DATASETS`, else /usr/share/datasets."""
    return Path(os.environ.get("EIGHTBIT_SYSTEM_DATASETS") or SYSTEM_DATASETS)


def digest(path: Path, algorithm: str) -> str:
    """Hex digest of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def check(folder: Path, archive: Archive) -> Path:
    """Return `folder` when it holds every file of `archive` with the right digest; raise `_Miss` otherwise."""
    for name, wanted in archive.digests.items():
        path = folder / name
        if not path.is_file():
            raise _Miss(f"{path} does not exist")
        algorithm, expected = wanted.split(":")
        found = digest(path, algorithm)
        if found != expected:
            raise _Miss(f"{path} has {algorithm} {found}, expected {expected}; delete the file")
    return folder


def from_cache(archive: Archive) -> Path:
    """Files that an earlier download left in the cache."""
    return check(cache_dir() / archive.name, archive)


def from_system(archive: Archive) -> Path:
    """Files installed by the Debian package, such as /usr/share/datasets/fashion-mnist."""
    return check(system_dir() / archive.name, archive)


def from_web(archive: Archive) -> Path:
    """Download each file from `archive.url` with pooch, which checks the digest before the file gets its name."""
    try:
        import pooch
    except ImportError:
        raise _Miss("pooch is not installed; run: pip install 'eightbit[course]'") from None
    pooch.get_logger().setLevel("WARNING")
    folder = cache_dir() / archive.name
    for name, wanted in archive.digests.items():
        try:
            pooch.retrieve(
                f"{archive.url}/{name}",
                known_hash=wanted,
                fname=name,
                path=folder,
                downloader=pooch.HTTPDownloader(timeout=20),
            )
        except Exception as error:  # any transport's own exception class, or ValueError for a wrong digest
            raise _Miss(f"{archive.url}/{name}: {_first_line(error)}") from error
    return check(folder, archive)


def from_debian(archive: Archive) -> Path:
    """Unpack the Debian package into the cache with `apt-get download` and `dpkg -x`; needs no root.

    When the machine's package lists are missing or stale, they are fetched into a private folder: plain users
    cannot write the system's.
    """
    if archive.debian_package is None:
        raise _Miss("no Debian package holds this data set")
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise _Miss(f"{program} is not on this system")
    with tempfile.TemporaryDirectory(prefix="eightbit-") as name:
        work = Path(name)
        _apt_download(archive.debian_package, work)
        packages = list(work.glob("*.deb"))
        if not packages:
            raise _Miss(f"apt-get download {archive.debian_package} left no .deb file")
        _run("dpkg", "-x", str(packages[0]), str(work / "root"), cwd=work)
        found = work / "root" / SYSTEM_DATASETS.lstrip("/") / archive.name
        check(found, archive)
        return _install(found, archive)


def _apt_download(package: str, work: Path) -> None:
    try:
        _run("apt-get", "download", package, cwd=work)
        return
    except _Miss:
        pass
    lists, cache = work / "lists", work / "cache"
    for folder in (lists / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True)
    private = ("-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User=")
    _run("apt-get", *private, "update", cwd=work)
    _run("apt-get", *private, "download", package, cwd=work)


def _install(found: Path, archive: Archive) -> Path:
    """Copy verified files into the cache, whole or not at all: another thread or process may do the same just now."""
    folder = cache_dir() / archive.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in archive.digests:
        with open(found / name, "rb") as source, whole_file(folder / name) as copy:
            shutil.copyfileobj(source, copy)
    return folder


def _run(*command: str, cwd: Path) -> None:
    try:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=600)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        raise _Miss(f"{' '.join(command[:1] + command[-2:])}: {reason[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Miss(f"{command[0]}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


CHAIN: tuple[tuple[str, Callable[[Archive], Path]], ...] = (
    ("cache", from_cache),
    ("system folder", from_system),
    ("download", from_web),
    ("Debian archive", from_debian),
)


def locate(archive: Archive) -> Path:
    """Return a folder that holds every file of `archive`, verified.

    Raises:
        LoadError: no link of the chain has the files; the message lists each attempt and what it met.
    """
    attempts = []
    for label, link in CHAIN:
        try:
            return link(archive)
        except (_Miss, OSError, ExportError) as error:
            attempts.append(f"  {label}: {_first_line(error)}")
    raise LoadError(
        f"data set {archive.name!r} could not be found:\n"
        + "\n".join(attempts)
        + f"\nPut {', '.join(archive.digests)} into {cache_dir() / archive.name}."
    )
