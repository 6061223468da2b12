"""`compile_step` on plain torch modules, against the loops that it stands for."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compile_step_cases import MODULES, data, plain_step, twins
from engine_cases import flat, near
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from fanin import compile_step, losses, optimizers

CLASS_LOSSES = {
    "function": F.cross_entropy,
    "module": nn.CrossEntropyLoss(),
    "class weights": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5])),
    "smoothing": nn.CrossEntropyLoss(label_smoothing=0.1),
    "ignored": nn.CrossEntropyLoss(ignore_index=1),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "ours": losses.SparseCategoricalCrossentropy(from_logits=True),
    "lambda": lambda outputs, y: F.nll_loss(F.log_softmax(outputs, -1), y) + 0.01 * outputs.square().mean(),
}


VALUE_LOSSES = {
    "mse": "mse",
    "huber": losses.Huber(0.5),
    "l1": nn.L1Loss(),
    "function": F.smooth_l1_loss,
    "mse of torch": nn.MSELoss(),
}


@pytest.mark.parametrize("name", MODULES)
def test_sgd_steps_of_modules_are_as_near_to_float64_as_the_loop(name):
    one, two = twins(name)
    best = copy.deepcopy(one).double()
    make = lambda module: torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)  # noqa: E731
    step, plain, exactly = compile_step(one, F.cross_entropy, make(one)), make(two), make(best)
    for i, rows in enumerate((5, 5, 3, 5)):
        x, y = data(rows, seed=i)
        torch.manual_seed(i)
        found = step(x, y)
        torch.manual_seed(i)
        expected = plain_step(two, F.cross_entropy, plain, x, y)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        if name != "dropout":
            plain_step(best, F.cross_entropy, exactly, x.double(), y)
    if name == "dropout":
        torch.testing.assert_close(flat(one), flat(two), rtol=1e-5, atol=1e-6)
    else:
        near(flat(one), flat(two), flat(best))
    assert None not in step.engine._programs.values()
    assert all(weight.grad is None for weight in one.parameters())


@settings(
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(sorted(set(MODULES) - {"own layers"})),
    loss=st.sampled_from(sorted(CLASS_LOSSES)),
    kind=st.sampled_from(["SGD", "Adam", "RMSprop", "Lion", "Adagrad"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_steps_with_our_optimizers_give_the_bits_of_the_loop(name, loss, kind, dtype, seed, exact):
    if dtype is torch.float64 and loss == "class weights":
        return  # torch wants both in one dtype
    one, two = twins(name, dtype, seed)
    step = compile_step(one, CLASS_LOSSES[loss], getattr(optimizers, kind)(0.05))
    plain = getattr(optimizers, kind)(0.05)
    weights = list(two.parameters())
    for i, rows in enumerate((5, 5, 3)):
        x, y = data(rows, seed=seed + i, dtype=dtype)
        torch.manual_seed(i)
        found = step(x, y)
        torch.manual_seed(i)
        outputs = two(x)
        of = CLASS_LOSSES[loss]
        expected = of(y, outputs) if isinstance(of, losses.Loss) else of(outputs, y)
        gradients = torch.autograd.grad(expected, weights, allow_unused=True)
        plain.apply(
            [g for g in gradients if g is not None],
            [w for w, g in zip(weights, gradients, strict=True) if g is not None],
        )
        assert torch.equal(found, expected.detach())
    for first, second in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert first[0] == second[0]
        assert torch.equal(first[1], second[1]), first[0]


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_losses_for_classes(loss):
    one, two = twins("mlp")
    step = compile_step(one, CLASS_LOSSES[loss], torch.optim.Adam(one.parameters(), lr=0.01))
    optimizer = torch.optim.Adam(two.parameters(), lr=0.01)
    for i in range(3):
        expected = plain_step(two, CLASS_LOSSES[loss], optimizer, *data(seed=i))
        torch.testing.assert_close(step(*data(seed=i)), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(flat(one), flat(two), rtol=1e-4, atol=1e-5)
    assert None not in step.engine._programs.values()


@pytest.mark.parametrize("loss", VALUE_LOSSES)
def test_losses_for_values(loss):
    one, two = twins("mlp")
    step = compile_step(one, VALUE_LOSSES[loss], torch.optim.SGD(one.parameters(), lr=0.1))
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    for i in range(3):
        expected = plain_step(two, VALUE_LOSSES[loss], optimizer, *data(classes=False, seed=i))
        torch.testing.assert_close(step(*data(classes=False, seed=i)), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(flat(one), flat(two), rtol=1e-4, atol=1e-5)
    assert None not in step.engine._programs.values()


def test_class_weights_that_change_are_seen():
    loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    one, two = twins("linear")
    step = compile_step(one, loss, "sgd")
    first = step(*data())
    loss.weight.mul_(torch.tensor([5.0, 1.0, 1.0]))
    two.load_state_dict(one.state_dict())
    x, y = data()
    assert step(x, y) == pytest.approx(loss(two(x), y).item(), rel=1e-6)
    assert first.dim() == 0


def test_a_module_whose_outputs_are_the_loss():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 1)

        def forward(self, x):
            return self.linear(x).square().mean()

    module = Whole()
    step = compile_step(module, None, "sgd")
    values = [step(data()[0]).item() for _ in range(5)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_the_loss_is_a_new_tensor_each_time():
    module = nn.Linear(6, 3)
    step = compile_step(module, F.cross_entropy, "adam")
    found = [step(*data()) for _ in range(3)]
    assert len({one.data_ptr() for one in found}) == 3
    assert len({one.item() for one in found}) == 3
    assert all(one.shape == () and not one.requires_grad and not one.is_inference() for one in found)


def test_structures_of_inputs_and_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(6, 4), nn.Linear(2, 4)

        def forward(self, given):
            h = torch.tanh(self.left(given["left"]) + self.right(given["right"]))
            return h, h.sum(-1)

    module = Two()
    step = compile_step(module, lambda outputs, y: F.mse_loss(outputs[1], y["size"]) + outputs[0].abs().mean(), "adam")
    batch = {"left": torch.randn(5, 6), "right": torch.randn(5, 2)}
    values = [step(batch, {"size": torch.ones(5)}).item() for _ in range(20)]
    assert values[-1] < values[0]
    assert None not in step.engine._programs.values()


def test_arrays_and_sample_weights():
    module, other = twins("linear")
    x, y = data()
    weight = np.arange(5, dtype="float32")
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    step = compile_step(module, loss, optimizers.SGD(0.1))
    found = step(x.numpy(), y.numpy(), weight)
    assert found.item() == pytest.approx(loss(y, other(x), torch.from_numpy(weight)).item(), rel=1e-6)
    assert compile_step(other, loss, optimizers.SGD(0.1))(x, y, torch.from_numpy(weight)) == found


@pytest.mark.parametrize("given", [3, [1], object()])
def test_a_loss_that_is_none_is_refused(given):
    with pytest.raises((TypeError, ValueError)):
        compile_step(nn.Linear(2, 1), given, "sgd")


def test_a_copy_of_a_step_has_a_module_and_an_optimizer_of_its_own():
    torch.manual_seed(0)
    module = MODULES["mlp"]()
    step = compile_step(module, F.cross_entropy, torch.optim.Adam(module.parameters(), lr=0.1))
    step(*data())
    for other in (copy.deepcopy(step), pickle.loads(pickle.dumps(step))):
        assert other.optimizer.param_groups[0]["params"][0] is next(other.module.parameters())
        twin = copy.deepcopy(step)
        assert torch.equal(other(*data(seed=1)), twin(*data(seed=1)))
        assert torch.equal(flat(other.module), flat(twin.module))
        assert not torch.equal(flat(other.module), flat(module))


def test_an_optimizer_class_is_refused():
    module = MODULES["mlp"]()
    with pytest.raises(TypeError, match=r"such as torch.optim.Adam\(module.parameters\(\)\), found the class Adam"):
        compile_step(module, F.cross_entropy, torch.optim.Adam)
