"""Data sets: what they hold, and every link of the chain that finds their files."""

import gzip
import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from eightbit.course import fetch
from eightbit.course.datasets import digits, fashion_mnist, read_idx
from eightbit.course.fetch import Archive, from_cache, from_debian, from_system, from_web, locate
from eightbit.errors import LoadError

CONTENT = b"some data"
SMALL = Archive(
    "small",
    {"a.bin": f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"},
    "http://localhost:9/none",
    "no-such-package",
)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """An empty cache and an empty system folder; their paths."""
    cache, system = tmp_path / "cache", tmp_path / "system"
    monkeypatch.setenv("EIGHTBIT_CACHE", str(cache))
    monkeypatch.setenv("EIGHTBIT_SYSTEM_DATASETS", str(system))
    return cache, system


def put(folder, content=CONTENT):
    (folder / "small").mkdir(parents=True)
    (folder / "small" / "a.bin").write_bytes(content)
    return folder / "small"


def test_fashion_mnist_is_whole():
    data = fashion_mnist()
    assert (data.train.images.shape, data.train.images.dtype) == ((60_000, 28, 28), np.uint8)
    assert (data.test.images.shape, data.test.labels.dtype) == ((10_000, 28, 28), np.int64)
    assert len(data.classes) == 10
    np.testing.assert_array_equal(np.bincount(data.test.labels), np.full(10, 1000))
    np.testing.assert_array_equal(np.bincount(data.train.labels), np.full(10, 6000))


def test_digits_are_small_and_split():
    data = digits()
    assert data.train.images.shape == (1437, 8, 8)
    assert data.test.images.shape == (360, 8, 8)
    assert data.train.images.max() == 16


def test_the_cache_comes_first_then_the_system_folder(folders):
    cache, system = folders
    in_system = put(system)
    assert locate(SMALL) == in_system == from_system(SMALL)
    in_cache = put(cache)
    assert locate(SMALL) == in_cache == from_cache(SMALL)


def test_a_wrong_digest_is_not_used_and_is_named(folders):
    cache, _ = folders
    path = put(cache, b"other data") / "a.bin"
    with pytest.raises(
        fetch._Miss, match=r"a\.bin has sha256 [0-9a-f]+, expected [0-9a-f]+; delete the file"
    ):
        from_cache(SMALL)
    assert path.read_bytes() == b"other data"  # not ours to delete


def test_threads_and_processes_may_fill_one_cache(folders, tmp_path):
    cache, _ = folders
    big = bytes(range(256)) * 40_000
    archive = Archive(
        "small", {"a.bin": f"sha256:{hashlib.sha256(big).hexdigest()}"}, "http://localhost", None
    )
    found = put(tmp_path / "found", big)
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(fetch._install, found, archive) for _ in range(32)]
        assert {future.result() for future in done} == {cache / "small"}
    assert from_cache(archive) == cache / "small"
    assert [path.name for path in (cache / "small").iterdir()] == ["a.bin"]


def test_a_download_is_checked_before_it_gets_its_name(folders, tmp_path):
    cache, _ = folders
    for content, good in ((CONTENT, True), (b"tampered", False)):
        (tmp_path / "a.bin").write_bytes(content)
        web = Archive("small", SMALL.digests, "http://localhost", None)

        def retrieve(url, known_hash, fname, path, downloader):
            algorithm, wanted = known_hash.split(":")
            if hashlib.new(algorithm, (tmp_path / "a.bin").read_bytes()).hexdigest() != wanted:
                raise ValueError("hash of downloaded file does not match")
            path.mkdir(parents=True, exist_ok=True)
            (path / fname).write_bytes((tmp_path / "a.bin").read_bytes())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pooch.retrieve", retrieve)
            if good:
                assert from_web(web) == cache / "small"
                (cache / "small" / "a.bin").unlink()
            else:
                with pytest.raises(fetch._Miss, match="does not match"):
                    from_web(web)
                assert not (cache / "small" / "a.bin").exists()


def test_the_debian_archive_is_unpacked_into_the_cache(folders, monkeypatch):
    cache, _ = folders

    def run(*command, cwd):
        if command[0] == "apt-get":
            (cwd / "no-such-package_1_all.deb").write_bytes(b"")
        else:
            put(cwd / "root/usr/share/datasets")

    monkeypatch.setattr(fetch.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(fetch, "_run", run)
    assert from_debian(SMALL) == cache / "small"
    assert locate(SMALL) == cache / "small"
    assert [p.name for p in (cache / "small").iterdir()] == ["a.bin"]


def test_when_every_link_fails_the_error_lists_them_all(folders, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "which", lambda program: None)
    with pytest.raises(LoadError) as error:
        locate(SMALL)
    text = str(error.value)
    assert all(link in text for link in ("cache", "system folder", "download", "Debian archive"))
    assert "apt-get is not on this system" in text


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x00\x00\x09\x01" + b"\x00\x00\x00\x01" + b"x", "not an IDX file of bytes"),
        (
            b"\x00\x00\x08\x01" + b"\x00\x00\x00\x05" + b"abc",
            r"holds 3 bytes of data, its header says shape \(5,\)",
        ),
    ],
)
def test_a_file_that_is_no_idx_is_named(tmp_path, raw, message):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(raw))
    with pytest.raises(LoadError, match=message):
        read_idx(path)
    path.write_bytes(raw)
    with pytest.raises(LoadError, match="not a readable gzip file"):
        read_idx(path)
