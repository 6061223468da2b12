"""What the figures hang on is said without the name of a host."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from benchmarks import machine


def test_the_processor_and_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A Chip\nflags\t\t: fpu avx2 avx512f amx_tile\n")
    said = machine.machine(cpuinfo)
    assert said.endswith("cores of A Chip, x86_64, Linux: avx2, avx512f, amx_tile; no avx512_bf16, amx_bf16")


def test_a_system_without_cpuinfo(tmp_path: Path) -> None:
    assert platform.node() not in machine.machine(tmp_path / "none").split()
    assert "unknown" in machine.machine(tmp_path / "none")


def test_versions_of_other_environments_where_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"Python": platform.python_version(), "torch": "0.1"}
    monkeypatch.setattr(machine, "here", lambda: own)
    monkeypatch.setenv("BENCH_PYTHON_KERAS_TENSORFLOW", sys.executable)
    said, other = machine.versions().split("; ")
    assert said == f"Python {platform.python_version()}, torch 0.1"
    assert other.startswith("keras-tensorflow with ")
    assert f"Python {platform.python_version()}" not in other
    assert "numpy " in other
