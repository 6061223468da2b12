"""Models on a device that is not the CPU. Its cases run in a process of their own, in which torch knows the device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from second_device import COMPILER, build

_HERE = Path(__file__).parent


@pytest.mark.skipif(COMPILER is None, reason="the second device is built with a C++ compiler, and there is none")
@pytest.mark.parametrize(
    "cases", ["on_second_device.py", "on_device_without_float64.py", "default_device.py", "recorded_programs.py"]
)
def test_models_on_a_second_device(cases: str, library: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(_HERE / cases)]
    done = subprocess.run(command, env={**os.environ, "SECOND_DEVICE": str(library)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The device as a library."""
    path = tmp_path_factory.mktemp("device") / "libsecond.so"
    build(path)
    return path
