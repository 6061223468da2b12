"""What an optimizer keeps for each weight, by parameter: it goes when the parameter goes, and copies with its model."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fanin.optimizers.core import Slots, Update

Value = TypeVar("Value")


class ByWeight(Generic[Value]):
    """Parameter -> value, by identity and with weak keys.

    Copies and pickles carry the pairs, so an optimizer copied together with its model goes on with the model's copy.
    """

    def __init__(self, pairs: Iterable[tuple[Tensor, Value]] = ()) -> None:
        self._values: Any = WeakTensorKeyDictionary()
        for weight, value in pairs:
            self[weight] = value

    def get(self, weight: Tensor, default: Any = None) -> Any:
        """The value of a weight, or `default`."""
        return self._values.get(weight, default)

    def pop(self, weight: Tensor) -> None:
        """Forget a weight, if it is known."""
        self._values.pop(weight, None)

    def items(self) -> list[tuple[Tensor, Value]]:
        """All pairs, in the order in which they came."""
        return list(self._values.items())

    def __setitem__(self, weight: Tensor, value: Value) -> None:
        self._values[weight] = value

    def __contains__(self, weight: Tensor) -> bool:
        return weight in self._values

    def __iter__(self) -> Iterator[Tensor]:
        return iter(list(self._values.keys()))

    def __len__(self) -> int:
        return len(self._values)

    def __getstate__(self) -> dict[str, Any]:
        return {"pairs": self.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["pairs"])  # type: ignore[misc]


class SlotStore:
    """The slots of each weight: made when first asked for; freezing and thawing a weight keeps them."""

    def __init__(self) -> None:
        self._slots: ByWeight[Slots] = ByWeight()
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
        return {"_slots": self._slots, "_last": ([], [])}


class Holder(Update):
    """The part of an optimizer that holds slots, and remembers the weights it was built for."""

    _store: SlotStore
    _built: list[weakref.ref[Tensor]]
    name: str

    @property
    def built(self) -> bool:
        """Whether `build` was called, by hand or by the first `apply`."""
        return bool(self._built)

    def build(self, weights: Iterable[Tensor]) -> None:
        """Make the slots of `weights`, and remember their order for calls that do not name them."""
        found = list(weights)
        self.slots(found)
        self.remember(found)

    def remember(self, weights: Sequence[Tensor]) -> None:
        """Remember these weights and their order."""
        self._built = [weakref.ref(w) for w in weights]

    def slots(self, weights: Sequence[Tensor]) -> list[Slots]:
        """The slots of each weight, kept by parameter and made when first asked for; see `SlotStore`."""
        return self._store.get(weights, self.init_slots)

    def _known(self, weights: Iterable[Tensor] | None) -> list[Tensor]:
        if weights is not None:
            return list(weights)
        alive = [ref() for ref in self._built]
        if not alive or any(w is None for w in alive):
            raise ValueError(f"{self.name} does not know its weights: call build(weights), or pass them.")
        return [w for w in alive if w is not None]


def _follows(slots: Slots, weight: Tensor) -> bool:
    """Whether slots still have the shape, dtype and device of their weight."""
    for value in slots.values():
        return value.dtype == weight.dtype and value.device == weight.device and value.shape == weight.shape
    return True
