"""Layers of ours that take adapters: Keras's `lora_rank` and `enable_lora`, and adapters under other names."""

from __future__ import annotations

from typing import Any

import torch

from fanin import initializers
from fanin.errors import NotYetError
from fanin.kernels import Adapter, KernelScheme, LowRank, Slot
from fanin.layers.base.adapted import Adapted
from fanin.layers.base.frozen import hold
from fanin.layers.base.rule import Ruled
from fanin.weights import REGULARIZERS, set_fact

LORA = "lora"  # Keras's one adapter: its weights are lora_kernel_a and lora_kernel_b


class LowRankLayer(Adapted, Ruled):
    """A layer whose scheme can have adapters. Subclasses say `_slots` and `_sizes`."""

    def _slots(self, input_dim: int | None) -> list[Slot]:
        raise NotImplementedError

    # --- Keras's adapter ----------------------------------------------------------------------------------------------

    def _set_scheme(self, scheme: KernelScheme, lora_rank: int | None, lora_alpha: float | None) -> None:
        """In `__init__`: the scheme, with Keras's adapter if there is a rank, and places for all weights."""
        if lora_rank is None and lora_alpha is not None:
            raise ValueError(f"{type(self).__name__}: lora_alpha={lora_alpha!r} needs a lora_rank.")
        if lora_rank is not None:
            scheme = LowRank(scheme, (_lora(type(self).__name__, lora_rank, lora_alpha),), active=LORA)
        self.scheme = scheme
        for slot in self._slots(None):
            if slot.trainable:
                self._hold_place(slot.name)
        if isinstance(scheme, LowRank):
            hold(self, [slot.name for slot in scheme.base.slots(None, 0)], LORA)

    def _fill_all(self, input_dim: int) -> None:
        """In `build`: make all weights, and write the first values that were given, for the adapters too or not."""
        slots = self._slots(input_dim)
        first = [slot for slot in slots if not slot.late]
        for slot in first:
            self._fill(slot.name, slot.shape, slot.initializer, slot.dtype, slot.trainable)
        if self._initial_weights is not None and len(self._initial_weights) == len(first):
            self._use_initial_weights()
        for slot in slots:
            if slot.late:
                self._fill(slot.name, slot.shape, slot.initializer, slot.dtype, slot.trainable)
        self._use_initial_weights()

    def _effective(self) -> torch.Tensor:
        """What the layer multiplies by. NotYetError for adapters on a kernel without values."""
        if self.adapters and not self.built:
            raise NotYetError(f"Layer {self.name!r} has no {self.scheme.part} with adapters yet: build it, or call it.")
        return self.scheme.dense(self)

    @property
    def lora_enabled(self) -> bool:
        """Whether the layer has Keras's adapter, of the name "lora"."""
        return LORA in self.adapters

    @property
    def lora_rank(self) -> int | None:
        """The rank of Keras's adapter, or None."""
        return self.adapters[LORA].rank if self.lora_enabled else None

    @property
    def lora_alpha(self) -> float | None:
        """The alpha of Keras's adapter, or None."""
        return self.adapters[LORA].alpha if self.lora_enabled else None

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        a_initializer: Any = "he_uniform",
        b_initializer: Any = "zeros",
    ) -> None:
        """Freeze the kernel and add to it scale A @ B, where A (I, R) and B (R, U) train; the bias goes on training.

        Args:
            rank: R, a positive integer.
            lora_alpha: scale = lora_alpha / rank; default the rank.
            a_initializer: what fills A.
            b_initializer: what fills B; with zeros the layer computes at first what it did before.

        The weights are `lora_kernel_a` and `lora_kernel_b` (of an Embedding `lora_embeddings_a` and `_b`), float32 and
        last in `weights`; the regularizer of the kernel holds for both. An adapter that acted before stays, idle.
        Raises ValueError, and changes nothing, for a layer that is not built, that has a constraint on the kernel, or
        where LoRA is enabled already. After Keras's `enable_lora`.
        """
        if not self.built:
            raise ValueError(
                f"Layer {self.name!r} is not built, so enable_lora does not know how large A is: call the layer once."
            )
        self._attach(_lora(f"Layer {self.name!r}", rank, lora_alpha, a_initializer, b_initializer))
        self._activate(LORA)

    def _lora_config(self) -> dict[str, Any]:
        """Keras's two keys, if there is a rank."""
        return {"lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha} if self.lora_enabled else {}

    # --- any adapter --------------------------------------------------------------------------------------------------

    def add_adapter(
        self,
        name: str,
        rank: int,
        alpha: float | None = None,
        dropout: float = 0.0,
        rslora: bool = False,
        a_initializer: Any = "he_uniform",
        b_initializer: Any = "zeros",
    ) -> None:
        """Add an adapter to this layer and let it act: from now on only its two tensors train here.

        Args:
            name: letters, digits and underscores; the weights are `<name>_kernel_a` (I, R) and `<name>_kernel_b`
                (R, U), float32.
            rank: R, a positive integer.
            alpha: scale = alpha / rank; default the rank.
            dropout: the fraction of the inputs of A that is set to 0 in training (in an Embedding, of A's rows).
            rslora: scale = alpha / sqrt(rank) instead.
            a_initializer: what fills A.
            b_initializer: what fills B.

        `fanin.adapters` does the same for whole models, and removes, scales, combines and merges adapters. Raises
        ValueError, and changes nothing, for a layer that is not built, a name that is taken, or a kernel with a
        constraint.

        >>> import torch
        >>> from fanin.layers import Dense
        >>> layer = Dense(3)
        >>> layer.build((None, 4))
        >>> layer.add_adapter("ann", rank=2)
        >>> [tuple(weight.shape) for weight in layer.trainable_weights]
        [(4, 2), (2, 3)]
        """
        adapter = Adapter(
            name,
            rank,
            alpha,
            dropout,
            rslora,
            a_initializer=initializers.get(a_initializer),
            b_initializer=initializers.get(b_initializer),
        )
        self._attach(adapter)
        hold(self, self._parameters.keys() - set(self._pair_names()), name)
        self._activate(name)

    def _why_no_adapter(self, name: str | None = None) -> str | None:
        if not self.built:
            return "the layer is not built, so the size of A is not known: call it once"
        return super()._why_no_adapter(name)

    def _make(self, slot: Slot) -> None:
        part = self.scheme.part
        set_fact(self, REGULARIZERS, slot.name, getattr(self, f"{part}_regularizer"))
        self._fill(slot.name, slot.shape, slot.initializer, slot.dtype, slot.trainable)

    def _draw(self, slot: Slot) -> None:
        weight = getattr(self, slot.name)
        weight.copy_(self._initial(slot.name, tuple(weight.shape), weight.dtype, slot.initializer))

    def _called(self) -> str:
        return f"Layer {self.name!r}"

    def _ruled(self, part: str) -> list[str]:
        """The rules of the kernel are in force on those slots of the scheme that carry them."""
        slots = [slot for slot in self._slots(None) if slot.carries_rules]
        return [slot.name for slot in slots if (slot.name == "bias") == (part == "bias")]

    def __setattr__(self, name: str, value: Any) -> None:
        """As a layer's; a constraint on what has an adapter is refused."""
        scheme = self.__dict__.get("scheme")
        if value is not None and isinstance(scheme, LowRank) and name == f"{scheme.part}_constraint":
            raise ValueError(
                f"Layer {self.name!r} cannot have a {name}, found {value!r}: it has the adapters "
                f"{', '.join(map(repr, self.adapters))}, and the sum would not keep it."
            )
        super().__setattr__(name, value)


def _lora(
    who: str, rank: int, alpha: float | None, a_initializer: Any = "he_uniform", b_initializer: Any = "zeros"
) -> Adapter:
    try:
        a, b = initializers.get(a_initializer), initializers.get(b_initializer)
        return Adapter(LORA, rank, alpha, a_initializer=a, b_initializer=b)
    except ValueError as error:
        raise ValueError(f"{who}, LoRA: {error}") from None
