"""Views of a program's inputs, which are made once for inputs that are refilled, each by one operation if possible."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx


class InputViews:
    """The expressions of views of the inputs, and their names w0, w1, ..."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}  # expression -> name
        self._base: dict[fx.Node, fx.Node] = {}  # view -> the input that it is a view of

    def name(self, expression: str) -> str:
        """The name of an expression, the same for the same expression."""
        return self.names.setdefault(expression, f"w{len(self.names)}")

    def strided(self, node: fx.Node) -> tuple[fx.Node, tuple[int, ...], tuple[int, ...]] | None:
        """Input, shape and strides of a view, if one `as_strided` can make it; else None."""
        source: Any = node.args[0]
        base = self._base.get(source, source)
        view, whole = node.meta["val"], base.meta["val"]
        if not isinstance(view, Tensor) or view.dtype != whole.dtype or base.op != "placeholder":
            return None
        if view.storage_offset() != whole.storage_offset():
            return None
        self._base[node] = base
        return base, tuple(view.shape), tuple(view.stride())

    def read_by(self, lines: Iterable[str]) -> dict[str, str]:
        """Name -> expression of the views that these lines read, directly or through other views."""
        wanted = set(_names("\n".join(lines)))
        found = []
        for expression, name in reversed(self.names.items()):
            if name in wanted:
                found.append((name, expression))
                wanted.update(_names(expression))
        return dict(reversed(found))


def _names(source: str) -> list[str]:
    return re.findall(r"\bw\d+\b", source)
