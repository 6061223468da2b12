"""Learning rates of single layers: factors on the learning rate by patterns of names.

::

    model.compile("adam", "mse", learning_rate_multipliers={"embedding": 0.1, "*/bias": 2.0})
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from fanin import arguments
from fanin.layers.base.layer import Layer
from fanin.optimizers import Optimizer


def check(multipliers: Any) -> dict[str, float]:
    """The patterns and factors, or a ValueError that names what is neither."""
    if multipliers is None:
        return {}
    if not isinstance(multipliers, Mapping) or not all(isinstance(key, str) for key in multipliers):
        raise ValueError(f"compile: learning_rate_multipliers is a dict of pattern and factor, found {multipliers!r}.")
    return {key: arguments.number(f"learning_rate_multipliers[{key!r}]", value) for key, value in multipliers.items()}


def weight_paths(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Parameter]]:
    """Each Parameter with its path: the names of the layers it is in, and its own: "encoder/dense/kernel".

    A layer is called by its name, another module by the attribute that holds it; the outermost is left out.
    """
    for name, weight in module.named_parameters(recurse=False):
        yield f"{path}{name}", weight
    for attribute, child in module.named_children():
        name = child.name if isinstance(child, Layer) else attribute
        yield from weight_paths(child, f"{path}{name}/")


def apply(optimizer: Any, model: nn.Module, multipliers: Mapping[str, float]) -> None:
    """Scale the learning rates of the weights whose path, or the beginning of it up to a "/", matches a pattern.

    `*` stands for anything, "/" too. Of several patterns that match, the last given holds.

    Raises ValueError for a pattern that matches nothing, which lists the paths, and for an optimizer of torch's, which
    has groups of parameters for this.
    """
    if not multipliers:
        return
    if not isinstance(optimizer, Optimizer):
        raise ValueError("compile: learning_rate_multipliers are for fanin's optimizers; give torch's groups instead.")
    paths = list(weight_paths(model))
    for pattern, factor in multipliers.items():
        found = [weight for path, weight in paths if any(fnmatchcase(part, pattern) for part in _beginnings(path))]
        if not found:
            raise ValueError(
                f"compile: learning_rate_multipliers[{pattern!r}] matches no weight; there are "
                f"{', '.join(path for path, _ in paths)}."
            )
        optimizer.scale_learning_rate(found, factor)


def _beginnings(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
