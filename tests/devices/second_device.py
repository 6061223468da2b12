"""The device "second": built from `second_device.cpp` with a C++ compiler, and loaded into this process for good."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

COMPILER = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
_SOURCE = Path(__file__).with_suffix(".cpp")


def build(path: Path) -> None:
    """Compile the device into a library."""
    assert COMPILER is not None
    home = Path(torch.__file__).parent
    include = [f"-I{home / 'include'}", f"-I{home / 'include' / 'torch' / 'csrc' / 'api' / 'include'}"]
    libraries = [f"-L{home / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{home / 'lib'}"]
    options = ["-O0", "-std=c++20", "-fPIC", "-shared", "-w"]
    subprocess.run([COMPILER, *options, *include, str(_SOURCE), "-o", str(path), *libraries], check=True)


def load(path: str) -> None:
    """Make the device known to torch, before anything else runs: its autograd looks for devices once."""
    torch.ops.load_library(path)
    torch.utils.rename_privateuse1_backend("second")
    module: Any = ModuleType("torch.second")
    module.is_available = module.is_initialized = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module._is_in_bad_fork = lambda: False
    module.manual_seed_all = lambda seed: None  # it draws from the generators of the CPU
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    torch._register_device_module("second", module)
    torch.utils.generate_methods_for_privateuse1_backend()
