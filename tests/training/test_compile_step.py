"""`compile_step` and `compile_predict` on plain torch modules, against the loops that they stand for."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import fanin
import fanin.program.run
from fanin import compile_predict, compile_step, losses, optimizers
from fanin.program.passes import PASSES
from fanin.program.passes.biases import sum_rows_by_product
from fanin.program.passes.cross_entropy import simplify_cross_entropy
from fanin.training import engine as engine_module
from fanin.training import prediction as prediction_module

EXACT = tuple(one for one in PASSES if one not in (sum_rows_by_product, simplify_cross_entropy))


@pytest.fixture
def exact(monkeypatch):
    """Programs without the passes that change the arithmetic."""
    monkeypatch.setattr(fanin.program.run, "PASSES", EXACT)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.relu(self.first(x)))))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down, self.out = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6), nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.ones(()))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.out(x + self.scale * self.down(F.silu(self.up(self.norm(x)))))


MODULES = {
    "linear": lambda: nn.Linear(6, 3),
    "mlp": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)),
    "norms": lambda: nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)
    ),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.ELU(), nn.Linear(8, 3)),
    "tied": Tied,
    "norm first": lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3)),
    "residual": Residual,
    "prelu": lambda: nn.Sequential(nn.Linear(6, 8), nn.PReLU(), nn.Linear(8, 3, bias=False)),
    "own layers": lambda: nn.Sequential(
        fanin.layers.Dense(8, "relu", kernel_regularizer="l2", input_dim=6), nn.Linear(8, 3)
    ),
    "parametrized": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.Linear(8, 3)),
}
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


def data(rows=5, classes=True, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, generator=generator).to(dtype)
    return x, torch.arange(rows) % 3 if classes else torch.randn(rows, 3, generator=generator).to(dtype)


def plain_step(module, loss, optimizer, x, y):
    """The loop that a compiled step stands for."""
    module.train()
    outputs = module(x)
    if isinstance(loss, (str, losses.Loss)):
        value = (losses.MeanSquaredError() if loss == "mse" else loss)(y, outputs)
    else:
        value = loss(outputs, y)
    for part in module.modules():
        if isinstance(part, fanin.Layer):
            value = value + sum(part.losses)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    optimizer.zero_grad()
    return value.detach()


def flat(module):
    return torch.cat([one.detach().double().flatten() for one in [*module.parameters(), *module.buffers()]])


def near(one, two, best):
    floor = 4 * torch.finfo(torch.float32).eps * best.norm()
    first, second = (one - best).norm(), (two - best).norm()
    assert first <= 2 * second + floor, (first, second, floor)
    assert second <= 2 * first + floor, (first, second, floor)


def twins(name, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    module = MODULES[name]()
    return module.to(dtype), copy.deepcopy(module)


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


def test_gradients_that_were_there_stay():
    module = nn.Linear(6, 3)
    module(data()[0]).sum().backward()
    kept = [weight.grad.clone() for weight in module.parameters()]
    step = compile_step(module, F.cross_entropy, torch.optim.SGD(module.parameters(), lr=0.1))
    step(*data())
    assert all(torch.equal(one, weight.grad) for one, weight in zip(kept, module.parameters(), strict=True))


def test_modes_of_parts_are_kept():
    module = MODULES["norms"]()
    module.eval()
    step = compile_step(module, F.cross_entropy, "sgd")
    before = module[1].running_mean.clone()
    step(*data())
    assert not any(part.training for part in module.modules())
    assert not torch.equal(before, module[1].running_mean)  # the step itself runs in train mode
    module.train()
    module[1].eval()
    frozen = module[1].running_mean.clone()
    step(*data())
    assert torch.equal(frozen, module[1].running_mean)
    assert module[0].training
    assert not module[1].training
    assert int(module[1].num_batches_tracked) == 1


def test_batch_normalization_of_torch_counts_its_batches():
    module, other = twins("norms")
    step = compile_step(module, F.cross_entropy, torch.optim.SGD(module.parameters(), lr=0.0))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.0)
    for i in range(3):
        step(*data(seed=i))
        plain_step(other, F.cross_entropy, optimizer, *data(seed=i))
    assert int(module[1].num_batches_tracked) == 3
    torch.testing.assert_close(module[1].running_mean, other[1].running_mean)
    torch.testing.assert_close(module[1].running_var, other[1].running_var)


def test_tied_weights_stay_tied():
    module = Tied()
    step = compile_step(module, F.cross_entropy, torch.optim.Adam(module.parameters(), lr=0.1))
    step(*data())
    assert module.first.weight is module.second.weight
    assert len(list(module.parameters())) == 5


def test_unused_and_frozen_weights_stay():
    module = Residual()
    module.norm.requires_grad_(False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5)
    step = compile_step(module, F.cross_entropy, optimizer)
    step(*data())
    assert module.unused.tolist() == [1, 1]
    assert torch.equal(module.norm.weight, torch.ones(6))
    assert module.norm.weight not in optimizer.state
    assert module.unused not in optimizer.state
    module.norm.requires_grad_(True)
    step(*data())
    assert not torch.equal(module.norm.weight, torch.ones(6))


def test_a_lazy_module_is_built_by_the_first_step():
    module = nn.Sequential(fanin.layers.Dense(8, "relu"), fanin.layers.Dense(3))
    step = compile_step(module, F.cross_entropy, "adam")
    first = step(*data())
    assert module[0].kernel.shape == (6, 8)
    for _ in range(30):
        last = step(*data())
    assert last < first


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


def test_schedulers_of_torch_do_not_warn_and_are_followed():
    module, other = twins("mlp")
    runs = []
    for one, compiled in ((module, True), (other, False)):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.5, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        step = compile_step(one, F.cross_entropy, optimizer) if compiled else None
        for i in range(4):
            if compiled:
                step(*data(seed=i))
            else:
                plain_step(one, F.cross_entropy, optimizer, *data(seed=i))
            scheduler.step()
        runs.append((flat(one), scheduler.get_last_lr()))
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=1e-4, atol=1e-5)
    assert runs[0][1] == runs[1][1]


def test_a_scheduler_that_cycles_momentum_is_followed():
    module, other = twins("mlp")
    for one, compiled in ((module, True), (other, False)):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.5, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=6)
        step = compile_step(one, F.cross_entropy, optimizer)
        for i in range(4):
            step(*data(seed=i)) if compiled else plain_step(one, F.cross_entropy, optimizer, *data(seed=i))
            scheduler.step()
    torch.testing.assert_close(flat(module), flat(other), rtol=1e-4, atol=1e-5)


def change_lr(module, optimizer):
    optimizer.param_groups[0]["lr"] = 0.7


def change_dropout(module, optimizer):
    module[1].p = 0.9


def change_hook(module, optimizer):
    module[0].register_forward_hook(lambda part, given, found: found * 0.5)


def change_module(module, optimizer):
    module[2] = nn.Tanh()


def change_state(module, optimizer):
    module.load_state_dict({name: value / 2 for name, value in module.state_dict().items()}, assign=True)
    optimizer.param_groups[0]["params"] = list(module.parameters())


def change_weights(module, optimizer):
    with torch.no_grad():
        module[0].weight.mul_(0.5)


def change_frozen(module, optimizer):
    module[0].requires_grad_(False)


def change_gradient_hook(module, optimizer):
    module[0].weight.register_hook(lambda gradient: gradient * 0.1)


def change_backward_hook(module, optimizer):
    module[3].register_full_backward_hook(lambda part, inputs, outputs: (inputs[0] * 0.1,))


def change_parametrization(module, optimizer):
    class Half(nn.Module):
        def forward(self, weight):
            return weight / 2

    nn.utils.parametrize.register_parametrization(module[3], "weight", Half())
    optimizer.param_groups[0]["params"] = list(module.parameters())


@pytest.mark.parametrize(
    "change",
    [
        change_lr,
        change_dropout,
        change_hook,
        change_module,
        change_state,
        change_weights,
        change_frozen,
        change_gradient_hook,
        change_backward_hook,
        change_parametrization,
    ],
)
def test_changes_take_effect_at_the_next_step(change):
    found = []
    for one, compiled in zip(twins("dropout"), (True, False), strict=True):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        step = compile_step(one, F.cross_entropy, optimizer)
        values = []
        for i in range(4):
            if i == 2:
                change(one, optimizer)
            torch.manual_seed(i)
            values.append(
                step(*data(seed=i)) if compiled else plain_step(one, F.cross_entropy, optimizer, *data(seed=i))
            )
        found.append((torch.stack(values), flat(one)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_eager_calls_and_autograd_between_steps():
    module, other = twins("mlp")
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    step = compile_step(module, F.cross_entropy, optimizer)
    plain = torch.optim.Adam(other.parameters(), lr=0.01)
    for i in range(4):
        if i % 2:
            for one, of in ((module, optimizer), (other, plain)):
                plain_step(one, F.cross_entropy, of, *data(seed=i))
        else:
            step(*data(seed=i))
            plain_step(other, F.cross_entropy, plain, *data(seed=i))
    torch.testing.assert_close(flat(module), flat(other), rtol=1e-4, atol=1e-5)
    assert {name: int(s["step"]) for name, s in enumerate(optimizer.state.values())} == dict.fromkeys(range(6), 4)


def test_a_module_that_was_compiled_can_be_copied_and_pickled():
    module = MODULES["mlp"]()
    step = compile_step(module, F.cross_entropy, "adam")
    step(*data())
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(again(data()[0]), module(data()[0]))
        compile_step(again, F.cross_entropy, "adam")(*data())


def test_two_steps_of_one_module():
    module, other = twins("mlp")
    optimizer = optimizers.SGD(0.1)
    one, two = compile_step(module, F.cross_entropy, optimizer), compile_step(module, nn.MSELoss(), optimizer)
    plain = torch.optim.SGD(other.parameters(), lr=0.1)
    for i in range(2):
        one(*data(seed=i))
        plain_step(other, F.cross_entropy, plain, *data(seed=i))
        two(*data(classes=False, seed=i))
        plain_step(other, nn.MSELoss(), plain, *data(classes=False, seed=i))
    torch.testing.assert_close(flat(module), flat(other), rtol=1e-4, atol=1e-6)
    assert optimizer.iterations == 4


class ByValue(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        y = self.linear(x)
        return y if y.mean().item() > 0 else -y


@pytest.mark.parametrize("optimizer", [lambda p: torch.optim.SGD(p, lr=0.1), lambda p: optimizers.SGD(0.1)])
def test_what_cannot_be_traced_runs_eagerly_and_says_so_once(optimizer):
    torch.manual_seed(0)
    module = ByValue()
    other = copy.deepcopy(module)
    step = compile_step(module, F.cross_entropy, optimizer(module.parameters()))
    plain = torch.optim.SGD(other.parameters(), lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(3):
            found = step(*data(seed=i))
            torch.testing.assert_close(found, plain_step(other, F.cross_entropy, plain, *data(seed=i)))
            step(*data(3, seed=i))
            plain_step(other, F.cross_entropy, plain, *data(3, seed=i))
    torch.testing.assert_close(flat(module), flat(other))
    assert len(caught) == 1
    assert "ByValue" in str(caught[0].message)
    assert "test_compile_step.py" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert all(weight.grad is None for weight in module.parameters())


def test_a_warning_made_an_error_leaves_a_step_that_is_done():
    module = ByValue()
    step = compile_step(module, F.cross_entropy, "sgd")
    before = flat(module)
    with pytest.raises(UserWarning, match="eagerly"):
        step(*data())
    assert not torch.equal(before, flat(module))
    step(*data())


@pytest.mark.parametrize("first", [False, True])
def test_errors_are_those_of_the_loop_and_change_nothing(first):
    x, y = data()
    table = nn.Sequential(nn.Embedding(4, 6), nn.Flatten(), nn.Linear(12, 3))
    places = torch.tensor([[0, 1], [2, 3]])
    cases = [
        (MODULES["mlp"](), (x, y), (x, y + 5)),
        (MODULES["mlp"](), (x, y), (x[:, :4], y)),
        (MODULES["mlp"](), (x, y), (x, y[:3])),
        (MODULES["norms"](), (x, y), (x[:1], y[:1])),
        (table, (places, y[:2]), (places + 2, y[:2])),
    ]
    for module, good, bad in cases:
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
        step = compile_step(module, F.cross_entropy, optimizer)
        if first:
            step(*good)
        before, state = (
            [w.detach().clone() for w in module.parameters()],
            copy.deepcopy(optimizer.state_dict()["state"]),
        )
        with pytest.raises(Exception) as expected:
            F.cross_entropy(copy.deepcopy(module).train()(bad[0]), bad[1])
        with pytest.raises(expected.type) as found:
            step(*bad)
        assert str(found.value) == str(expected.value)
        assert all(torch.equal(one, two) for one, two in zip(before, module.parameters(), strict=True))
        now = optimizer.state_dict()["state"]
        assert str(state) == str(now)
        step(*good)
        assert None not in list(step.engine._programs.values())[-1:]


def test_programs_by_signature_and_bounded(monkeypatch):
    made = []

    make = fanin.program.Program.__init__

    def counted(self, *given, **named):
        make(self, *given, **named)
        made.append(1)

    monkeypatch.setattr(fanin.program.Program, "__init__", counted)
    monkeypatch.setattr(engine_module, "_MOST_PROGRAMS", 2)
    step = compile_step(MODULES["mlp"](), F.cross_entropy, "sgd")
    for rows in (5, 5, 3, 5, 3, 4, 4):
        step(*data(rows))
    assert len(made) == 3
    assert len(step.engine._programs) == 2
    x, y = data(4)
    step(x.t().contiguous().t(), y)
    assert len(made) == 4


# --- prediction -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_predictions_are_those_of_the_module_in_eval_mode(name):
    module, _ = twins(name)
    x, _ = data()
    predict = compile_predict(module, x)
    other = copy.deepcopy(module).eval()
    assert all(part.training for part in module.modules())  # its modes are as they were
    for rows in (5, 1, 7, 5):
        x, _ = data(rows, seed=rows)
        with torch.no_grad():
            expected = other(x)
        found = predict(x)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        assert type(found) is torch.Tensor
        assert not found.requires_grad
        assert not found.is_inference()
        as_array = predict(x.numpy())
        assert type(as_array) is np.ndarray
        np.testing.assert_array_equal(as_array, found.numpy())


def test_predictions_are_new_tensors():
    predict = compile_predict(nn.Linear(6, 3), data()[0])
    first = predict(data()[0])
    kept = first.clone()
    predict(data(seed=1)[0])
    assert torch.equal(first, kept)
    array = predict(data()[0].numpy())
    copied = array.copy()
    predict(data(seed=1)[0].numpy())
    np.testing.assert_array_equal(array, copied)
    array += 1  # it may be written


class Structured(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, given):
        one, two = (given["one"], given["two"]) if isinstance(given, dict) else given
        y = self.linear(one) * two[:, None]
        return {"y": y, "parts": [y.sum(-1), two]}


@pytest.mark.parametrize("kind", ["dict", "list", "tuple"])
def test_predictions_of_structures(kind):
    module = Structured()
    x, two = data()[0], torch.arange(5.0)
    given = {"dict": {"one": x, "two": two}, "list": [x, two], "tuple": (x, two)}[kind]
    predict = compile_predict(module, given)
    found = predict(given)
    with torch.no_grad():
        torch.testing.assert_close(found, module(given))
    assert found["parts"][1].data_ptr() != two.data_ptr()
    shorter = {"dict": {"one": x[:2], "two": two[:2]}, "list": [x[:2], two[:2]], "tuple": (x[:2], two[:2])}[kind]
    with torch.no_grad():
        torch.testing.assert_close(predict(shorter), module(shorter))
    arrays = (
        {name: value.numpy() for name, value in given.items()}
        if kind == "dict"
        else type(given)(v.numpy() for v in given)
    )
    again = predict(arrays)
    assert isinstance(again["y"], np.ndarray)
    np.testing.assert_array_equal(again["y"], found["y"].numpy())


def test_refresh_takes_over_what_changed():
    module = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    x, _ = data()
    predict = compile_predict(module, x)
    before = predict(x)
    with torch.no_grad():
        module[0].weight.add_(1)
    module[1] = nn.Tanh()
    module[2] = nn.Linear(4, 2)
    predict.refresh()
    found = predict(x)
    assert found.shape == (5, 2)
    torch.testing.assert_close(found, module(x).detach())
    assert before.shape == (5, 3)


def test_predictions_inside_modes_of_the_caller():
    module = nn.Linear(6, 3)
    x, _ = data()
    predict = compile_predict(module, x)
    expected = predict(x)
    for mode in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with mode:
            assert torch.equal(predict(x), expected)
            assert torch.equal(predict(data(3)[0]), predict(data(3)[0]))
    assert torch.equal(predict(x.requires_grad_()), expected)


def test_predictions_in_threads():
    module = MODULES["mlp"]()
    inputs = [data(5, seed=seed)[0] for seed in range(4)]
    predict = compile_predict(module, inputs[0])
    expected = [predict(x) for x in inputs]
    faults = []

    def work(place):
        faults.extend(1 for _ in range(30) if not torch.equal(predict(inputs[place]), expected[place]))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_predictions_that_cannot_be_traced():
    module = ByValue()
    x, _ = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predict = compile_predict(module, x)
        assert torch.equal(predict(x), module(x).detach())
        np.testing.assert_array_equal(predict(x.numpy()), module(x).detach().numpy())


def test_predictions_with_layers_of_ours():
    model = fanin.Sequential(
        [
            fanin.Input((3,), dtype="int64"),
            fanin.layers.Embedding(5, 4),
            fanin.layers.Flatten(),
            fanin.layers.Dense(2, "softmax"),
        ]
    )
    x = np.array([[0, 1, 2], [3, 4, 0]])
    predict = compile_predict(model, x)
    np.testing.assert_allclose(predict(x), model(x).detach().numpy(), rtol=1e-6)
    with pytest.raises(Exception) as expected:
        model(torch.from_numpy(x + 1))
    with pytest.raises(expected.type) as found:
        predict(x + 1)
    assert str(found.value) == str(expected.value)


def test_programs_for_prediction_are_bounded(monkeypatch):
    monkeypatch.setattr(prediction_module, "_MOST_PROGRAMS", 2)
    module = nn.Linear(6, 3)
    predict = compile_predict(module, data()[0])
    for rows in (1, 2, 3, 4, 1):
        x, _ = data(rows)
        torch.testing.assert_close(predict(x), module(x).detach())
    assert len(predict._prediction._programs) <= 2


def test_nan_and_infinity_pass_through():
    predict = compile_predict(nn.Sequential(nn.Linear(6, 3), nn.ReLU()), data()[0])
    x, _ = data()
    x[0, 0], x[1, 1] = float("nan"), float("inf")
    assert predict(x)[0].isnan().all()
    assert not predict(x)[2:].isnan().any()
