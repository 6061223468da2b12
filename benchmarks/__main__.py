"""`python -m benchmarks`: every benchmark, one after another."""

from __future__ import annotations

import os
import platform

import torch

from benchmarks import call, chain, imports, tables

if __name__ == "__main__":
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{platform.machine()}, {os.cpu_count()} processors, {versions}")
    imports.main()
    call.main()
    chain.main()
    tables.main()
