"""The one writer: the old file or the new one, whatever happens in between."""

import os
import threading
from pathlib import Path

import pytest

from fanin import write


def test_nothing_else_renames_files():
    source = Path(write.__file__).parent
    names = [str(path.relative_to(source)) for path in source.rglob("*.py") if "os.replace(" in path.read_text()]
    assert names == ["write.py"]


def test_writes_a_new_file_and_replaces_an_old_one(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"first", b"second"):
        with write.replacing(path) as file:
            file.write(content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.bin"]


def test_nothing_is_seen_before_the_end(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with write.replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_on_an_error_the_old_file_stays_and_the_temporary_one_goes(tmp_path, monkeypatch, call, error):
    def fail(*args):
        raise error

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    if call != "write":
        monkeypatch.setattr(write.os, call, fail)

    def save():
        with write.replacing(path) as file:
            file.write(b"new")
            if call == "write":
                fail()

    with pytest.raises(type(error)) as caught:
        save()
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_order_of_calls_is_safe_against_power_loss(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(write.os, name, lambda *a, _real=real, _name=name: (calls.append(_name), _real(*a))[1])
    with write.replacing(tmp_path / "a.bin") as file:
        file.write(b"x")
    assert calls == ["fsync", "replace", "fsync"]


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.bin"
    contents = [bytes([i]) * 100_000 for i in range(8)]

    def save(content):
        for _ in range(10):
            with write.replacing(path) as file:
                file.write(content)

    threads = [threading.Thread(target=save, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["a.bin"]
