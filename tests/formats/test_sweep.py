"""Temporary files of saves that were killed: the next save to the same path removes them, and no others."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from fanin import write

# The module alone, which needs nothing of fanin, so that a process starts at once.
LOAD = f"""
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("write", {write.__file__!r})
write = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write)
replacing = write.replacing
"""
WRITER = """
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of a save."""
    process = subprocess.Popen([sys.executable, "-c", LOAD + WRITER, str(tmp_path / "m.bin")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def save(path, content=b"new"):
    with write.replacing(path) as file:
        file.write(content)


def test_what_a_killed_save_left_goes_at_the_next_save(tmp_path, writer):
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert len(os.listdir(tmp_path)) == 1
    save(tmp_path / "other.bin")
    assert len(os.listdir(tmp_path)) == 2  # another path's save leaves it
    save(tmp_path / "m.bin")
    assert sorted(os.listdir(tmp_path)) == ["m.bin", "other.bin"]
    assert (tmp_path / "m.bin").read_bytes() == b"new"


def test_a_save_in_progress_is_left_alone(tmp_path, writer):
    save(tmp_path / "m.bin")
    assert len(os.listdir(tmp_path)) == 2
    assert writer.poll() is None


def test_other_files_are_left_alone(tmp_path):
    own = write._temporary_name(tmp_path / "m.bin", "0" * 12)
    others = [
        ".m.bin.tmp",
        ".m.bin.backup.tmp",
        f"x{own}",
        f"{own}x",
        own.replace("m.bin", "m_bin"),
        write._temporary_name(tmp_path / "m.bin", "0" * 11),
        ".m.bin." + "f" * 20 + ".tmp",  # of another host
    ]
    for name in [own, *others]:
        (tmp_path / name).write_bytes(b"x")
    os.mkdir(tmp_path / own.replace("000.tmp", "001.tmp"))
    os.symlink(tmp_path / "none", tmp_path / own.replace("000.tmp", "002.tmp"))
    save(tmp_path / "m.bin")
    left = set(os.listdir(tmp_path))
    assert own not in left
    assert left == {"m.bin", *others, own.replace("000.tmp", "001.tmp"), own.replace("000.tmp", "002.tmp")}


def test_without_locks_nothing_is_swept_and_saving_works(tmp_path, monkeypatch):
    def none(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(write.fcntl, "flock", none)
    stale = tmp_path / write._temporary_name(tmp_path / "m.bin", "0" * 12)
    stale.write_bytes(b"x")
    save(tmp_path / "m.bin")
    assert sorted(os.listdir(tmp_path)) == sorted([stale.name, "m.bin"])


def test_a_file_swept_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    """A save between another's creation of its file and its lock."""
    real, swept = write.fcntl.flock, []

    def late(handle, kind):
        if not swept and not kind & write.fcntl.LOCK_NB:
            swept.append(True)
            write._sweep(tmp_path / "m.bin")
        return real(handle, kind)

    monkeypatch.setattr(write.fcntl, "flock", late)
    save(tmp_path / "m.bin")
    assert swept
    assert os.listdir(tmp_path) == ["m.bin"]
    assert (tmp_path / "m.bin").read_bytes() == b"new"


def test_saves_at_the_same_time_do_not_sweep_each_other(tmp_path):
    contents = [bytes([i]) * 10_000 for i in range(8)]
    errors = []

    def many(content):
        try:
            for _ in range(30):
                save(tmp_path / "m.bin", content)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=many, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(tmp_path) == ["m.bin"]
    assert (tmp_path / "m.bin").read_bytes() in contents


def test_many_kills_leave_at_most_one_file(tmp_path):
    """SIGKILL at random moments of a loop of saves, ten times: each new process clears up behind the last."""
    code = """
print("ready", flush=True)
while True:
    with replacing(sys.argv[1]) as file:
        file.write(bytes(200_000))
"""
    for number in range(10):
        process = subprocess.Popen([sys.executable, "-c", LOAD + code, str(tmp_path / "m.bin")], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.03 + 0.007 * number)
        process.kill()
        process.wait()
        process.stdout.close()
        assert len(os.listdir(tmp_path)) <= 2
    save(tmp_path / "m.bin")
    assert os.listdir(tmp_path) == ["m.bin"]
