"""What a layer writes to a weights file, and reads from it: Keras's hooks for layers that keep more than weights."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import nn

from fanin.layers.base.adapted import Adapted
from fanin.layers.base.convert import as_tensor
from fanin.layers.base.variables import own_weights


def saved_weights(module: nn.Module) -> list[torch.Tensor]:
    """A module's own weights, each once, without those of adapters, which have a place of their own in files."""
    apart = module._pair_names() if isinstance(module, Adapted) else ()
    return list({id(tensor): tensor for name, tensor in own_weights(module) if name not in apart}.values())


class OwnVariables(nn.Module):
    """The part of a layer that is asked for its own weights, without those of the layers inside, which are asked too.

    `.keras` and `.weights.h5` know a layer by these two methods; `.safetensors` holds the `state_dict` instead.
    """

    name: str

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Put what is to be saved into `store`: tensors, arrays or numbers by names without "/".

        By default the layer's own weights, as "0", "1", ... A layer that has more saves that too.
        """
        for index, weight in enumerate(saved_weights(self)):
            store[str(index)] = weight

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Take what was saved from `store`, numpy arrays by name; bfloat16 as float32.

        ValueError where the number of arrays or a shape does not fit; nothing is changed then.
        """
        weights = saved_weights(self)
        if len(store) != len(weights):
            raise ValueError(f"Layer {self.name!r} has {len(weights)} weights of its own, found {len(store)} arrays.")
        values = [as_tensor(store[str(index)], f"layer {self.name!r}") for index in range(len(weights))]
        for index, (weight, value) in enumerate(zip(weights, values, strict=True)):
            if weight.shape != value.shape:
                raise ValueError(
                    f"Layer {self.name!r}: weight {index} has shape {tuple(weight.shape)}, found {tuple(value.shape)}."
                )
        with torch.no_grad():
            for weight, value in zip(weights, values, strict=True):
                weight.copy_(value)

    def _loads_itself(self) -> bool:
        return type(self).load_own_variables is not OwnVariables.load_own_variables

    def _saves_itself(self) -> bool:
        return type(self).save_own_variables is not OwnVariables.save_own_variables
