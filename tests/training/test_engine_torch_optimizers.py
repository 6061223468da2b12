"""Compiled steps with optimizers of torch: their numbers, their state, their groups and hooks."""

import copy

import pytest
import torch
from engine_cases import BATCH, Twins, flat, near, programs, rows, simple

import fanin
from fanin import compile_step

TORCH = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "maximize": lambda p: torch.optim.SGD(p, lr=0.01, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02),
    "adam with decay": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1, betas=(0.8, 0.9)),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.02, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.2),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, lr=0.02, amsgrad=True, eps=1e-3),
    "fused": lambda p: torch.optim.Adam(p, lr=0.02, fused=True),
    "foreach": lambda p: torch.optim.Adam(p, lr=0.02, foreach=True),
    "two groups": lambda p: torch.optim.SGD([{"params": p[:1], "lr": 0.5}, {"params": p[1:], "momentum": 0.5}], lr=0.1),
    "two groups of adamw": lambda p: torch.optim.AdamW(
        [{"params": p[2:], "weight_decay": 0.0}, {"params": p[:2], "betas": (0.5, 0.9)}], lr=0.01
    ),
    "rate as a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.02)),
}


def by_torch(make, run_eagerly, policy="float32", start=None):
    model = simple(policy, 0.0, start)
    start = model.get_weights()
    model.compile(make(list(model.parameters())), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
    model.fit(*rows(), batch_size=BATCH, epochs=3, shuffle=False, verbose=0)
    return model, start


def tensors_of(state):
    return {
        (place, name): value
        for place, slots in state["state"].items()
        for name, value in slots.items()
        if isinstance(value, torch.Tensor)
    }


@pytest.mark.parametrize("name", TORCH)
def test_optimizers_of_torch(name):
    one, start = by_torch(TORCH[name], False)
    two, _ = by_torch(TORCH[name], True, start=start)
    exact, _ = by_torch(TORCH[name], True, "float64", [w.astype("float64") for w in start])
    programs(one)
    near(flat(one), flat(two), flat(exact), torch.finfo(torch.float32).eps)
    found, expected = one.optimizer.state_dict(), two.optimizer.state_dict()
    assert str(found["param_groups"]) == str(expected["param_groups"])
    assert {place: list(slots) for place, slots in found["state"].items()} == {
        place: list(slots) for place, slots in expected["state"].items()
    }
    slots = tensors_of(expected)
    for key, value in tensors_of(found).items():
        assert (value.dtype, value.shape, value.device) == (slots[key].dtype, slots[key].shape, slots[key].device), key
        torch.testing.assert_close(value, slots[key], rtol=1e-4, atol=1e-6)
    assert [w.grad for w in one.parameters()] == [None] * 4


def test_state_of_a_torch_optimizer_can_be_loaded_and_goes_on():
    one, _ = by_torch(TORCH["momentum"], False)
    twin = copy.deepcopy(one)
    state = copy.deepcopy(one.optimizer.state_dict())  # torch would share the tensors
    twin.compile(TORCH["momentum"](list(twin.parameters())), "sparse_categorical_crossentropy")
    twin.optimizer.load_state_dict(state)
    for model in (one, twin):
        model.fit(*rows(1), batch_size=BATCH, shuffle=False, verbose=0)
    for first, second in zip(one.parameters(), twin.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.RMSprop(p, lr=0.01), lambda p: torch.optim.LBFGS(p, max_iter=3)]
)
def test_other_optimizers_of_torch_run_eagerly_and_do_not_warn(make):
    one, start = by_torch(make, False)
    two, _ = by_torch(make, True, start=start)
    assert torch.equal(flat(one), flat(two))


def test_a_torch_optimizer_with_hooks_runs_its_hooks():
    seen = []

    def make(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        optimizer.register_step_post_hook(lambda *given: seen.append(1))
        return optimizer

    by_torch(make, False)
    assert len(seen) == 9


def test_schedulers_of_torch_do_not_warn():
    model = simple()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(*rows(), epochs=2, callbacks=[scheduler], verbose=0)
    programs(model)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    model.train_on_batch(*rows())
    scheduler.step()


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.5},
        {"momentum": 0.1},
        {"weight_decay": 0.5},
        {"nesterov": False},
        {"maximize": True},
        {"dampening": 0.1, "nesterov": False},
    ],
)
def test_changed_groups_of_torch_take_effect(change):
    twins = Twins(
        lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True), lambda: simple(rate=0.0)
    )
    for _ in range(2):
        for model in twins.models:
            model.train_on_batch(*rows(count=4))
    twins.change(lambda model: model.optimizer.param_groups[0].update(change))
    for model in twins.models:
        model.train_on_batch(*rows(count=4))
    programs(twins.models[0])
    torch.testing.assert_close(flat(twins.models[0]), flat(twins.models[1]), rtol=1e-5, atol=1e-6)


def test_a_changed_beta_of_torch_takes_effect():
    twins = Twins(lambda model: torch.optim.Adam(model.parameters(), lr=0.1), lambda: simple(rate=0.0))
    for betas in ((0.9, 0.999), (0.1, 0.5)):
        twins.change(lambda model, b=betas: model.optimizer.param_groups[0].update(betas=b))
        for model in twins.models:
            model.train_on_batch(*rows(count=4))
    torch.testing.assert_close(flat(twins.models[0]), flat(twins.models[1]), rtol=1e-5, atol=1e-6)


def test_a_group_added_to_a_torch_optimizer_takes_effect():
    twins = Twins(lambda model: torch.optim.SGD(list(model.parameters())[:2], lr=0.1), lambda: simple(rate=0.0))
    for add in (False, True):
        if add:
            twins.change(
                lambda model: model.optimizer.add_param_group({"params": list(model.parameters())[2:], "lr": 0.5})
            )
        for model in twins.models:
            model.train_on_batch(*rows(count=4))
    torch.testing.assert_close(flat(twins.models[0]), flat(twins.models[1]), rtol=1e-5, atol=1e-6)


def transposed():
    linear = torch.nn.Linear(8, 6)
    linear.weight = torch.nn.Parameter(linear.weight.detach().t().contiguous().t())
    return torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3), torch.nn.Flatten(), linear)


def channels_last():
    return torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Conv2d(3, 2, 2), torch.nn.Flatten()).to(
        memory_format=torch.channels_last
    )


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "amsgrad", "adamw"])
@pytest.mark.parametrize("make", [transposed, channels_last])
def test_weights_in_any_layout(name, make):
    torch.manual_seed(0)
    one = make()
    two = copy.deepcopy(one)
    optimizers = [TORCH[name](list(module.parameters())) for module in (one, two)]
    step = compile_step(one, lambda outputs, y: outputs.square().mean(), optimizers[0])
    for number in range(4):
        if number == 2:  # state in another layout than its weights
            optimizers[0].load_state_dict(in_other_layouts(optimizers[1].state_dict()))
        x = torch.randn(5, 2, 4, 4)
        step(x, x)
        optimizers[1].zero_grad()
        two(x).square().mean().backward()
        optimizers[1].step()
        for ours, plain in zip(one.parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def in_other_layouts(state):
    state = copy.deepcopy(state)
    for slots in state["state"].values():
        for name, value in slots.items():
            if isinstance(value, torch.Tensor) and value.dim() > 1:
                slots[name] = value.transpose(0, 1).contiguous().transpose(0, 1)
    return state


@pytest.mark.parametrize("eager", [False, True])
def test_an_optimizer_of_another_models_weights_is_refused(eager):
    model, other = (fanin.Sequential([fanin.Input((3,)), fanin.layers.Dense(1)], name=name) for name in ("one", "two"))
    model.compile(torch.optim.Adam(other.parameters()), "mse", run_eagerly=eager)
    x, y = torch.ones(4, 3), torch.ones(4, 1)
    with pytest.raises(ValueError, match="Model 'one': its optimizer, Adam, holds none of the 2 weights that train"):
        model.fit(x, y, verbose=0)
    model.trainable = False  # then there is nothing that it should hold
    with pytest.warns(UserWarning, match="has no weights that train"):
        model.fit(x, y, verbose=0)
