"""A file appears whole or not at all, stays the kind of file that it was, and leaves nothing beside it."""

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from eightbit.errors import ExportError
from eightbit.files import write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_bytes_are_there_and_nothing_else(tmp_path: Path):
    assert write_whole(b"abc", tmp_path / "x") == tmp_path / "x"
    assert (tmp_path / "x").read_bytes() == b"abc"
    assert names(tmp_path) == ["x"]


def test_a_new_file_has_the_mode_that_the_mask_leaves(tmp_path: Path):
    old = os.umask(0o027)
    try:
        write_whole(b"abc", tmp_path / "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o666])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int):
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "x").chmod(mode)
    write_whole(b"new", tmp_path / "x")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"old")
    os.chown(tmp_path / "x", 1234, 4321)
    write_whole(b"new", tmp_path / "x")
    found = (tmp_path / "x").stat()
    assert (found.st_uid, found.st_gid) == (1234, 4321)


@pytest.mark.parametrize("relative", [True, False])
def test_a_link_is_written_through(tmp_path: Path, relative: bool):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "real"
    (tmp_path / "second").symlink_to("there/real" if relative else target)
    (tmp_path / "first").symlink_to("second")
    for data in (b"new", b"newer"):  # the target does not exist at first
        write_whole(data, tmp_path / "first")
        assert target.read_bytes() == data
    assert (tmp_path / "first").is_symlink() and (tmp_path / "second").is_symlink()
    assert names(tmp_path / "there") == ["real"]


def test_a_pipe_is_written_into(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    write_whole(b"through the pipe", tmp_path / "pipe")
    reader.join(10)
    assert received == [b"through the pipe"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_device_stays_a_device(tmp_path: Path):
    """/dev/null's like, made here: 1, 3. Where a container may not make one, a terminal is a device too."""
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        _primary, secondary = os.openpty()
        device = Path(os.ttyname(secondary))
    write_whole(b"abc", device)
    assert stat.S_ISCHR(device.stat().st_mode)


def test_standard_output_may_be_the_place(tmp_path: Path):
    """Through a link like /dev/stdout, made here: a defect in saving would replace the machine's own."""
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    script = "import sys; from eightbit.files import write_whole; write_whole(b'abc', sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "stdout")], capture_output=True, check=True
    )
    assert done.stdout == b"abc"
    assert (tmp_path / "stdout").is_symlink()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("absent/x", "No such file"),
        ("file/x", "Not a directory"),
        ("folder", "it is a directory"),
        ("loop", "symbolic links"),
        ("x" * 300, "too long"),
        ("a\0b", "zero byte"),
        ("", "no name"),
    ],
)
def test_places_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    before = names(tmp_path)
    with pytest.raises(ExportError, match=said):
        write_whole(b"abc", place)
    assert names(tmp_path) == before


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127])
def test_the_longest_names_will_do(tmp_path: Path, name: str):
    write_whole(b"abc", tmp_path / name)
    assert names(tmp_path) == [name]


def test_a_read_only_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "x").chmod(0o444)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everything
    with pytest.raises(ExportError, match="read-only"):
        write_whole(b"new", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"old"


# Interruptions

WRITER = """
import os, signal, sys, time
from eightbit.files import whole_file
# Tests that run under nohup or in the background have these two ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
with whole_file(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("here", flush=True)
    time.sleep(30)
    file.write(b"whole")
"""


def start(target: Path) -> subprocess.Popen[str]:
    """A process in the midst of writing `target`."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert writer.stdout is not None and writer.stdout.readline() == "here\n"
    return writer


def end(writer: subprocess.Popen[str], number: int) -> int:
    writer.send_signal(number)
    writer.communicate()
    return writer.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_process_told_to_end_leaves_the_old_file_and_no_part(tmp_path: Path, number: int):
    (tmp_path / "x").write_bytes(b"old")
    assert end(start(tmp_path / "x"), number) == -number  # it ends by the signal, as it would have
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_the_next_write_removes_what_a_killed_process_left(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"old")
    assert end(start(tmp_path / "x"), signal.SIGKILL) == -signal.SIGKILL
    assert end(start(tmp_path / "other"), signal.SIGKILL) == -signal.SIGKILL
    assert len(names(tmp_path)) == 3
    write_whole(b"new", tmp_path / "x")
    left = names(tmp_path)
    assert (tmp_path / "x").read_bytes() == b"new"
    assert len(left) == 2  # the part of another target is none of this write's business
    write_whole(b"new", tmp_path / "other")
    assert names(tmp_path) == ["other", "x"]


def test_a_living_process_keeps_its_part(tmp_path: Path):
    writer = start(tmp_path / "x")
    before = names(tmp_path)
    write_whole(b"new", tmp_path / "x")
    assert names(tmp_path) == sorted([*before, "x"])
    end(writer, signal.SIGTERM)
    assert names(tmp_path) == ["x"]


def test_threads_may_write_one_target(tmp_path: Path):
    texts = [bytes([65 + i]) * 100_000 for i in range(8)]
    faults: list[BaseException] = []

    def write(data: bytes) -> None:
        try:
            for _ in range(20):
                write_whole(data, tmp_path / "x")
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert (tmp_path / "x").read_bytes() in texts
    assert names(tmp_path) == ["x"]


def test_a_handler_of_the_program_stays_in_place(tmp_path: Path):
    script = textwrap.dedent(
        """
        import os, signal, sys
        from eightbit.files import whole_file
        signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
        with whole_file(sys.argv[1]) as file:
            os.kill(os.getpid(), signal.SIGTERM)
            file.write(b"whole")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "mine\n"
    assert (tmp_path / "x").read_bytes() == b"whole"


# Killed at every moment

SAVER = """
import json, os, random, signal, sys, time
import eightbit.files as files
old, new, target = b"o" * 300_000, b"n" * 300_000, sys.argv[1]
folder = os.path.dirname(target)

def fork(work):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return child

def at_line(number):
    left = number
    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename == files.__file__:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    def write():
        sys.settrace(trace)
        files.write_whole(new, target)
    return fork(write)

def at_time(delay):
    def write():
        while True:
            files.write_whole(new, target)
    child = fork(write)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return child

dice = random.Random(0)
found = []
for start, moment in [(at_line, n) for n in range(100)] + [(at_time, dice.uniform(0, 0.01)) for _ in range(100)]:
    files.write_whole(old, target)
    status = os.waitpid(start(moment), 0)[1]
    data = open(target, "rb").read()
    kind = "old" if data == old else "new" if data == new else "broken"
    litter = len(os.listdir(folder)) - 1
    files.write_whole(old, target)
    found.append((kind, status != 0, litter, os.listdir(folder) == [os.path.basename(target)]))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_killed_at_two_hundred_moments_it_is_the_old_file_or_the_new_one(tmp_path: Path):
    """A hundred lines of the module and a hundred instants; after the next write there is no litter either."""
    done = subprocess.run(
        [sys.executable, "-c", SAVER, str(tmp_path / "x")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kinds, killed, litter, clean = zip(*json.loads(done.stdout), strict=True)
    assert len(kinds) == 200
    assert set(kinds) == {"old", "new"}
    assert sum(killed) > 150
    assert sum(map(bool, litter)) > 10  # or there was nothing for the next write to remove
    assert all(clean)
