"""`adapter_config.json`: the numbers of an adapter, and which layers have it, as PEFT 0.21.2 writes them.

Layers that differ from the rest are named by patterns, regular expressions. Only simple ones are evaluated, of names,
dots, `.*`, `.+`, `\\d`, `^` and `$`, within a number of steps: others could be made to take for ever. No path in the
file is opened, no name imported.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fanin import arguments
from fanin.errors import MismatchError, TooLargeError
from fanin.formats import limits
from fanin.formats.faults import Faults

# Keys that say nothing about what the adapter computes on a model that is there.
_TOLD = frozenset([
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "layers_pattern", "layers_to_transform", "lora_ga_config", "megatron_core", "peft_version",
    "qalora_group_size", "revision", "runtime_config", "task_type",
])  # fmt: skip
_READ = frozenset([
    "alpha_pattern", "bias", "init_lora_weights", "lora_alpha", "lora_dropout", "peft_type", "r", "rank_pattern",
    "target_modules", "use_rslora",
])  # fmt: skip
_HARMLESS_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # other first values change the model's own weights
_TOKEN = r"[^\\.*+?()\[\]{}|^$]|\\\W|\.[*+]?|\\d[*+]?"  # a character, an escaped one, ".", ".*", r"\d", ...
_PATTERN = re.compile(rf"\^?(?:{_TOKEN})*+\$?", re.DOTALL)
_REPEATED = frozenset((".*", ".+", r"\d*", r"\d+"))
_STEPS = 100_000_000  # of matching, about a second


@dataclass(frozen=True)
class Config:
    """The file's content.

    Attributes:
        rank: R of the layers that no pattern names.
        alpha: of the layers that no pattern names; scale = alpha / R.
        ranks: pattern -> R; the first that fits holds.
        alphas: pattern -> alpha; the first that fits holds.
        targets: names or ends of paths of the layers that have the adapter; a string is a pattern of paths.
        dropout: the fraction of the inputs of A that is set to 0 in training.
        rslora: whether scale = alpha / sqrt(R) instead.
        whole: whether every layer that `targets` names has the adapter; if not, the file has exceptions to them.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    targets: tuple[str, ...] | str
    dropout: float = 0.0
    rslora: bool = False
    whole: bool = True

    @classmethod
    def of(
        cls,
        ranks: Mapping[str, int],
        alphas: Mapping[str, float],
        dropout: float,
        rslora: bool,
        others: Collection[str],
    ) -> Config:
        """What says these ranks and alphas, path -> number; `others` are the paths of the model's other modules."""
        rank, alpha = Counter(ranks.values()).most_common(1)[0][0], Counter(alphas.values()).most_common(1)[0][0]
        names: tuple[str, ...] | str = tuple(ranks)
        if any(other.endswith(f".{path}") for path in ranks for other in others):
            names = f"^({'|'.join(map(re.escape, ranks))})$"  # a path, as the end of another, would mean that one too
        return cls(
            rank,
            alpha,
            {f"^{re.escape(path)}": each for path, each in ranks.items() if each != rank},
            {f"^{re.escape(path)}": each for path, each in alphas.items() if each != alpha},
            names,
            dropout,
            rslora,
        )

    def to_json(self) -> bytes:
        """The file, which PEFT reads too."""
        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        values = {
            "alpha_pattern": {pattern: _whole(alpha) for pattern, alpha in self.alphas.items()},
            "auto_mapping": None,
            "base_model_name_or_path": None,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "lora_alpha": _whole(self.alpha),
            "lora_dropout": self.dropout,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": dict(self.ranks),
            "revision": None,
            "target_modules": targets,
            "task_type": None,
            "use_dora": False,
            "use_rslora": self.rslora,
        }
        return json.dumps(values, indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Config:
        """The content of a file. Raises a FormatError for what is no such file, and for what fanin does not compute."""
        found = limits.parse_json(data)
        if not isinstance(found, dict):
            raise MismatchError(f"expected an object with the options of LoRA, found {str(found)[:60]}.")
        if found.get("peft_type") != "LORA":
            raise MismatchError(f"peft_type is {_shown(found.get('peft_type'))}; only 'LORA' is read.")
        faults = Faults()
        faults.found += [
            f"{key[:60]} is {_shown(value)}, which fanin does not compute"
            for key, value in found.items()
            if key not in _READ and key not in _TOLD and value
        ]
        for key, most in (("bias", ("none",)), ("init_lora_weights", _HARMLESS_STARTS)):
            if key in found and found[key] not in most:
                faults.found.append(f"{key} is {_shown(found[key])}; only {', '.join(map(repr, most))} can be read")
        values: dict[str, Any] = {}
        for name, (key, default, read) in _FIELDS.items():
            try:
                values[name] = read(found.get(key, default))
            except (TypeError, ValueError) as error:
                faults.found.append(f"{key}: {error}".removesuffix("."))
        faults.check()
        exceptions = ("exclude_modules", "layers_to_transform", "layers_pattern")
        return cls(**values, whole=not any(found.get(key) for key in exceptions))

    def numbers(self, paths: Collection[str]) -> dict[str, tuple[int, float]]:
        """Path -> its R and alpha, as PEFT finds them: a pattern fits a path or, after a dot, its end."""
        steps = 0
        for pattern in (*self.ranks, *self.alphas):
            steps += _steps(pattern, paths)
            if steps > _STEPS:
                raise TooLargeError(f"the patterns of ranks and alphas take more than {_STEPS} steps to match.")
        ranks, alphas = _compiled(self.ranks), _compiled(self.alphas)
        return {
            path: (
                next((rank for pattern, rank in ranks if pattern.match(path)), self.rank),
                next((alpha for pattern, alpha in alphas if pattern.match(path)), self.alpha),
            )
            for path in paths
        }

    def targeted(self, paths: Iterable[str]) -> list[str]:
        """Those of the paths that must have the adapter; [] if the file says it in a way that is not evaluated."""
        if isinstance(self.targets, str) or not self.whole:
            return []
        names = set(self.targets)
        return [path for path in paths if not names.isdisjoint(_ends(path))]


# --- values -----------------------------------------------------------------------------------------------------------


def _ends(path: str) -> list[str]:
    """A path and all ends of it: "a.b.c", "b.c", "c"."""
    parts = path.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _whole(number: float) -> float:
    """An int where it can be one, as PEFT has alphas."""
    return int(number) if number == int(number) and abs(number) < 2**53 else number


def _shown(value: Any) -> str:
    return repr(value)[:60]


def _rank(value: Any) -> int:
    if type(value) is not int or value <= 0:
        raise ValueError(f"expected a positive integer, found {_shown(value)}.")
    return value


def _alpha(value: Any) -> float:
    return float(arguments.finite("alpha", value))


def _dropout(value: Any) -> float:
    fraction = float(arguments.finite("the fraction", value))
    if not 0 <= fraction < 1:
        raise ValueError(f"expected a number from 0 to below 1, found {_shown(value)}.")
    return fraction


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"expected true or false, found {_shown(value)}.")
    return value


def _targets(value: Any) -> tuple[str, ...] | str:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    if isinstance(value, str) or value is None:
        return value or ".*"
    raise ValueError(f"expected names of layers, found {_shown(value)}.")


def _patterns(value: Any, read: Callable[[Any], Any]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"expected pattern -> number, found {_shown(value)}.")
    for pattern in value:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(
                rf"the pattern {_shown(pattern)} is not evaluated: it has more than names, '.', '.*', '\d'."
            )
    return {pattern: read(number) for pattern, number in value.items()}


# Attribute -> key, what a file that leaves it out means, and how a value is read.
_FIELDS: dict[str, tuple[str, Any, Callable[[Any], Any]]] = {
    "rank": ("r", 8, _rank),
    "alpha": ("lora_alpha", 8, _alpha),
    "ranks": ("rank_pattern", {}, partial(_patterns, read=_rank)),
    "alphas": ("alpha_pattern", {}, partial(_patterns, read=_alpha)),
    "targets": ("target_modules", None, _targets),
    "dropout": ("lora_dropout", 0.0, _dropout),
    "rslora": ("use_rslora", False, _flag),
}


# --- patterns ---------------------------------------------------------------------------------------------------------


def _steps(pattern: str, paths: Collection[str]) -> int:
    """A bound of what compiling a pattern and matching it with all paths takes: each repetition tries every end."""
    repetitions = sum(token[0] in _REPEATED for token in re.finditer(_TOKEN, pattern, re.DOTALL))
    if repetitions > 8:
        return _STEPS + 1
    powers: list[int] = [(len(path) + 1) ** (1 + repetitions) for path in paths]
    return 10_000 + 1_000 * len(pattern) + sum(powers)


def _compiled(patterns: Mapping[str, Any]) -> list[tuple[re.Pattern[str], Any]]:
    """PEFT's `get_pattern_key`."""
    return [(re.compile(rf"(.*\.)?({pattern})$"), number) for pattern, number in patterns.items()]
