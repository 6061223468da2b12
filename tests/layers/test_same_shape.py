"""What layers without weights have in common."""

from __future__ import annotations

import torch

from fanin.layers import Dropout, Input, ReLU


def test_built_from_the_start():
    layer = ReLU()
    assert layer.built
    assert layer.count_params() == 0
    assert layer.get_build_config() is None


def test_a_subclass_with_weights_is_built_by_its_shape():
    class Scaled(Dropout):
        def build(self, input_shape):
            self.factor = self.add_weight("factor", (input_shape[-1],), initializer="ones")

        def call(self, inputs, training=False):
            return super().call(inputs, training) * self.factor

    layer = Scaled(0.5)
    assert not layer.built
    assert layer(Input((3,))).shape == (None, 3)
    assert layer.factor.shape == (3,)
    assert layer(torch.ones(2, 3), training=False).tolist() == [[1.0] * 3] * 2


def test_shape_of_any_rank():
    assert ReLU().compute_output_shape((None, 3)) == (None, 3)
    assert ReLU().compute_output_shape([2]) == (2,)
