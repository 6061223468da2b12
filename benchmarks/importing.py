"""`python -m benchmarks.importing NAME`: the record of one import. Imports little itself, to be fresh."""

from __future__ import annotations

import importlib
import json
import sys
import time

if __name__ == "__main__":
    start = time.perf_counter()
    importlib.import_module(sys.argv[1])
    print(json.dumps({"us": (time.perf_counter() - start) * 1e6}))
