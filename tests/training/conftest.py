"""What all tests of training share; `engine_cases.py` and `compile_step_cases.py` can be imported by name."""

import sys
from pathlib import Path

import pytest

import fanin.program.run
from fanin.program.passes import PASSES
from fanin.program.passes.biases import sum_rows_by_product
from fanin.program.passes.cross_entropy import simplify_cross_entropy
from fanin.program.passes.small import mark_small_products

sys.path.append(str(Path(__file__).parent))
pytest.register_assert_rewrite("engine_cases", "compile_step_cases")

REWRITES = (sum_rows_by_product, simplify_cross_entropy, mark_small_products)  # these change the arithmetic
EXACT = tuple(one for one in PASSES if one not in REWRITES)


@pytest.fixture
def exact(monkeypatch):
    """Programs without the passes that change the arithmetic."""
    monkeypatch.setattr(fanin.program.run, "PASSES", EXACT)
