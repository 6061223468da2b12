"""What the figures hang on: the processor, and the versions of everything that was measured. No names of hosts."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

# What decides which kernels run; the names are the kernel's of Linux.
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16")
PACKAGES = (
    "fanin", "torch", "numpy", "jax", "flax", "optax", "keras", "tensorflow", "tensorflow-cpu", "onnxruntime",
    "openvino", "peft", "scikit-learn",
)  # fmt: skip


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Cores, processor, which of FLAGS it has and which not, as "2 cores of ..., x86_64: avx2, ...; no amx_bf16"."""
    facts = {}
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        facts = {key.strip(): value.strip() for key, _, value in lines}
    flags = facts.get("flags", facts.get("Features", "")).split()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = facts.get("model name") or platform.processor() or "an unnamed processor"
    has = ", ".join(flag for flag in FLAGS if flag in flags) or "unknown"
    lacks = ", ".join(flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag not in flags)
    lacking = f"; no {lacks}" if platform.machine() == "x86_64" and lacks else ""
    return f"{cores} cores of {model}, {platform.machine()}, {platform.system()}: {has}{lacking}"


def versions() -> str:
    """Python and packages, as "Python 3.11.7, torch 2.13.0, ..."; then where other environments differ."""
    found = here()
    said = [", ".join(f"{name} {version}" for name, version in found.items())]
    for variable, python in sorted(os.environ.items()):
        if variable.startswith("BENCH_PYTHON_"):
            peer = variable.removeprefix("BENCH_PYTHON_").lower().replace("_", "-")
            done = subprocess.run([python, "-m", "benchmarks.machine"], capture_output=True, text=True, check=True)
            others = json.loads(done.stdout.splitlines()[-1])
            differ = [f"{name} {version}" for name, version in others.items() if found.get(name) != version]
            said.append(f"{peer} with {', '.join(differ) or 'the same'}")
    return "; ".join(said)


def here() -> dict[str, str]:
    """name -> version, in this environment; what is not installed is left out."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    print(json.dumps(here()))
