"""Facts about the weights of a module: which regularizer and which constraint each one has.

The facts live on the module that owns the weight, by the weight's local name, never on the Parameter: attributes of a
Parameter vanish in deepcopy. Any `torch.nn.Module` can have them, so penalties and constraints serve every model.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from fanin.errors import nearest

REGULARIZERS = "_fanin_regularizers"
CONSTRAINTS = "_fanin_constraints"


def set_fact(module: nn.Module, kind: str, name: str, value: Any) -> None:
    """Note that weight `name` of `module` has the regularizer or constraint `value`; None takes it away.

    Args:
        module: the owner of the weight.
        kind: `REGULARIZERS` or `CONSTRAINTS`.
        name: the weight's local name, such as "kernel".
        value: the regularizer or constraint.
    """
    facts: dict[str, Any] = module.__dict__.setdefault(kind, {})
    if value is None:
        facts.pop(name, None)
    else:
        facts[name] = value


def get_fact(module: nn.Module, kind: str, name: str) -> Any:
    """The regularizer or constraint of weight `name` of `module`, or None."""
    return module.__dict__.get(kind, {}).get(name)


def each_fact(module: nn.Module, kind: str) -> Iterator[tuple[str, torch.Tensor, Any]]:
    """Every (full name, weight, regularizer or constraint) in `module` and its submodules, shared weights once.

    A weight that was set to None has none.
    """
    seen: dict[int, torch.Tensor] = {}  # keeps computed weights alive, so that no id comes twice
    for prefix, owner in module.named_modules():
        for name, value in owner.__dict__.get(kind, {}).items():
            weight = getattr(owner, name)
            if weight is not None and id(weight) not in seen:
                seen[id(weight)] = weight
                yield f"{prefix}.{name}" if prefix else name, weight, value


def set_facts(module: nn.Module, kind: str, rules: Mapping[str, Any]) -> list[str]:
    """Give every parameter whose full name matches a pattern that pattern's value; the last match wins.

    Args:
        module: any module, its parameters already made.
        kind: `REGULARIZERS` or `CONSTRAINTS`.
        rules: shell-style pattern -> value, as {"*.weight": L2(1e-4)}; a pattern "*.x" also matches a top-level "x".

    Returns the full names that matched. A pattern that matches nothing is a ValueError, and nothing is changed.
    """
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    found: dict[str, Any] = {}
    for pattern, value in rules.items():
        hits = [n for n in names if fnmatch.fnmatchcase(n, pattern) or fnmatch.fnmatchcase("." + n, pattern)]
        if not hits:
            raise ValueError(
                f"The pattern {pattern!r} matches no parameter of {type(module).__name__}.{nearest(pattern, names)}"
            )
        found.update(dict.fromkeys(hits, value))
    for full, value in found.items():
        path, _, name = full.rpartition(".")
        set_fact(module.get_submodule(path), kind, name, value)
    return list(found)
