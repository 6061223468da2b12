"""What a file has once, though configs hold it in several places: modules, and names of the user's own things."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


class _Sharing(threading.local):
    numbers: Mapping[int, int] = {}  # id of an object that is written several times -> its number
    modules: dict[int, nn.Module] | None = None  # number -> module that was read
    written: dict[str, Any] | None = None  # name -> class or function of one's own that was written under it


_here = _Sharing()


@contextmanager
def sharing(objects: Iterable[Any] = ()) -> Iterator[dict[str, Any]]:
    """Inside the block, modules that a config holds several times stay one: they have a number. Names of classes and
    functions that nobody registered stand for one each. For this thread only.

    Args:
        objects: what gets a number when it is written, Keras's `shared_object_id`. Reading finds them by it.

    Yields a dict that comes to hold those classes and functions by their names, as `custom_objects` does.
    """
    previous = _here.numbers, _here.modules, _here.written
    _here.numbers, _here.modules = {id(obj): number for number, obj in enumerate(objects, 1)}, {}
    written: dict[str, Any] = {}
    _here.written = written
    try:
        yield written
    finally:
        _here.numbers, _here.modules, _here.written = previous


def number_of(obj: Any) -> int | None:
    """The number that `obj` is written with, or None."""
    return _here.numbers.get(id(obj))


def module_of(number: Any) -> nn.Module | None:
    """The module that was read with that number, or None."""
    return _here.modules.get(number) if _here.modules and isinstance(number, int) else None


def keep_module(number: Any, module: Any) -> None:
    """Let `module_of` find it from now on, if it is a module with a number."""
    if _here.modules is not None and isinstance(number, int) and isinstance(module, nn.Module):
        _here.modules[number] = module


def claim_name(name: str, obj: Any) -> bool:
    """Note that `name` was written for `obj`. False if it already stands for something else."""
    return _here.written is None or _here.written.setdefault(name, obj) is obj
