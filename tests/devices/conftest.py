"""Loads the second device into processes that are told where it lies, before any test runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from second_device import load

if "SECOND_DEVICE" in os.environ:
    load(os.environ["SECOND_DEVICE"])
