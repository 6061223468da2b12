"""Lets the tests of hostile files import `bounds.py` by name."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
pytest.register_assert_rewrite("bounds")
