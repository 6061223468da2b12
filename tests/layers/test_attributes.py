"""Attributes of a layer: lists of layers become part of it, in the order in which Keras counts them."""

from __future__ import annotations

import pytest
import torch

from fanin.layers import Dense, Layer


class Blocks(Layer):
    """Layers before, in and after lists, which may still be empty when they are set."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Dense(1)
        self.pair = [Dense(2), Dense(3)]
        self.grown: list[Layer] = []
        self.named = {"a": Dense(4), "b": Dense(5)}
        self.last = Dense(7)
        self.numbers = [1, 2]
        self.grown.append(Dense(6))

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = [self.first, *self.pair, *self.grown, *self.named.values(), self.last]
        return torch.cat([layer(inputs) for layer in outputs], dim=-1)


def test_lists_of_layers_stand_where_they_were_set() -> None:
    layer = Blocks()
    layer(torch.ones(1, 2))
    assert [weight.shape[1] for weight in layer.weights if weight.ndim == 2] == [1, 2, 3, 6, 4, 5, 7]
    assert list(layer.state_dict())[:5] == [
        "first.kernel",
        "first.bias",
        "pair.0.kernel",
        "pair.0.bias",
        "pair.1.kernel",
    ]
    assert layer.numbers == [1, 2]


def test_keras_counts_them_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    import keras

    class Theirs(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.first = keras.layers.Dense(1)
            self.pair = [keras.layers.Dense(2), keras.layers.Dense(3)]
            self.named = {"a": keras.layers.Dense(4), "b": keras.layers.Dense(5)}
            self.last = keras.layers.Dense(7)

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return sum(layer(inputs).sum() for layer in [self.last, self.first, *self.pair, *self.named.values()])

    layer = Theirs()
    layer(torch.ones(1, 2))
    assert [weight.shape[1] for weight in layer.weights if len(weight.shape) == 2] == [1, 2, 3, 4, 5, 7]


def test_lists_in_lists_are_part_of_the_layer() -> None:
    class Pairs(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.pairs = [(Dense(2), Dense(3)), (Dense(4), Dense(5))]
            self.heads = {"one": [Dense(6)], "two": {"deep": Dense(7)}}
            self.mixed = [Dense(8), None]
            self.by_number = {0: Dense(9)}
            self.table = torch.ones(2, 2).numpy()

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            for first, second in self.pairs:
                inputs = second(first(inputs))
            return self.heads["two"]["deep"](self.heads["one"][0](inputs))

    layer = Pairs()
    layer(torch.ones(1, 2))
    assert [weight.shape[1] for weight in layer.weights if weight.ndim == 2] == [2, 3, 4, 5, 6, 7]
    assert "heads.two.deep.kernel" in layer.state_dict()
    assert type(layer.mixed) is list
    assert type(layer.by_number) is dict
