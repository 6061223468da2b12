"""Loss scaling, beside the same training unscaled."""

import copy

import numpy as np
import pytest
import torch

import fanin
from fanin.optimizers import SGD, Adam, LossScaleOptimizer, deserialize, schedules, serialize


def test_a_skipped_step_changes_nothing_but_the_scale():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = LossScaleOptimizer(Adam(0.1, use_ema=True), initial_scale=4.0)
    optimizer.apply([torch.ones(3)], [weight])
    before = [value.clone() for value in optimizer.state_tensors([weight])[4:]], weight.detach().clone()
    optimizer.apply([torch.tensor([1.0, float("nan"), 1.0])], [weight])
    assert all(map(torch.equal, optimizer.state_tensors([weight])[4:], before[0]))
    assert torch.equal(weight, before[1])
    assert (optimizer.dynamic_scale, optimizer.step_counter, optimizer.iterations) == (2.0, 0, 1)


@pytest.mark.parametrize("eagerly", [False, True])
def test_small_gradients_survive_in_float16(eagerly):
    """Gradients of 1e-9 are 0 in float16; scaled they train as in float32."""

    def trained(policy, **options):
        fanin.config.set_dtype_policy(policy)
        dense = fanin.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        model = fanin.Sequential([fanin.Input((2,)), dense])
        model.compile(SGD(1e7), lambda y, p: p.float() * 1e-9, run_eagerly=eagerly, **options)
        model.fit(np.ones((4, 2), "float32"), np.zeros((4, 1), "float32"), batch_size=2, verbose=0)
        return dense.kernel.detach()

    expected = trained("float32")
    assert torch.allclose(expected, torch.tensor(1.0 - 2 * 1e-2), rtol=1e-6)
    torch.testing.assert_close(trained("mixed_float16"), expected, rtol=2e-3, atol=0)
    if eagerly:  # a compiled step has small products in float32, whose gradients survive anyhow
        assert torch.equal(trained("mixed_float16", auto_scale_loss=False), torch.ones(2, 1))


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), Adam(0.01), Adam(0.01, gradient_accumulation_steps=2)])
def test_compiled_steps_skip_and_count_as_eager_ones(optimizer):
    def trained(eagerly):
        fanin.utils.set_random_seed(3)
        layers = [fanin.Input((3,)), fanin.layers.Dense(4, "relu"), fanin.layers.Dense(1)]
        model = fanin.Sequential(layers)
        wrapped = LossScaleOptimizer(copy.deepcopy(optimizer), initial_scale=2.0**127, dynamic_growth_steps=2)
        model.compile(wrapped, "mse", run_eagerly=eagerly)
        x = torch.linspace(-8, 8, 60).reshape(20, 3).numpy()
        model.fit(x, x.sum(1, keepdims=True), batch_size=4, epochs=2, shuffle=False, verbose=0)
        state = [wrapped.dynamic_scale, wrapped.step_counter, wrapped.iterations]
        return state, [w.detach() for w in model.parameters()]

    (state, weights), (eager_state, eager_weights) = trained(False), trained(True)
    assert state == eager_state
    assert state[2] < 10  # some steps were skipped
    for a, b in zip(weights, eager_weights, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_constant_factor_changes_no_result(eagerly):
    def trained(**options):
        fanin.utils.set_random_seed(3)
        model = fanin.Sequential([fanin.Input((3,)), fanin.layers.Dense(4, "relu"), fanin.layers.Dense(1)])
        model.compile(SGD(0.01, **options), "mse", run_eagerly=eagerly)
        x = torch.linspace(-1, 1, 60).reshape(20, 3).numpy()
        history = model.fit(x, x.sum(1, keepdims=True), batch_size=4, shuffle=False, verbose=0)
        return history.history["loss"], [w.detach() for w in model.parameters()]

    assert str(trained(loss_scale_factor=1024.0)) == str(trained())  # a power of two: bit for bit


def test_a_loop_of_ones_own():
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = SGD(0.5, loss_scale_factor=8.0)
    scaled = optimizer.scale_loss((weight**2).sum())
    assert scaled.item() == 32.0
    optimizer.apply(torch.autograd.grad(scaled, [weight]), [weight])
    assert weight.item() == 0.0


def test_config_and_state_go_round():
    optimizer = LossScaleOptimizer(Adam(schedules.ExponentialDecay(0.1, 10, 0.9)), initial_scale=64.0)
    weight = torch.nn.Parameter(torch.ones(2))
    for value in (1.0, float("inf"), 2.0):
        optimizer.apply([torch.full((2,), value)], [weight])
    found = deserialize(serialize(optimizer))
    assert serialize(found) == serialize(optimizer)
    found.build([weight])
    found.set_state([weight], optimizer.get_state([weight]))
    assert (found.dynamic_scale, found.step_counter, found.iterations) == (32.0, 1, 2)
    again = copy.deepcopy(optimizer)
    assert (again.dynamic_scale, again.iterations) == (32.0, 2)
    with pytest.raises(ValueError, match=r"dynamic_scale must be a number in \(0"):
        found.set_state([weight], [0, 0, 1, -1.0, *optimizer.get_state([weight])[4:]])
    assert found.dynamic_scale == 32.0


def test_what_the_inner_optimizer_knows():
    inner = SGD(0.5)
    optimizer = LossScaleOptimizer(inner)
    optimizer.learning_rate = 0.25
    assert (inner.learning_rate, optimizer.learning_rate) == (0.25, 0.25)
    inner.iterations = 7
    assert optimizer.iterations == 7
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer.scale_learning_rate([weight], 0.0)
    optimizer.apply([torch.ones(())], [weight])
    assert weight.item() == 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("adam",), TypeError, "wraps one of fanin's optimizers"),
        ((LossScaleOptimizer(SGD()),), TypeError, "scales no loss"),
        ((SGD(), 0.0), ValueError, "initial_scale must be a number in"),
        ((SGD(), 1.0, 0), ValueError, "dynamic_growth_steps must be a positive integer, found 0"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LossScaleOptimizer(*arguments)
    with pytest.raises(ValueError, match="does not know the argument 'clipnorm'; give it to the inner"):
        LossScaleOptimizer(SGD(), clipnorm=1.0)
    with pytest.raises(ValueError, match=r"loss_scale_factor must be a number in \(0"):
        SGD(loss_scale_factor=0.0)
