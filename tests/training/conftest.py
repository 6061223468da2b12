"""What all tests of training share; `engine_cases.py` and `compile_step_cases.py` can be imported by name."""

import sys
from pathlib import Path

import pytest

import fanin.program.run
from fanin.program.passes import PASSES, ROUNDING

sys.path.append(str(Path(__file__).parent))
pytest.register_assert_rewrite("engine_cases", "compile_step_cases")

EXACT = tuple(one for one in PASSES if one not in ROUNDING)


@pytest.fixture
def exact(monkeypatch):
    """Programs without the passes that change the arithmetic."""
    monkeypatch.setattr(fanin.program.run, "PASSES", EXACT)
