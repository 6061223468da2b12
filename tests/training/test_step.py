"""The step is one function of state and batch; of the model it changes buffers alone."""

import copy

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import fanin
from fanin.layers import Dense
from fanin.training.compiled import Compiled
from fanin.training.data import Batch
from fanin.training.step import Step
from fanin.training.swapped import swapped


class Counting(fanin.Layer):
    """Counts its calls in a buffer, and adds a loss and an update."""

    def build(self, input_shape):
        self.count = self.add_weight("count", (), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.count.add_(1.0)
        self.add_loss(0.1 * inputs.square().mean(), inputs=inputs)
        return inputs


def setup():
    model = fanin.Sequential([Dense(4, "tanh", kernel_regularizer="l2"), Counting(), Dense(2)])
    compiled = Compiled("sgd", "mse", given_metrics=["mae"])
    batch = Batch(torch.randn(6, 3), torch.randn(6, 2), None, 6)
    model(batch.x)
    compiled.bind(model, (None, 2), batch.y)
    return model, Step(model, compiled.compute_loss, compiled.measuring.measure), compiled, batch


def test_nothing_but_buffers_changes_outside_the_results():
    model, step, compiled, batch = setup()
    state = step.live_state(compiled.measuring.new_sums())
    before, sums = copy.deepcopy(model.state_dict()), copy.deepcopy(state.metrics)
    first, second = step.train(state, batch), step.train(state, batch)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] + 2 if name == "1.count" else before[name])
    assert str(state.metrics) == str(sums)
    assert torch.equal(first.loss, second.loss)
    assert set(first.gradients) == set(state.parameters)
    for name in first.gradients:
        assert torch.equal(first.gradients[name], second.gradients[name])


def test_the_loss_has_all_its_parts():
    model, step, compiled, batch = setup()
    result = step.train(step.live_state(compiled.measuring.new_sums()), batch)
    hidden = torch.tanh(batch.x @ model.layers[0].kernel + model.layers[0].bias)
    output = hidden @ model.layers[2].kernel + model.layers[2].bias
    expected = (
        (output - batch.y).square().mean() + 0.1 * hidden.square().mean() + 0.01 * model.layers[0].kernel.square().sum()
    )
    np.testing.assert_allclose(result.loss.item(), expected.item(), rtol=1e-6)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    for found, wanted in zip(result.gradients.values(), gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_step_traces_to_one_graph():
    """What will be compiled: the whole of forward, losses and backward, on fake tensors, with equal results."""
    model, step, compiled, batch = setup()
    own = [*model.parameters(), *model.buffers()]

    def run(given, x, y):
        stands_in = [g.detach().clone().requires_grad_(o.requires_grad) for g, o in zip(given, own, strict=True)]
        with swapped(model, dict(zip(map(id, own), stands_in, strict=True))):
            result = step.train(step.live_state(compiled.measuring.new_sums()), Batch(x, y, None, 6))
        return result.loss, list(result.gradients.values()), stands_in[len(list(model.parameters())) :]

    arguments = [one.detach().clone() for one in own], batch.x, batch.y
    traced = make_fx(run, tracing_mode="fake")(*arguments)
    for found, expected in zip(
        torch.utils._pytree.tree_leaves(traced(*arguments)),
        torch.utils._pytree.tree_leaves(run(*arguments)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)
    assert model.losses  # tracing left nothing behind that could not be read
    assert all(not hasattr(loss, "fake_mode") for loss in model.losses)
