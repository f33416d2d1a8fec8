"""`.npz` files are read a few rows at a time, and give what numpy.load gives."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

import eightbit as eb
from eightbit.data import npz
from eightbit.data.npz import read_npz, write_npz
from eightbit.data.specs import TensorSpec

FREE = (TensorSpec("x", np.dtype("float32"), (None, 3)),)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_chunks_put_together_are_the_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save):
    x, labels = np.arange(21, dtype=np.float32).reshape(7, 3), np.arange(7)
    save(tmp_path / "d.npz", x=x, labels=labels)
    monkeypatch.setattr(npz, "CHUNK_BYTES", 2 * (3 * 4 + 8))  # two rows of both
    data = read_npz(tmp_path / "d.npz", FREE, eb.EngineError)
    chunks = list(data)
    assert [len(c["x"]) for c in chunks] == [2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([c["x"] for c in chunks]), x)
    np.testing.assert_array_equal(np.concatenate([c["labels"] for c in chunks]), labels)
    assert (data.rows, data.has_labels) == (7, True)
    assert len(list(data)) == 4  # it can be read again


@pytest.mark.parametrize(
    ("arrays", "specs"),
    [
        ({"x": np.ones((4, 3), np.float32), "t": np.ones(2, np.float32)}, FREE),
        ({"x": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))}, FREE),
        (
            {"x": np.ones((4, 3), np.float32), "t": np.ones((4, 2), np.float32)},
            (*FREE, TensorSpec("t", np.dtype("float32"), (4, 2))),
        ),
        ({"x": np.float32(3)}, (TensorSpec("x", np.dtype("float32"), ()),)),
    ],
    ids=["lengths", "fortran", "fixed", "scalar"],
)
def test_what_has_no_common_rows_comes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays, specs):
    monkeypatch.setattr(npz, "CHUNK_BYTES", 1)
    np.savez(tmp_path / "d.npz", **arrays)
    (whole,) = read_npz(tmp_path / "d.npz", specs, eb.EngineError)
    for name, array in arrays.items():
        np.testing.assert_array_equal(whole[name], array)


def test_written_files_are_read_by_numpy_whatever_the_names(tmp_path: Path):
    arrays = {"file": np.arange(3), "a/b": np.zeros((0, 2)), "labels": np.float32(1).reshape(())}
    write_npz(arrays, tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as found:
        assert set(found.files) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


def described(text: bytes, body: bytes = bytes(24)) -> bytes:
    """An `.npy` file with this header."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


HEADER = "{'descr': %s, 'fortran_order': %s, 'shape': %s, }"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (
            HEADER % ("'<f4'", "False", "(1000000000000, 3)"),
            r"shape \(1000000000000, 3\) of float32; 24 bytes follow",
        ),
        (HEADER % ("'<f4'", "False", "(1, 3)"), "24 bytes follow"),
        (HEADER % ("'<f4'", "False", "(-2, -3)"), r"shape \(-2, -3\)"),
        (HEADER % ("'<f4'", "False", "(True, 6)"), r"shape \(True, 6\)"),
        (HEADER % ("'<f4'", "False", "(2.0, 3)"), "cannot be read"),
        (HEADER % ("'<f4'", "'no'", "(2, 3)"), "cannot be read"),
        (HEADER % ("'S0'", "False", "(2, 3)"), r"of \|S0"),
        (HEADER % ("'f9'", "False", "(2, 3)"), "cannot be read"),
        (HEADER % ("'|O'", "False", "(2, 3)"), "holds Python objects"),
        ("{'descr': ", "cannot be read: TokenError"),
        ("[" * 9000, "cannot be read"),
        ("", "cannot be read"),
        ("1", "cannot be read"),
    ],
)
def test_a_header_that_no_array_has_is_refused_when_the_file_is_opened(
    tmp_path: Path, header: str, said: str
):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", described(header.encode() + b"\n"))
    with pytest.raises(eb.EngineError, match=said) as caught:
        read_npz(tmp_path / "d.npz", FREE, eb.EngineError)
    assert "d.npz" in str(caught.value)
