"""Ten scripts as Keras's guides teach them run with `import fanin as keras`, and say the same numbers as with Keras.

Each script is run twice: as it stands, and with `CHANGES` made. It leaves `RESULTS`, a dict of numbers and facts;
`STEPS`, the number of updates behind them; and, where the frameworks draw different random numbers, `LOOSE`: numbers,
each with the distance that it may have.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

FOLDER = Path(__file__).parent
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("same_start", "test_scripts"))

# All that has to change in a script, here and in docs/migrating.md: a weight is a tensor, not something that holds one.
CHANGES = [
    (r"^import keras$", "import fanin as keras"),
    (r"^from keras\b", "from fanin"),
    (r"\.value\b", ""),
    (r"\.assign\(", ".copy_("),
    (r"\.assign_add\(", ".add_("),
]

# The frameworks add in different orders: a step brings some roundings of float32 (2^-24 each, relative to the largest
# number of a sum), and later steps carry on what earlier ones brought, enlarged where a loss is steep.
ROUNDINGS_PER_STEP = 256

# Shares of rows: where numbers differ that little, a row on the fence may still fall to the other side; one of 50.
SHARES = re.compile(r"(accuracy|acc|auc|precision|recall|caught)$")
ONE_ROW = 0.02


def changed(text: str) -> str:
    for found, replaced in CHANGES:
        text = re.sub(found, replaced, text, flags=re.MULTILINE)
    return text


def run(name: str, text: str) -> ModuleType:
    """The script as a module of its own, which stays importable while it runs."""
    module = ModuleType(name)
    sys.modules[name] = module
    try:
        exec(compile(text, str(FOLDER / f"{name}.py"), "exec"), module.__dict__)
    finally:
        del sys.modules[name]
    return module


def differences(mine: Any, theirs: Any, bound: float, where: str = "") -> Iterator[str]:
    """What is not alike in two nested structures: other keys, lengths, shapes or facts, numbers beyond the bound."""
    if isinstance(theirs, dict):
        if list(mine) != list(theirs) and sorted(mine) != sorted(theirs):
            yield f"{where}: keys {sorted(mine)}, expected {sorted(theirs)}"
            return
        for key in theirs:
            allowed = max(bound, ONE_ROW) if SHARES.search(str(key)) else bound
            yield from differences(mine[key], theirs[key], allowed, f"{where}/{key}")
    elif isinstance(theirs, (list, tuple)) and not all(isinstance(item, (int, float)) for item in theirs):
        if len(mine) != len(theirs):
            yield f"{where}: {len(mine)} entries, expected {len(theirs)}"
            return
        for place, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            yield from differences(one, other, bound, f"{where}/{place}")
    elif isinstance(theirs, (str, bool, int)) or theirs is None:
        if mine != theirs:
            yield f"{where}: {mine!r}, expected {theirs!r}"
    else:
        yield from _far(np.asarray(mine), np.asarray(theirs), bound, where)


def _far(mine: Any, theirs: Any, bound: float, where: str) -> Iterator[str]:
    if mine.shape != theirs.shape:
        yield f"{where}: shape {mine.shape}, expected {theirs.shape}"
    elif theirs.dtype.kind in "biu":
        if not np.array_equal(mine, theirs):
            yield f"{where}: {mine}, expected {theirs}"
    elif theirs.size:
        scale = max(1e-30, float(np.abs(theirs).max()))
        gap = float(np.abs(mine - theirs).max()) / scale
        if not gap <= bound:
            yield f"{where}: differs by {gap:.1e} of {scale:.4g}, allowed {bound:.1e}"


def test_differences_are_found() -> None:
    theirs = {"loss": [1.0, 2.0], "shape": (2, 3), "same": True, "arrays": [np.ones(2), np.zeros((1, 1))]}
    assert list(differences(theirs, theirs, 0.0)) == []
    for other in (
        {**theirs, "loss": [1.0, 2.003]},
        {**theirs, "loss": [1.0, float("nan")]},
        {**theirs, "loss": [1.0]},
        {**theirs, "shape": (2, 4)},
        {**theirs, "same": False},
        {**theirs, "arrays": [np.ones(2), np.zeros(1)]},
        {**theirs, "arrays": [np.ones(2)]},
        {**theirs, "more": 1},
    ):
        assert len(list(differences(other, theirs, 1e-3))) == 1, other


@pytest.fixture(autouse=True)
def beside_the_scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_the_same(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    theirs, mine = run(name, text), run(name, changed(text))
    assert "keras" in theirs.keras.__name__
    assert mine.keras.__name__ == "fanin"
    bound = ROUNDINGS_PER_STEP * 2.0**-24 * theirs.STEPS
    found = list(differences(mine.RESULTS, theirs.RESULTS, bound))
    assert found == []
    for what, (value, distance) in getattr(theirs, "LOOSE", {}).items():
        assert abs(mine.LOOSE[what][0] - value) <= distance, what
