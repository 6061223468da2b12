"""Pins the public names: each is in tests/public_names.txt, so that none appears or disappears unnoticed."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import fanin

LIST = Path(__file__).parent / "public_names.txt"
COMMAND = "python tests/test_public.py --write"


def public_names() -> list[str]:
    """Every name in `fanin.__all__` and in the `__all__` of fanin's public submodules, as a full path."""
    names = {f"fanin.{name}" for name in getattr(fanin, "__all__", ())}
    for module in pkgutil.iter_modules(fanin.__path__):
        if not module.name.startswith("_"):
            path = f"fanin.{module.name}"
            names |= {f"{path}.{name}" for name in getattr(importlib.import_module(path), "__all__", ())}
    return sorted(names)


def test_public_names_are_those_of_the_list() -> None:
    now, then = set(public_names()), set(LIST.read_text().split())
    report = [f"  new: {name}" for name in sorted(now - then)] + [f"  gone: {name}" for name in sorted(then - now)]
    assert not report, "\n".join(["The public names changed:", *report, f"If that is meant, run: {COMMAND}"])


def test_every_public_name_exists() -> None:
    missing = []
    for path in public_names():
        module, name = path.rsplit(".", 1)
        if not hasattr(importlib.import_module(module), name):
            missing.append(path)
    assert not missing, f"in __all__ but not defined: {', '.join(missing)}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {COMMAND}")
    LIST.write_text("".join(f"{name}\n" for name in public_names()))
    print(f"{LIST}: {len(public_names())} names")
