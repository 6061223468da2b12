"""Layers whose `call` decides by values, on symbolic tensors: tried on zeros and ones, and nothing of them changes."""

import numpy as np
import pytest
import torch
from torch import nn

import fanin
from fanin.layers import Activation, Dense, Input, Layer


class Scaled(Layer):
    """x kernel, times a number that only values can give."""

    def build(self, input_shape):
        self.kernel = self.add_weight("kernel", (input_shape[-1], 2))

    def call(self, inputs):
        y = inputs @ self.kernel
        return y if float(inputs.sum()) > 0 else -y


class Doing(Layer):
    """Any function of the inputs as a layer."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def test_the_shape_is_found():
    inputs = Input((3,))
    layer = Scaled()
    outputs = layer(inputs)
    assert (outputs.shape, outputs.dtype) == ((None, 2), torch.float32)
    assert Scaled().compute_output_shape((None, 3)) == (None, 2)
    assert Scaled().compute_output_shape((5, 3)) == (5, 2)
    model = fanin.Model(inputs, Dense(1)(outputs))
    for sign in (1, -1):
        x = torch.full((4, 3), float(sign))
        torch.testing.assert_close(model(x), model.layers[2](sign * (x @ layer.kernel)))


def test_a_chain_is_built_and_trained():
    model = fanin.Sequential([Input((3,)), Scaled(), Dense(1)])
    assert model.output_shape == (None, 1)
    model.compile("sgd", "mse", run_eagerly=True)
    before = [weight.detach().clone() for weight in model.weights]
    model.fit(np.ones((4, 3), "f"), np.ones((4, 1), "f"), verbose=0)
    assert not any(torch.equal(one, other) for one, other in zip(before[::2], model.weights[::2], strict=True))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x.sum().item() > 0 else -x,
        lambda x: x * x.unique().numel(),
        lambda x: torch.from_numpy(np.sinh(x.numpy())),
        lambda x: x if f"{x.sum():.1f}" else -x,
        lambda x: x if torch.equal(x, -x) else -x,
    ],
    ids=["item", "unique", "numpy", "text", "equal"],
)
def test_all_ways_to_ask_for_values(function):
    assert Doing(function)(Input((4,))).shape == (None, 4)
    assert Doing(function).compute_output_shape((7, 4)) == (7, 4)
    assert Activation(function).compute_output_shape((None, 4)) == (None, 4)
    assert Activation(function)(Input((4,))).shape == (None, 4)


def test_sizes_that_hang_on_values_are_unknown():
    assert Doing(lambda x: x[x > 0])(Input((4,), batch_size=2)).shape == (None,)
    assert Doing(lambda x: x if x.sum() > 0 else x[:, :2])(Input((4,))).shape == (None, None)
    with pytest.raises(ValueError, match=r"'doing\w*' could not be tried .*rank of the result depends on the values"):
        Doing(lambda x: x if x.sum() > 0 else x[0])(Input((4,)))
    with pytest.raises(ValueError, match=r"The number of results depends on the values"):
        Doing(lambda x: x if x.sum() > 0 else (x, x))(Input((4,)))
    with pytest.raises(ValueError, match=r"rank of the result depends on the values .*\(60, 4\) or None"):
        Doing(lambda x: None if x.sum() > 0 else x)(Input((4,)))


def test_a_trial_changes_nothing():
    class Counting(Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.norm = nn.BatchNorm1d(3, dtype=torch.float64)
            self.inner = fanin.layers.BatchNormalization()
            self.drop = nn.Dropout(0.5)
            self.drop.eval()

        def call(self, inputs):
            y = self.inner(self.drop(self.norm(inputs)))
            return y if y.sum() > 0 else -y

    layer = Counting(dtype="float64").train()
    layer.drop.eval()
    modes, buffers = [m.training for m in layer.modules()], [b.clone() for b in layer.norm.buffers()]
    state = torch.get_rng_state()
    assert layer(Input((3,), dtype="float64")).shape == (None, 3)
    assert [m.training for m in layer.modules()] == modes
    assert all(torch.equal(one, other) for one, other in zip(buffers, layer.norm.buffers(), strict=True))
    assert layer.inner.moving_mean.eq(0).all()
    assert layer.inner.moving_variance.eq(1).all()
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(weight.grad_fn for weight in layer.parameters())
    assert layer.losses == []


def test_losses_of_such_a_call():
    class Penalized(Layer):
        def call(self, inputs):
            self.add_loss(inputs.square().mean() if inputs.sum() > 0 else inputs.abs().mean())
            return inputs

    inputs = Input((3,))
    model = fanin.Model(inputs, Penalized()(inputs))
    (loss,) = model.losses
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    for x, expected in ((torch.full((2, 3), 3.0), 9.0), (torch.full((2, 3), -3.0), 3.0)):
        model(x)
        assert [loss.item() for loss in model.losses] == [expected]


def test_ordinary_mistakes_are_not_tried_on_values():
    tried = []

    def function(x):
        tried.append(type(x))
        return x @ torch.ones(5, 2)

    with pytest.raises(ValueError, match=r"'doing\w*' could not be tried on symbolic tensors .*\(None, 4\).*dim"):
        Doing(function)(Input((4,)))
    assert torch.Tensor not in tried


def test_what_is_asked_for_its_shape_is_not_asked_again():
    """A `compute_output_shape` that leaves the answer to `Layer` ended in a RecursionError where the trial failed."""

    class Undecided(Layer):
        def call(self, inputs):
            return inputs @ torch.ones(5, 2)

        def compute_output_shape(self, input_shape):
            return super().compute_output_shape(input_shape)

    with pytest.raises(ValueError, match=r"'undecided\w*' could not be tried"):
        Undecided()(Input((4,)))
    with pytest.raises(ValueError, match=r"'undecided\w*' could not be tried"):
        Undecided().compute_output_shape((None, 4))


def test_declared_shapes_may_be_a_dict():
    class Halves(Layer):
        def call(self, inputs):
            if float(inputs.sum()) > 1e9:
                raise ValueError
            left, right = inputs.chunk(2, dim=-1)
            return {"left": left, "both": [right, inputs]}

        def compute_output_shape(self, input_shape):
            half = (*input_shape[:-1], input_shape[-1] // 2)
            return {"left": half, "both": [half, input_shape]}

    inputs = Input((4,))
    found = Halves()(inputs)
    assert found["left"].shape == (None, 2)
    assert [symbol.shape for symbol in found["both"]] == [(None, 2), (None, 4)]
    assert fanin.Model(inputs, found)(torch.ones(3, 4))["both"][1].shape == (3, 4)
