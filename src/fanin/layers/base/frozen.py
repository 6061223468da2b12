"""Parameters held frozen for a reason: each reason can be taken back, and with the last one the parameter is as before.

The record lives on the module that owns the parameter, by its local name, so copies and pickles keep it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from torch import nn

HELD = "_fanin_held"  # local name -> whether it trained before, and the reasons why it does not now


def held(module: nn.Module) -> dict[str, tuple[bool, frozenset[str]]]:
    """The record of one module: name -> (whether it trained before, reasons)."""
    found: dict[str, tuple[bool, frozenset[str]]] = module.__dict__.get(HELD, {})
    return found


def hold(module: nn.Module, names: Iterable[str], reason: str) -> None:
    """Freeze parameters of `module` for a reason, and note whether they trained before."""
    record = module.__dict__.setdefault(HELD, {})
    for name in names:
        parameter = module._parameters.get(name)
        if parameter is not None:
            before, reasons = record.get(name, (parameter.requires_grad, frozenset()))
            record[name] = before, reasons | {reason}
            parameter.requires_grad_(False)
    forget(module, ())


def release(module: nn.Module, reason: str, names: Collection[str] | None = None) -> None:
    """Take a reason back, for all parameters of `module` or those of these names."""
    record = module.__dict__.get(HELD, {})
    for name, (before, reasons) in list(record.items()):
        if reason not in reasons or (names is not None and name not in names):
            continue
        left = reasons - {reason}
        if left:
            record[name] = before, left
            continue
        del record[name]
        parameter = module._parameters.get(name)
        if parameter is not None and before:
            parameter.requires_grad_(True)
    forget(module, ())


def forget(module: nn.Module, names: Iterable[str]) -> None:
    """Drop what is noted of parameters that are gone, and the record if nothing is left in it."""
    record = module.__dict__.get(HELD, {})
    for name in names:
        record.pop(name, None)
    if not record:
        module.__dict__.pop(HELD, None)


def set_held(module: nn.Module, value: bool) -> Iterator[int]:
    """Note whether what a module keeps frozen in any case is to train later; yields the ids of its parameters."""
    firm = getattr(module, "_firmly_held", None)
    record = held(module)
    for name in firm() if firm is not None else ():
        if name in record:
            record[name] = value, record[name][1]
            yield id(module._parameters[name])


def described_held(module: nn.Module) -> dict[str, Any]:
    """The record as plain JSON data, with what trains now: a parameter may have been thawed by hand since."""
    return {
        name: {"before": before, "now": module.get_parameter(name).requires_grad, "for": sorted(reasons)}
        for name, (before, reasons) in held(module).items()
        if module._parameters.get(name) is not None
    }


def set_described_held(module: nn.Module, described: Any) -> None:
    """Put in force what `described_held` told. ValueError for anything else."""
    record = {}
    for name, told in described.items():
        good = isinstance(told, dict) and set(told) == {"before", "now", "for"} and isinstance(told["for"], list)
        if not good or not all(isinstance(reason, str) for reason in told["for"]):
            raise ValueError(f"{str(told)[:100]} does not say why {name[:100]!r} is frozen.")
        if module._parameters.get(name) is None or any(type(told[key]) is not bool for key in ("before", "now")):
            raise ValueError(f"{name[:100]!r} is no parameter that can be frozen.")
        record[name] = told["before"], frozenset(told["for"])
    for name, told in described.items():
        parameter = module.get_parameter(name)
        parameter.requires_grad_(told["now"] and parameter.dtype.is_floating_point)
    if record:
        module.__dict__[HELD] = record
