"""Vectors for whole numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from fanin import arguments, constraints, initializers, regularizers
from fanin.kernels import Full, Slot
from fanin.layers.base.convert import as_given
from fanin.layers.base.layer import family, pure
from fanin.layers.base.lora import LowRankLayer
from fanin.layers.base.rule import Rule
from fanin.weights import CONSTRAINTS, REGULARIZERS


@family.entry()
class Embedding(LowRankLayer):
    """outputs[...] = embeddings[inputs[...]]: each index is replaced by its row of a matrix that is learned.

    Shapes: inputs (B, ...), whole numbers from 0 to input_dim - 1 of any integer dtype, or as floats -> (B, ...,
    output_dim); embeddings (input_dim, output_dim).

    Args:
        input_dim: how many indices there are, a positive integer.
        output_dim: the size of a vector, a positive integer.
        embeddings_initializer: default uniform, between -0.05 and 0.05.
        embeddings_regularizer: penalty on the whole matrix, one entry in `losses`.
        embeddings_constraint: applied to the matrix after each update.
        mask_zero: whether index 0 only fills up: the mask (B, ...) of the output is False there.
        weights: the first values, a matrix or a list with one; the layer is then built at once.
        lora_rank: R, as for `enable_lora`: the matrix is frozen, and two small ones (input_dim, R) and (R, output_dim)
            train.
        lora_alpha: the scale of LoRA is lora_alpha / lora_rank; default lora_rank.
        **kwargs: name, dtype and the other arguments of a layer. `input_length` is read and ignored, as in Keras 3.

    Raises ValueError for sizes that are no positive integers; IndexError, at a call on the CPU, for an index out of
    range, negative ones included (on a GPU, PyTorch stops the program). After Keras's `Embedding`.

    >>> layer = Embedding(3, 2, weights=torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]]))
    >>> layer(torch.tensor([[2, 1]])).tolist()
    [[[3.0, 4.0], [1.0, 2.0]]]
    """

    embeddings_regularizer = Rule(REGULARIZERS, regularizers.get)
    embeddings_constraint = Rule(CONSTRAINTS, constraints.get)

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        **kwargs: Any,
    ):
        input_dim = arguments.positive("Embedding: input_dim", input_dim)
        output_dim = arguments.positive("Embedding: output_dim", output_dim)
        if kwargs.pop("quantization_config", None) is not None:
            raise ValueError("Embedding: quantization_config is not supported; only None is read.")
        kwargs.pop("input_length", None)
        if weights is not None and not (isinstance(weights, (list, tuple)) and len(weights) == 1):
            weights = [weights]
        super().__init__(weights=weights, **kwargs)
        self.input_dim, self.output_dim = input_dim, output_dim
        self.mask_zero = self.supports_masking = bool(mask_zero)
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self._set_scheme(Full("embeddings"), lora_rank, lora_alpha)
        self.embeddings_regularizer, self.embeddings_constraint = embeddings_regularizer, embeddings_constraint
        if weights is not None:
            self.build(None)

    def _convert(self, leaf: Any) -> Any:
        return as_given(leaf, self)  # a 16-bit float could not hold the indices

    def _slots(self, input_dim: int | None) -> list[Slot]:
        return [
            slot if slot.initializer is not None else replace(slot, initializer=self.embeddings_initializer)
            for slot in self.scheme.slots(*self._sizes())
        ]

    def _sizes(self) -> tuple[int, int]:
        return self.input_dim, self.output_dim

    def build(self, input_shape: Any = None) -> None:
        """Make the matrix; the shape of the input has no part in it."""
        self._fill_all(self.input_dim)

    @property
    def effective_embeddings(self) -> torch.Tensor:
        """What the stored matrix amounts to, with the active adapter: (input_dim, output_dim)."""
        return self._effective()

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs (B, ...) -> (B, ..., output_dim)."""
        indices = inputs if inputs.dtype in (torch.int32, torch.int64) else inputs.long()
        try:
            outputs = self.scheme.lookup(indices, self)
        except IndexError:
            raise IndexError(self._out_of_range(indices)) from None
        return outputs.to(self.dtype_policy.compute)

    def _out_of_range(self, indices: torch.Tensor) -> str:
        place = ((indices < 0) | (indices >= self.input_dim)).nonzero()[0].tolist()
        return (
            f"Layer {self.name!r}: index {indices[tuple(place)].item()} at {tuple(place)} is out of range, expected 0 "
            f"to {self.input_dim - 1} (input_dim={self.input_dim})."
        )

    def makes_masks(self) -> bool:
        """With `mask_zero` only."""
        return self.mask_zero

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """False where the index is 0, with `mask_zero`; else None."""
        return inputs != 0 if self.mask_zero else None

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B, ...) -> (B, ..., output_dim)."""
        return (*input_shape, self.output_dim)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them, without null `quantization_config`, so that older versions read it."""
        own = {
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            **self._described(
                "embeddings_initializer", "embeddings_regularizer", "activity_regularizer", "embeddings_constraint"
            ),
            "mask_zero": self.mask_zero,
            **self._lora_config(),
        }
        return {**super().get_config(), **own}

    def _shape_from_state(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        return (None,) if all(name in shapes for name in self._base_names()) else None
