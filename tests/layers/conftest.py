"""Lets the tests of layers import `axes_cases.py` by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
