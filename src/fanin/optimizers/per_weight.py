"""What is chosen for single weights: which of them decay, and a factor on the learning rate of each."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from fanin import arguments
from fanin.optimizers.store import ByWeight


class PerWeight:
    """The part of an optimizer that treats weights differently. Choices are kept by parameter, not in files."""

    weight_decay: float | None
    _excluded: ByWeight[bool]
    _factors: ByWeight[float]
    _chooses: bool  # whether a choice was ever made

    def exclude_from_weight_decay(
        self,
        var_list: Iterable[Tensor] | None = None,
        var_names: Iterable[str] | None = None,
        module: torch.nn.Module | None = None,
    ) -> None:
        """Choose weights that do not decay; replaces an earlier choice.

        Args:
            var_list: the weights.
            var_names: patterns looked for in the full names of the parameters of `module`, as in ["bias"].
            module: whose parameters have those names; needed with `var_names`.

        Raises ValueError for names without a module, or that are found in none of its parameters.
        """
        chosen = list(var_list or [])
        names = list(var_names or [])
        if names and module is None:
            raise ValueError("var_names needs module=: a torch parameter does not know its own name.")
        if names and module is not None:
            hits = [w for full, w in module.named_parameters() if any(re.search(n, full) for n in names)]
            if not hits:
                raise ValueError(f"No parameter of {type(module).__name__} has a name with any of {names!r}.")
            chosen += hits
        self._excluded = ByWeight((w, True) for w in chosen)
        self._chooses = True

    def decays(self, weights: Iterable[Tensor]) -> list[bool]:
        """For each weight, whether weight decay changes it."""
        return [self.weight_decay is not None and w not in self._excluded for w in weights]

    def scale_learning_rate(self, weights: Iterable[Tensor], factor: float) -> None:
        """Let these weights learn, and decay, at `factor` times the learning rate; other weights keep theirs.

        Args:
            weights: parameters; a factor chosen before for one of them is replaced.
            factor: 0 or more; 1 is as without, 0 leaves the weights as they are.

        Raises ValueError for a bad factor, TypeError for what is no tensor; nothing is changed then.

        >>> from fanin.optimizers import SGD
        >>> a, b = (torch.nn.Parameter(torch.zeros(())) for _ in range(2))
        >>> optimizer = SGD(0.5)
        >>> optimizer.scale_learning_rate([b], 0.5)
        >>> optimizer.apply([torch.ones(()), torch.ones(())], [a, b])
        >>> a.item(), b.item()
        (-0.5, -0.25)
        """
        found = list(weights)
        factor = arguments.number("factor", factor)
        for weight in found:
            if not isinstance(weight, Tensor):
                raise TypeError(f"scale_learning_rate: expected weights, found {weight!r}.")
        self._chooses = True
        for weight in found:
            self._factors.pop(weight)
            if factor != 1:
                self._factors[weight] = factor

    def factors(self, weights: Iterable[Tensor]) -> list[float]:
        """For each weight, what its learning rate is multiplied by."""
        return [self._factors.get(w, 1.0) for w in weights]
