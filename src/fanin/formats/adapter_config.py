"""`adapter_config.json`: the numbers of an adapter, and which layers have it, as PEFT 0.21.2 writes them.

Layers that differ from the rest are named by patterns, regular expressions. Only simple ones are evaluated: names, dots,
`.*`, `.+`, `\\d`, `^` and `$`; others could be made to take for ever. No path in the file is opened, no name imported.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fanin.errors import MismatchError, TooLargeError
from fanin.formats import limits
from fanin.formats.faults import Faults
from fanin.initializers.base import finite_number

# Keys that say nothing about what the adapter computes on a model that is there.
_TOLD = frozenset(
    "auto_mapping base_model_name_or_path corda_config eva_config exclude_modules fan_in_fan_out inference_mode "
    "layers_pattern layers_to_transform lora_ga_config megatron_core peft_version qalora_group_size revision "
    "runtime_config task_type".split()
)
_READ = frozenset(
    "alpha_pattern bias init_lora_weights lora_alpha lora_dropout peft_type r rank_pattern target_modules "
    "use_rslora".split()
)
_HARMLESS_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # other first values change the model's own weights
_PATTERN = re.compile(r"\^?(?:[\w-]|\\[.\-]|\.[*+]?|\\d[*+]?)*\$?", re.ASCII)
_PATTERN_LENGTH, _REPETITIONS, _MATCHES = 1_000, 2, 2_000_000


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
        cls, ranks: Mapping[str, int], alphas: Mapping[str, float], dropout: float, rslora: bool, others: list[str]
    ) -> Config:
        """What says these ranks and alphas, path -> number; `others` are the paths of the model's other modules."""
        rank, alpha = (Counter(numbers.values()).most_common(1)[0][0] for numbers in (ranks, alphas))
        names: tuple[str, ...] | str = tuple(ranks)
        if any(other.endswith(f".{path}") for path in ranks for other in others):
            names = f"^({'|'.join(map(re.escape, ranks))})$"  # a path, as the end of another, would mean that one too
        return cls(
            int(rank),
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
        """The content of a file. Raises a FormatError for anything that fanin does not compute, or not read."""
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
        if found.get("bias", "none") != "none":
            faults.found.append(f"bias is {_shown(found['bias'])}; only 'none' is read")
        start = found.get("init_lora_weights", True)
        if not isinstance(start, (bool, str)) or (str(start).lower() if isinstance(start, str) else start) not in (
            _HARMLESS_STARTS
        ):
            faults.found.append(f"init_lora_weights is {_shown(start)}: the base weights were changed for it, too")
        values: dict[str, Any] = {}
        for name, key, read in (
            ("rank", "r", _rank),
            ("alpha", "lora_alpha", _alpha),
            ("ranks", "rank_pattern", lambda value: _patterns(value, _rank)),
            ("alphas", "alpha_pattern", lambda value: _patterns(value, _alpha)),
            ("targets", "target_modules", _targets),
            ("dropout", "lora_dropout", _dropout),
            ("rslora", "use_rslora", _flag),
        ):
            try:
                values[name] = read(found.get(key, _DEFAULTS[key]))
            except (TypeError, ValueError) as error:
                faults.found.append(f"{key}: {error}".removesuffix("."))
        faults.check()
        exceptions = ("exclude_modules", "layers_to_transform", "layers_pattern")
        return cls(**values, whole=not any(found.get(key) for key in exceptions))

    def numbers(self, paths: list[str]) -> dict[str, tuple[int, float]]:
        """Path -> its R and alpha, as PEFT finds them: a pattern fits a path or, at a dot, its end."""
        if (len(self.ranks) + len(self.alphas)) * len(paths) > _MATCHES:
            raise TooLargeError(f"{len(self.ranks) + len(self.alphas)} patterns for {len(paths)} layers.")
        ranks = [(re.compile(rf"(.*\.)?({pattern})$"), rank) for pattern, rank in self.ranks.items()]
        alphas = [(re.compile(rf"(.*\.)?({pattern})$"), alpha) for pattern, alpha in self.alphas.items()]
        return {
            path: (
                next((rank for pattern, rank in ranks if pattern.match(path)), self.rank),
                next((alpha for pattern, alpha in alphas if pattern.match(path)), self.alpha),
            )
            for path in paths
        }

    def targeted(self, paths: list[str]) -> list[str]:
        """Those of the paths that must have the adapter; [] if the file says it in a way that is not evaluated."""
        if isinstance(self.targets, str) or not self.whole:
            return []
        names = set(self.targets)
        return [path for path in paths if not names.isdisjoint(_ends(path))]


# PEFT's own, for keys that a file leaves out.
_DEFAULTS: dict[str, Any] = {
    "r": 8,
    "lora_alpha": 8,
    "rank_pattern": {},
    "alpha_pattern": {},
    "target_modules": None,
    "lora_dropout": 0.0,
    "use_rslora": False,
}


def _ends(path: str) -> list[str]:
    """"a.b.c" -> ["a.b.c", "b.c", "c"]."""
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
    return finite_number(value, "alpha")


def _dropout(value: Any) -> float:
    fraction = finite_number(value, "the fraction")
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


def _patterns(value: Any, read: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"expected pattern -> number, found {_shown(value)}.")
    for pattern in value:
        too_much = len(pattern) > _PATTERN_LENGTH or len(re.findall(r"[*+]", pattern)) > _REPETITIONS
        if too_much or not _PATTERN.fullmatch(pattern):
            raise ValueError(
                f"the pattern {_shown(pattern)} is not evaluated; write names, with '.', '.*', '\\d', '^' and '$' at most."
            )
    return {pattern: read(number) for pattern, number in value.items()}
