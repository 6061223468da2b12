"""Makes the folder `benchmarks` importable, and invents what a run could have found."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def _found_of(**figures: list[float]) -> dict[str, Any]:
    records = {
        name.replace("_", "-"): [{"us": value, "losses": [2.0, 1.0]} for value in values]
        for name, values in figures.items()
    }
    for record in records.get("limit", []):
        record |= {"gflops": 350.0, "gbytes": 20.0, "products_us": 60.0}
    return {"peers": records, "missing": {"flax": ["flax"]}, "failed": {"sklearn": "ValueError: no"}}


@pytest.fixture
def found_of() -> Callable[..., dict[str, Any]]:
    """name=[microseconds of each round], ... -> what was found; "_" stands for "-" in a name."""
    return _found_of
