"""The slots of each weight, kept by parameter: freezing and thawing it keeps them; they go when it goes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fanin.optimizers.core import Slots


class SlotStore:
    """Parameter -> slots, by identity and with weak keys.

    Copies and pickles carry the pairs, so an optimizer copied together with its model goes on with its state.
    """

    def __init__(self) -> None:
        self._slots: Any = WeakTensorKeyDictionary()
        self._last: tuple[list[weakref.ref[Tensor]], list[Slots]] = ([], [])

    def get(self, weights: Sequence[Tensor], make: Callable[[Tensor], Slots]) -> list[Slots]:
        """The slots of each weight: made when first asked for, moved when the weight moved.

        Args:
            weights: parameters, or tensors that stand for them.
            make: gives fresh slots for a weight.

        Raises ValueError for a weight that was resized.
        """
        refs, found = self._last
        if len(refs) == len(weights) and all(
            ref() is w and _follows(s, w) for ref, w, s in zip(refs, weights, found, strict=True)
        ):
            return found
        found = [self._one(w, make) for w in weights]
        self._last = ([weakref.ref(w) for w in weights], found)
        return found

    def _one(self, weight: Tensor, make: Callable[[Tensor], Slots]) -> Slots:
        slots: Slots | None = self._slots.get(weight)
        if slots is None:
            slots = self._slots[weight] = make(weight)
        for name, value in slots.items():
            if value.shape != weight.shape:
                raise ValueError(
                    f"A weight has shape {tuple(weight.shape)} and its {name} {tuple(value.shape)}: it was resized. "
                    "Make a new optimizer."
                )
        if not _follows(slots, weight):
            with torch.inference_mode(False):
                moved = {name: value.to(weight.device, weight.dtype) for name, value in slots.items()}
            slots.update(moved)
        return slots

    def __len__(self) -> int:
        return len(self._slots)

    def __getstate__(self) -> dict[str, Any]:
        return {"pairs": list(self._slots.items())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        for weight, slots in state["pairs"]:
            self._slots[weight] = slots


def _follows(slots: Slots, weight: Tensor) -> bool:
    """Whether slots still have the shape, dtype and device of their weight."""
    for value in slots.values():
        return value.dtype == weight.dtype and value.device == weight.device and value.shape == weight.shape
    return True
