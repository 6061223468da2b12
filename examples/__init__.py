"""The demonstration, `python -m examples`: one small file for each chapter, each runnable alone.

`python examples/digits.py` and `python -m examples.digits` both work: here and there the files import one another by
their bare names, as scripts do.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
